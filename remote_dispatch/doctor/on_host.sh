# What the doctor wants to know of a host before OpenCode is asked anything. Prints lines `key value`.
# Values: 1 OpenCode's path or "" · 2 working directory as asked, or "" · 3 seconds that OpenCode has for its start
#         4... NAME=VALUE of the environment that OpenCode gets there
# shellcheck shell=sh disable=SC2154
# In front of it stand identity.sh, the runner's common.sh and the functions of probe.sh, which assign some variables.

missing_programs() { # what runs need beside what the doctor looks for with the shell
  for program in awk cksum df find grep gzip head ls od sed sleep sort stat tail tar tr; do
    command -v "$program" >/dev/null || printf '%s ' "$program"
  done
  command -v sha256sum >/dev/null || command -v shasum >/dev/null || command -v openssl >/dev/null || printf 'sha256sum '
  command -v setsid >/dev/null || command -v nohup >/dev/null || printf 'nohup '
}
package_manager() {
  for program in apt-get dnf yum apk pacman zypper brew; do
    command -v "$program" >/dev/null && printf '%s' "$program" && return
  done
}
reason_in() { # TEXT of a program that could not write
  case $1 in
    *'o space'*) echo no-space ;;
    *uota*) echo quota ;;
    *ead-only*) echo read-only ;;
    *denied* | *'not permitted'*) echo forbidden ;;
    *) echo other ;;
  esac
}
try_writing() { # NAME PLACE: a directory with a file of a megabyte; `df` knows nothing of quotas
  trial=$(existing_parent "$2")/.remote-dispatch-trial.$$
  if said=$(LC_ALL=C && export LC_ALL && { mkdir "$trial" && dd if=/dev/zero of="$trial/file" bs=65536 count=16; } 2>&1); then
    say "writes_$1" yes
  else
    say "writes_$1" "$(reason_in "$said")"
  fi
  rm -rf "$trial"
}
free() { # PLACE OPTIONS
  df "$2" "$(existing_parent "$1")" | awk 'NR == 2 { print $4 }'
}
places() { # where our runs, our cache and OpenCode's conversations are kept
  for place in "state $state" "cache ${XDG_CACHE_HOME:-$HOME/.cache}" "data ${XDG_DATA_HOME:-$HOME/.local/share}"; do
    try_writing "${place%% *}" "${place#* }"
    say "free_${place%% *}" "$(free "${place#* }" -Pk)"
    say "files_${place%% *}" "$(free "${place#* }" -Pi)"
  done
}
work_directory() { # what becomes of the asked one when a run enters it
  place=$1
  while [ ! -e "$place" ] && [ "$place" != / ]; do place=$(dirname -- "$place"); done
  if [ ! -d "$place" ]; then
    echo file
  elif [ ! -w "$place" ] || [ ! -x "$place" ]; then
    echo forbidden
  elif [ "$place" = "$1" ]; then
    echo there
  else
    echo absent
  fi
}
login_environment() { # as login_path of probe.sh asks for it
  # shellcheck disable=SC2016 # the login shell expands it
  case ${SHELL:-/bin/sh} in
    *csh) set -- -c 'env; echo :end' ;;
    *bash | *zsh) set -- -l -c 'env; exec "$SHELL" -i -c "env; echo :end"' ;;
    *) set -- -l -c 'env; echo :end' ;;
  esac
  limited 10 "${SHELL:-/bin/sh}" "$@" </dev/null | sed -n -e '/^:end$/q' -e p
}
key_names() { # of the environment on stdin, those that providers read; never a value
  sed -n 's/^\([A-Z][A-Z0-9_]*_API_KEY\)=.*/\1/p' | sort -u | head -n 20 | tr '\n' ' '
}
ends_at_logout() { # whether systemd-logind ends what a session of this user left; it asks nobody who lingers
  [ -n "${XDG_SESSION_ID:-}" ] || return
  limited 10 busctl get-property org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager \
    KillUserProcesses KillOnlyUsers KillExcludeUsers </dev/null | awk -v user="\"$(id -un)\"" '
    function names(i) { for (i = 3; i <= NF; i++) if ($i == user) return 1; return 0 }
    NR == 1 { kills = $2 == "true" }
    NR == 2 && $2 > 0 { kills = names() }
    NR == 3 && ($2 > 0 ? names() : user == "\"root\"") { kills = 0 } # root is spared unless others are named
    END { if (NR) print kills ? "yes" : "no" }'
}
print_runs() { # ID:STATE of each run directory: alive, ended, or idle (nobody works on it, and it has not ended)
  for directory in "$1"/*; do
    [ ! -L "$directory" ] || continue
    enter "$directory" || continue
    word=idle
    [ ! -e outcome.json ] || word=ended
    read_lock
    case $held in yes | unowned) word=alive ;; esac
    [ ! -e started ] || [ -e outcome.json ] || ! is_opencode_alive || word=alive
    printf '%s:%s ' "${directory##*/}" "$word"
  done
}
print_databases() {
  for file in "${OPENCODE_DB:-}" "${XDG_DATA_HOME:-$HOME/.local/share}"/opencode/*.db; do
    [ ! -f "$file" ] || database_identity "$file" | tr '\n' ' '
  done
}
describe_binary() { # for one that does not start: what it was built for
  [ "$(od -An -tx1 -N4 "$1" | tr -d ' \n')" = 7f454c46 ] || return
  say built_for "$(od -An -tx1 -j18 -N2 "$1" | tr -d ' \n')"
  loader=$(head -c 4096 "$1" | tr -c '[:print:]' '\n' | sed -n '/^\/.*\/ld-/{p;q;}')
  [ -z "$loader" ] || say loader "$loader"
  [ -z "$loader" ] || [ -e "$loader" ] || say no_loader yes
}
make_scratch() { # OpenCode's temporary directory must be nobody else's: the usual one belongs to whom came first (1.18)
  scratch=${XDG_CACHE_HOME:-$HOME/.cache}/remote-dispatch/probe.$$
  mkdir -p "$scratch" && TMPDIR=$scratch && export TMPDIR
}
start() { # PATH SECONDS: the version, or why there is none
  said=$(limited "$2" "$1" --version </dev/null 2>&1)
  say start_status "$?"
  say start_said "$(printf '%s\n' "$said" | sed '/^[[:space:]]*$/d' | tail -n 1 | head -c 400)"
}
is_program() { [ -f "$1" ] && [ -x "$1" ]; }
opencode_there() { # ASKED SECONDS
  opencode=$(find_opencode "$1" | head -n 1)
  if [ -n "$1" ] && ! is_program "$opencode"; then
    say asked_missing yes
    opencode=$(find_opencode '' | head -n 1)
  fi
  is_program "$opencode" || return
  say opencode "$opencode"
  command -v opencode >/dev/null && say is_on_path yes
  make_scratch && start "$opencode" "$2"
  describe_binary "$opencode"
}
other_opencode() { # the one that the user's own shell there starts, when it is another
  other=$(PATH=$1 sh -c 'command -v opencode')
  case $other in /*) ;; *) return ;; esac
  [ "$(database_identity "$other")" != "$(database_identity "$opencode")" ] || return # by device and inode
  say other "$other"
  say other_version "$(limited "$2" "$other" --version </dev/null | tail -n 1)"
}
look() {
  say now "$(now)"
  state=${XDG_STATE_HOME:-$HOME/.local/state}/remote-dispatch/runs
  trap 'rm -rf "${trial:-}" "${scratch:-}"' EXIT
  trap 'exit 1' HUP INT PIPE TERM
  say home "$HOME"
  say machine "$(uname -m)"
  say missing "$(missing_programs)"
  say packages "$(package_manager)"
  say directory_state "$(work_directory "$(expand "$2")")"
  say ends_at_logout "$(ends_at_logout)"
  say runs "$(print_runs "$state")"
  [ ! -d "${state%/runs}/server" ] || say served yes
  cd /
  asked=$1 seconds=$3
  shift 3
  for pair in "$@"; do export "${pair?}"; done
  places
  login=$(login_environment)
  login_search=$(printf '%s\n' "$login" | sed -n 's/^PATH=//p' | tail -n 1)
  # A run has the PATH of a login shell.
  say git "$(PATH=$login_search:$PATH sh -c 'git --version' | sed 's/^git version //')"
  say login_keys "$(printf '%s\n' "$login" | key_names)"
  say own_keys "$(env | key_names)"
  say databases "$(print_databases)"
  opencode_there "$asked" "$seconds"
  ! is_program "$opencode" || other_opencode "$login_search" "$seconds"
  say looked yes
}
look "$@"

# One remote command that learns what a host has. Prints lines `key value` and blobs `blob NAME BYTES` + bytes + newline.
# Values: 1 OpenCode's path or "" · 2 working directory as asked, or "" · 3 session id to look for, or ""
#         4 "fresh" to ignore the cached catalogue · 5 project whose objects are looked for, or ""
#         6... NAME=VALUE of the environment that OpenCode gets there
# shellcheck shell=sh disable=SC2154
# In front of it stand identity.sh, the runner's common.sh, reader.sh and select.sh, which assign some variables.
umask 077
exec 2>/dev/null
say() { printf '%s %s\n' "$1" "$2"; }
blob_of() { # NAME COMMAND...: what the command prints, which is little
  blob_name=$1
  shift
  blob_text=$("$@")
  printf 'blob %s %s\n%s\n' "$blob_name" "$(printf %s "$blob_text" | wc -c | tr -d ' ')" "$blob_text"
}
blob() { [ -f "$2" ] && printf 'blob %s %s\n' "$1" "$(wc -c <"$2" | tr -d ' ')" && cat "$2" && printf '\n'; }
limited() { # SECONDS COMMAND...: its exit status; what takes longer is ended
  seconds=$1
  shift
  if command -v timeout >/dev/null; then
    timeout -k 5 "$seconds" "$@"
    return
  fi
  "$@" &
  limited_pid=$!
  guard "$limited_pid" "$seconds" >/dev/null &
  guard_pid=$!
  wait "$limited_pid"
  set -- "$?"
  kill "$guard_pid"
  return "$1"
}
guard() { # PID SECONDS: ends it, kindly at first; second by second, so that no long sleep outlives a short command
  left=$2
  while kill -0 "$1"; do
    [ "$left" -gt 0 ] || kill "$1"
    [ "$left" -gt -5 ] || kill -s KILL "$1"
    sleep 1
    left=$((left - 1))
  done
}
expand() { # a leading ~ or ~/ means the home directory; ~name is left alone
  # shellcheck disable=SC2088 # the tilde itself is meant
  case $1 in
    '' | '~') printf '%s' "$HOME" ;;
    '~/'*) printf '%s/%s' "$HOME" "${1#??}" ;;
    /*) printf '%s' "$1" ;;
    *) printf '%s/%s' "$HOME" "$1" ;;
  esac
}
existing_parent() { # the directory itself, or the nearest one above it that exists
  place=$1
  while [ ! -d "$place" ] && [ "$place" != / ]; do place=$(dirname -- "$place"); done
  printf '%s' "$place"
}
find_opencode() {
  if [ -n "$1" ]; then
    expand "$1"
    return
  fi
  command -v opencode 2>/dev/null && return
  for place in "$HOME/.opencode/bin" "$HOME/.local/bin" "$HOME/bin" /usr/local/bin /opt/homebrew/bin \
    /home/linuxbrew/.linuxbrew/bin "$HOME/.bun/bin" "$HOME/.npm-global/bin" "$HOME"/.nvm/versions/node/*/bin \
    "$HOME/.volta/bin" "$HOME/.local/share/pnpm" "$HOME/.local/share/mise/shims" "$HOME/.asdf/shims" \
    "$HOME/.nix-profile/bin" /run/current-system/sw/bin; do
    [ -x "$place/opencode" ] && printf '%s' "$place/opencode" && return
  done
  # Last, what a login shell would find.
  PATH=$(login_path):$PATH sh -c 'command -v opencode'
}
login_path() { # `env` says it the same way in every shell; start-up files may print, ask, hang or leave something running
  # shellcheck disable=SC2016 # the login shell expands it
  case ${SHELL:-/bin/sh} in
    *csh) set -- -c 'env; echo :end' ;; # takes -l only when it is alone
    # Installers add to .bashrc and .zshrc, which are read, or read to their end, by an interactive shell only.
    *bash | *zsh) set -- -l -c 'env; exec "$SHELL" -i -c "env; echo :end"' ;;
    *) set -- -l -c 'env; echo :end' ;;
  esac
  limited 10 "${SHELL:-/bin/sh}" "$@" </dev/null | sed -n -e '/^:end$/q' -e 's/^PATH=//p' | tail -n 1
}
now() { # milliseconds where date knows them
  moment=$(date +%s%3N 2>/dev/null)
  case $moment in *[!0-9]* | '') moment=$(date +%s)000 ;; esac
  printf '%s' "$moment"
}
identity() { # what a cached catalogue depends on: binary, configuration, credentials, names of the environment
  {
    ls -lLn "$opencode"
    printf '%s\n' "$work" "$PATH"
    env | sed -n -e 's/^\(OPENCODE[A-Z_]*=.*\)/\1/p' -e 's/^\([A-Z_]*_\(KEY\|TOKEN\)\)=.*/\1/p' | sort
    config=${XDG_CONFIG_HOME:-$HOME/.config}/opencode
    place=$work
    while :; do
      for file in "$place"/opencode.json "$place"/opencode.jsonc "$place"/.opencode/opencode.json* "$place"/.opencode/agent*/*; do
        [ -f "$file" ] && cat "$file"
      done
      [ "$place" = / ] && break
      place=$(dirname -- "$place")
    done
    for file in "$config"/*.json* "$config"/agent*/* "${OPENCODE_CONFIG:-}" "${OPENCODE_CONFIG_DIR:-/nowhere}"/*.json* \
      "${XDG_DATA_HOME:-$HOME/.local/share}/opencode/auth.json"; do
      [ -f "$file" ] && cat "$file"
    done
  } 2>/dev/null | cksum | tr ' ' -
}
is_recent() { # a catalogue older than a day is asked for anew: models come and go
  [ -f "$1" ] && read -r word moment <"$1" && [ "$word" = listed ] && [ $(($(date +%s) - moment)) -lt 86400 ] &&
    [ "$(tail -n 1 "$1")" = 'whole yes' ] # a full disk cuts what is written
}
list() { # NAME COMMAND...: keeps the output and the exit status
  name=$1
  shift
  # Into a file: OpenCode cuts what it prints into a pipe.
  limited 150 "$@" >"$new/$name" 2>/dev/null </dev/null
  printf '%s\n' "$?" >"$new/$name.status"
}
catalogue() { # two at a time: each takes seconds and several hundred megabytes
  new=$scratch/catalogue
  mkdir "$new" && cd "$work" && PWD=$work && export PWD || return
  there=$(login_path)
  # With plugin files OpenCode waits for the package registry at every start (1.18): for a listing one try is enough.
  npm_config_fetch_retries=0
  export npm_config_fetch_retries
  # What sshd was told to give is kept, behind what the user's own shell finds.
  [ -z "$there" ] || printf '%s:%s\n' "$there" "$PATH" >"$new/path"
  list version "$opencode" --version &
  list models "$opencode" models &
  wait
  list agents "$opencode" agent list &
  list settings "$opencode" debug config &
  wait
  # The rest of the configuration may hold secrets: it is neither kept nor sent.
  grep -E '^  "(model|default_agent)": ' "$new/settings" >"$new/defaults"
  rm -f "$new/settings"
  { say listed "$(date +%s)" && show_catalogue "$new"; say whole yes; } >"$new/shown"
  cat "$new/shown"
  # Renamed into place, because another probe may be reading the old one.
  if [ "$(cat "$new"/*.status | sort -u)" = 0 ]; then mv "$new/shown" "$cache"; fi
  # Those of binaries and configurations that are no more.
  find "${cache%/*}" -name 'catalogue-*' -mtime +30 -exec rm -f {} +
}
show_catalogue() { for name in version path models models.status agents agents.status defaults; do blob "$name" "$1/$name"; done; }
held() { # every message and part of the session and its children, when OpenCode has a database here at all
  ls "${XDG_DATA_HOME:-$HOME/.local/share}"/opencode/*.db >/dev/null 2>&1 || [ -n "${OPENCODE_DB:-}" ] || return
  # Apart from the user's state: what ends without waiting for a plugin's packages leaves a lock of a minute (1.18).
  XDG_STATE_HOME=$scratch/state npm_config_offline=true
  export XDG_STATE_HOME npm_config_offline
  # The id was checked against its grammar before it came here.
  select_rows 60 "with recursive family(id) as (select '$1' union select s.id
    from session s join family f on s.parent_id = f.id) select 'session' as kind, id from session where id in family union all
    select 'message', id from message where session_id in family union all
    select 'part', id from part where session_id in family union all
    select 'database', file from pragma_database_list where name = 'main' union all
    select 'open', id from (select id, data from message where session_id = '$1' order by time_created desc, id desc limit 1)
      where json_extract(data, '\$.role') = 'assistant' and json_extract(data, '\$.time.completed') is null
      and json_extract(data, '\$.error') is null union all
    select 'changed', max(latest) from (select max(time_updated) as latest from message where session_id in family
      union all select max(time_updated) from part where session_id in family)" "$2"
  say held_status "$?"
  database=$(awk -F '\t' '$1 == "database" { print $2 }' "$2")
  [ -z "$database" ] || say database "$(database_identity "$database")"
}
under_way() ( # SESSION RUNS: the dispatch, of whomever, that has the session under way here
  # A function of its own process: zsh would change the directory of the whole script.
  grep -slxF -- "$1" "$2"/*/param/session | while read -r file; do
    enter "${file%/param/session}" && [ ! -e outcome.json ] || continue
    read_lock
    if [ "$held" = yes ] || { [ -e started ] && is_opencode_alive; }; then
      say running "${run##*/}"
      break
    fi
  done
)
known_of() { # REPOSITORY: the ids of what dispatches brought here, and of what each was made on, newest first
  [ -d "$1" ] && git --git-dir="$1" -c core.fsmonitor=false for-each-ref --sort=-refname --count=200 \
    --format='%(objectname) %(parent)' 'refs/dispatch/*' | tr ' ' '\n' | grep . | head -n 400 | awk '!seen[$0]++' | head -n 200
}
main() {
  say now "$(now)"
  directory=$(expand "$2")
  state=${XDG_STATE_HOME:-$HOME/.local/state}/remote-dispatch
  say system "$(uname -s)"
  say machine "$(uname -m)"
  say home "$HOME"
  say shell "${SHELL:-}"
  say state_directory "$state/runs"
  say directory "$directory"
  work=$(existing_parent "$directory")
  [ "$work" = "$directory" ] && say is_directory_there yes
  [ -e "$directory" ] && [ ! -d "$directory" ] && say is_directory_a_file yes
  say git_version "$(git --version 2>/dev/null | sed 's/^git version //')"
  say free_kib "$(df -Pk "$(existing_parent "$state")" 2>/dev/null | awk 'NR == 2 { print $4 }')"
  [ -z "${5:-}" ] || blob_of code known_of "$state/projects/$5.git"
  asked=$1 session=$3 fresh=$4
  if [ "$#" -gt 5 ]; then shift 5; else set --; fi
  for pair in "$@"; do export "${pair?}"; done
  opencode=$(find_opencode "$asked" | head -n 1)
  if [ -z "$opencode" ] || [ ! -x "$opencode" ]; then
    say opencode_missing yes
    return
  fi
  say opencode "$opencode"
  scratch=${XDG_CACHE_HOME:-$HOME/.cache}/remote-dispatch/probe.$$
  mkdir -p "$scratch" || { say no_cache yes && return; }
  # Whoever asked may have gone: the first word to nobody ends this, and leaves nothing.
  trap 'rm -rf "$scratch"' EXIT
  trap 'exit 1' HUP INT PIPE TERM
  TMPDIR=$scratch
  export TMPDIR
  # It takes longest, and goes on while the rest is looked for.
  if [ -n "$session" ]; then held "$session" "$scratch/held" >"$scratch/held.said" & fi
  [ -z "$session" ] || under_way "$session" "$state/runs"
  cache=${XDG_CACHE_HOME:-$HOME/.cache}/remote-dispatch/catalogue-$(identity)
  if [ "$fresh" != fresh ] && is_recent "$cache"; then
    say cached yes
    cat "$cache"
  else
    catalogue
  fi
  wait
  [ -f "$scratch/held.said" ] && cat "$scratch/held.said"
  blob held "$scratch/held"
  say probed yes
}
main "$@"

# shellcheck shell=sh disable=SC2154,SC2034 # common.sh assigns
# What the scripts about our OpenCode server on this machine share. In front of it stands the runner's common.sh.
# The server's directory has `server` (it answered: boot id, process id and start time, then lines `key value`),
# `process` (it was started: the same first line), `watch` and `watch.sh` (the watchdog), `idle_stop` (seconds), `log`,
# `ask.js`, `tmp`, and, while somebody starts or stops it, `lock`.

# A home may be shared by several machines, each with a server of its own.
server_place() {
  printf '%s/remote-dispatch/server/%s' "${XDG_STATE_HOME:-$HOME/.local/state}" "$(uname -n | tr -cd 'A-Za-z0-9._-')"
}

# say_state WORD: the line that every answer has.
say_state() {
  printf '\nstate %s\n' "$1"
}

value_of() {
  sed -n "2,\$s/^$1 //p" server 2>/dev/null
}

command_of() {
  if [ -r "/proc/$1/cmdline" ]; then tr '\0' ' ' <"/proc/$1/cmdline"; else ps -o command= -p "$1"; fi 2>/dev/null
}

# Whether the server lives that the file tells of, and is one: sets owner_pid.
is_server() {
  [ -f server ] || return 1
  judge_process server
  [ "$held" = yes ] || return 1
  case "$(command_of "$owner_pid") " in *' serve '*"--port $(value_of port) "*) ;; *) return 1 ;; esac
}

# sockets PORT STATE: prints the local ends of that port in a state (0A listens, 01 is connected); fails where unknown.
sockets() {
  [ -r /proc/net/tcp ] || return 1
  cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk -v port="$(printf ':%04X' "$1")" -v state="$2" '
    $4 == state && substr($2, length($2) - 4) == port { print $2 }'
}

# High, and below the ports that systems give away by themselves.
free_port() {
  while :; do
    candidate=$((20000 + $(od -An -N2 -tu2 /dev/urandom) % 12000))
    [ -n "$(sockets "$candidate" 0A)" ] || break
  done
  printf '%s' "$candidate"
}

is_loopback_only() {
  ends=$(sockets "$1" 0A) && [ -n "$ends" ] || { echo unknown; return; }
  if printf '%s\n' "$ends" | grep -qvE '^(0100007F|7F000001|00000000000000000000000001000000):'; then echo no; else echo yes; fi
}

# ask WORD PORT [SECONDS]: has OpenCode's own runtime send requests to the server; `opencode` and `password` are set.
ask() (
  cd "$run" || exit 1
  unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY
  BUN_BE_BUN=1 OPENCODE_SERVER_PASSWORD=$password
  export BUN_BE_BUN OPENCODE_SERVER_PASSWORD
  limited 20 "$opencode" ask.js "$@" </dev/null 2>/dev/null
)

# What belongs to the server: below it, or marked by the environment although its parent ended; not this script.
family_of() {
  {
    [ -z "$1" ] || tree_of "$1"
    processes_with REMOTE_DISPATCH_SERVED
  } | sort -u | grep -vx "$$" | tr '\n' ' '
}

end_family() {
  stop_all "$(family_of "$1")"
}

clean_up() {
  rm -rf server process watch watch.sh idle_stop asked ask.js tmp log log.end ./*.new
}

trim_log() {
  [ "$(size_of log)" -gt 1000000 ] || return 0
  # In place: the server appends to this very file.
  tail -c 100000 log >log.end && cat log.end >log
  rm -f log.end
}

# take_lock SECONDS. A link appears together with its text, so that no lock is ever without an owner.
take_lock() {
  mine="$(boot_id) $$ $(start_time "$$")"
  lock_end=$(($(date +%s) + $1))
  until ln -s "$mine" lock 2>/dev/null; do
    theirs=$(readlink lock) && ! is_owner_alive "$theirs" && break_lock "$theirs" && continue
    [ "$(date +%s)" -lt "$lock_end" ] || return 1
    pause
  done
}

is_owner_alive() {
  read -r lock_boot lock_pid lock_start <<END
$1
END
  [ "$lock_boot" = "$(boot_id)" ] && [ -n "$lock_start" ] && [ "$lock_start" = "$(start_time "$lock_pid")" ]
}

# One breaks it at a time, so that nobody's new lock is broken instead of the dead one.
break_lock() {
  if ! mkdir breaking 2>/dev/null; then
    [ -z "$(find breaking -prune -mmin +1 2>/dev/null)" ] || rmdir breaking 2>/dev/null
    return 1
  fi
  [ "$(readlink lock)" != "$1" ] || rm -f lock
  rmdir breaking
}

release_lock() {
  [ "$(readlink lock 2>/dev/null)" != "$mine" ] || rm -f lock
}

print_server() {
  trim_log
  say_state running
  printf 'pid %s\n' "$owner_pid"
  sed 1d server
  printf 'loopback %s\n' "$(is_loopback_only "$(value_of port)")"
  [ ! -f idle_stop ] || printf 'idle_stop %s\n' "$(cat idle_stop)"
  printf 'whole yes\n'
}

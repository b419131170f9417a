# shellcheck shell=sh disable=SC2154 # common.sh assigns
# stop: ends our server here with all that belongs to it: TERM, and KILL after five seconds. Prints `state none` (there
# was none), `state stopped`, `state busy` (somebody else starts or stops it) or `state left` and `left PIDS`.
# Values: 1 the process id of the server that is meant, or ""
exec 2>/dev/null

stop_server() {
  enter "$(server_place)" || { say_state none; return; }
  take_lock 60 || { say_state busy; return; }
  trap release_lock EXIT
  there=none pid=''
  if is_server; then pid=$owner_pid there=stopped; fi
  # Meanwhile another one was started: that is not the one that is meant.
  if [ -n "$1" ] && [ -n "$pid" ] && [ "$1" != "$pid" ]; then say_state none; return; fi
  family=$(family_of "$pid")
  [ -z "$family" ] || there=stopped
  stop_all "$family"
  left=$(living "$(family_of '')")
  [ -z "$left" ] || { say_state left; printf 'left %s\n' "$left"; return; }
  clean_up
  say_state "$there"
}
stop_server "$1"

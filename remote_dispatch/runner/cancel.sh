# shellcheck shell=sh disable=SC2154 # common.sh assigns
# cancel RUN_DIRECTORY SECONDS: asks the runner to end, waits so long for its outcome, then ends everything
# that belongs to it, and prints the status. A run whose runner is dead is ended too.

await_outcome() {
  deadline=$(($(date +%s) + $1))
  while [ ! -e outcome.json ] && [ "$(date +%s)" -lt "$deadline" ]; do
    read_lock
    [ "$held" = yes ] || return 0
    pause
  done
}

cancel() {
  read_lock
  if [ "$held" = yes ]; then
    kill -s TERM "$owner_pid" 2>/dev/null || :
    await_outcome "$1"
    read_lock
  fi
  [ ! -e outcome.json ] || return 0
  if [ "$held" = yes ]; then signal_all KILL "$(tree_of "$owner_pid")"; fi
  stop_all "$(marked_processes)"
}

if cd -P -- "$1" 2>/dev/null; then cancel "$2"; fi
print_status "$1"

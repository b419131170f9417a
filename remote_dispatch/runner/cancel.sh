# shellcheck shell=sh disable=SC2154 # common.sh assigns
# cancel RUN_DIRECTORY SECONDS: asks the runner to end, waits so long for its outcome, then ends everything
# that belongs to it, and prints the status. A run whose runner is dead is ended too.

await_outcome() {
  deadline=$(($(date +%s) + $1))
  while ! has_ended && [ "$(date +%s)" -lt "$deadline" ]; do
    read_lock
    [ "$held" = yes ] || return 0
    pause
  done
}

# `stopped` keeps a process that is about to become OpenCode from it, and a runner that comes later from starting one.
cancel() {
  ! has_ended || return 0
  printf '' >stopped
  read_lock
  if [ "$held" = yes ]; then
    kill -s TERM "$owner_pid" 2>/dev/null || :
    await_outcome "$1"
    ! has_ended || return 0
    read_lock
  fi
  if [ "$held" = yes ]; then signal_all KILL "$(tree_of "$owner_pid")"; fi
  stop_all "$(remains)"
}

# What lives of a run whose runner is dead.
remains() {
  if [ -f opencode.pid ]; then
    judge_process opencode.pid
    [ "$held" != yes ] || tree_of "$owner_pid"
  fi
  marked_processes
  processes_with REMOTE_DISPATCH_CALL
}

if enter "$1"; then cancel "$2"; fi
print_status "$1"

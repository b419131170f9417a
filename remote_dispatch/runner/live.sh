# shellcheck shell=sh disable=SC2034,SC2154 # runner.sh assigns and reads
# The run of a session that an OpenCode server works on. Nothing is started here: the runner holds the lock and waits
# until `live-end` says that the turn is over, then it exports as ever. The server belongs to nobody's run.

is_live() {
  [ -e "$run/param/live" ]
}

await_live() {
  [ -z "$signal" ] || return 1
  reach run.running
  until [ -n "$signal" ] || [ -e "$run/live-end" ] || [ -e "$run/stopped" ]; do
    sleep 1 &
    child=$!
    wait_for_child
  done
  [ ! -e "$run/stopped" ] || signal=${signal:-TERM}
  is_stoppable=no
  [ -n "$signal" ] || read_live_end
}

# Sets `run_status` to what the other side wrote: 0 for a turn that ended well.
read_live_end() {
  read -r run_status <"$run/live-end" || :
  case $run_status in '' | *[!0-9]*) run_status=1 ;; esac
}

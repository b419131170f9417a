# shellcheck shell=sh disable=SC2154 # common.sh assigns
# follow RUN_DIRECTORY OFFSET [HEARTBEAT_S]: prints the events from that byte on as they come. On stderr: `alive` at
# least so often, so that a closed channel is noticed, and at the end `ended outcome|lost|gone SIZE`.

offset=$2
heartbeat_s=${3:-10}

say() {
  echo "$1" >&2 || exit 1
  spoke=$(date +%s)
}

drain() {
  size=$(size_of events.jsonl)
  [ "$size" -gt "$offset" ] || return 0
  tail -c "+$((offset + 1))" events.jsonl | head -c "$((size - offset))" || exit 1
  offset=$size
}

# Sets `end` when nothing more will come. A runner that is not there yet is waited for.
look_for_end() {
  end=''
  ! has_ended || { end=outcome; return; }
  [ -e "$directory/manifest" ] || [ -e "$directory/runner.sh" ] || [ -e "$directory/lock" ] || { end=gone; return; }
  looks=$((looks + 1))
  [ "$((looks % 10))" -eq 0 ] || return 0
  read_lock
  case $held in
    yes) absent=0 ;;
    *) absent=$((absent + 1)) ;;
  esac
  [ "$held" != dead ] && [ "$absent" -lt 5 ] || end=lost
  ! has_ended || end=outcome
}

directory=$1 looks=0 absent=0
enter "$directory" || { say "ended gone 0"; exit 0; }
say alive
while :; do
  look_for_end
  drain
  [ -z "$end" ] || break
  [ "$(($(date +%s) - spoke))" -lt "$heartbeat_s" ] || say alive
  pause
done
say "ended $end $(size_of events.jsonl)"

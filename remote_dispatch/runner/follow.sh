# shellcheck shell=sh disable=SC2154 # common.sh and wake.sh assign
# follow RUN_DIRECTORY OFFSET [HEARTBEAT_S [LIMIT_BYTES]]: prints the events from that byte on as they come. On stderr:
# `alive` at least so often, so that a closed channel is noticed, and at the end `ended outcome|lost|gone SIZE`. With a
# limit, all that `glance` prints comes behind that, and the channel ends.

offset=$2
heartbeat_s=${3:-10}
limit_bytes=${4:-}
LIVELY_LOOKS=10 # of 0.3 s each, after the last news: longer than the second in which some file systems count
ABSENT_LOOKS=17 # ten seconds
THOROUGH_LOOKS=15

say() {
  echo "$1" >&2 || exit 1
  silent_ds=0
}

drain() {
  [ -f events.jsonl ] || return 0
  size=$(($(wc -c <events.jsonl)))
  [ "$size" -gt "$offset" ] || return 0
  { tail -c "+$((offset + 1))" events.jsonl | head -c "$((size - offset))"; } 2>/dev/null || exit 1
  offset=$size quiet_looks=0
  mark_waiter
}

# While nothing happens only the time of the file is looked at: that costs no process. A clock may be set back, so its
# size counts at each sign of life, too.
drain_news() {
  if [ "$quiet_looks" -le "$LIVELY_LOOKS" ] || [ ! -f "$waiter" ] || [ events.jsonl -nt "$waiter" ]; then drain; fi
}

# Sets `end` when nothing more will come. A runner that is not there yet is waited for.
look_for_end() {
  end=''
  ! has_ended || { end=outcome; return; }
  [ -e "$directory/manifest" ] || [ -e "$directory/runner.sh" ] || [ -e "$directory/lock" ] || { end=gone; return; }
  looks=$((looks + 1))
  ! is_owner_there || return 0
  read_lock
  case $held in
    yes) absent=0 ;;
    *) absent=$((absent + 1)) ;;
  esac
  [ "$held" != dead ] && [ "$absent" -lt "$ABSENT_LOOKS" ] || end=lost
  ! has_ended || end=outcome
}

# Whether the runner seen last still lives, without starting a process. Where there is no /proc its number must do.
is_owner_there() {
  [ "$held" = yes ] || return 1
  if [ -r /proc/self/stat ]; then
    { read -r stat <"/proc/$owner_pid/stat"; } 2>/dev/null || return 1
    stat=${stat##*) }
    case $stat in [ZX]*) return 1 ;; esac
    # shellcheck disable=SC2086 # its words are wanted
    set -- $stat
    [ "${20:-}" = "$owner_start" ]
  else
    kill -0 "$owner_pid" 2>/dev/null && [ "$((looks % THOROUGH_LOOKS))" -ne 0 ]
  fi
}

# Often while news come, every second while none do.
wait_a_little() {
  quiet_looks=$((quiet_looks + 1))
  if [ "$quiet_looks" -le "$LIVELY_LOOKS" ]; then
    silent_ds=$((silent_ds + 3))
    doze 0.3
  else
    silent_ds=$((silent_ds + 10))
    doze 1
  fi
}

directory=$1 looks=0 absent=0 quiet_looks=0 held=no owner_pid='' end=gone
if enter "$directory"; then
  say alive
  become_waiter
  held=no
  while look_for_end && [ -z "$end" ]; do
    drain_news
    if [ "$silent_ds" -ge "$((heartbeat_s * 10))" ]; then say alive; drain; fi
    wait_a_little
  done
  drain
  rm -f "$waiter"
fi
say "ended $end $(size_of events.jsonl)"
[ -z "$limit_bytes" ] || print_result "$directory" "$limit_bytes" >&2 2>/dev/null

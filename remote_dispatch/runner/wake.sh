# shellcheck shell=sh disable=SC2154 # common.sh assigns
# Waiting for a runner without asking all the time: whoever waits leaves the name of its process in the run directory,
# and the runner wakes it when there is news. That is a hint only: who waits looks by itself every now and then.

# Names this process in `waiter.PID` while it lives, with the words of a lock's owner. What killed ones left goes.
become_waiter() {
  is_woken=no
  trap 'is_woken=yes' USR1
  drop_dead_waiters
  waiter=waiter.$$
  trap 'rm -f "$waiter"' EXIT
  myself="$(boot_id) $$ $(start_time $$)"
  mark_waiter
  knows_fractions=yes
  sleep 0.01 2>/dev/null || knows_fractions=no
}

drop_dead_waiters() {
  for waiter in waiter.*; do
    [ -f "$waiter" ] || continue
    judge_process "$waiter"
    [ "$held" = yes ] || rm -f "$waiter"
  done
}

# Gives the name a new time: what is newer has not been seen.
mark_waiter() {
  { echo "$myself" >"$waiter"; } 2>/dev/null || :
}

# doze SECONDS: ends early when there was news since the last time. Less than a second is one where `sleep` knows no less.
doze() {
  if [ "$is_woken" = no ]; then
    case $knows_fractions$1 in no0.*) set -- 1 ;; esac
    sleep "$1" >/dev/null 2>&1 &
    wait "$!" || :
    [ "$is_woken" = no ] || kill "$!" 2>/dev/null || :
  fi
  is_woken=no
}

# Tells those who wait that there is news.
wake_waiters() {
  for waiter in waiter.*; do
    [ -f "$waiter" ] || continue
    judge_process "$waiter"
    [ "$held" != yes ] || kill -s USR1 "$owner_pid" 2>/dev/null || :
  done
  return 0
}

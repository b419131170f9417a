# shellcheck shell=sh disable=SC2154 # common.sh assigns
# launch RUN_DIRECTORY DEADLINE_S [recover]: starts the runner, detached, and prints `launched STATE` once that is known.
# States: started, importing, held (another launch's runner is importing), ended, lost, absent (no such run directory),
# damaged (a file differs from the manifest), recovering (a recovery holds the lock), failed (no runner came up).
# With `recover` the runner only exports what OpenCode has of a run that was started and left no back-file. It starts
# nothing, and says so, where a back-file is there or nothing was ever started (ended), where a runner lives (started,
# importing, recovering), and where nothing was started and nobody is at it (absent). A recovery that is over already is
# `ended`, whether it could export or not.

report() {
  echo "launched $1"
  exit 0
}

is_whole() {
  if command -v sha256sum >/dev/null 2>&1; then
    sha256sum -c manifest
  elif command -v shasum >/dev/null 2>&1; then
    shasum -a 256 -c manifest
  else
    while read -r sum name; do [ "$(openssl dgst -sha256 -r "$name" | cut -c 1-64)" = "$sum" ] || return 1; done <manifest
  fi >/dev/null 2>&1
}

# Sets `runner_pid`. All three descriptors are redirected, or the connection would stay open as long as the runner.
start_runner() {
  if command -v setsid >/dev/null 2>&1; then detach="setsid"; else detach="nohup"; fi
  runner_pid=$("$detach" sh runner.sh "$@" </dev/null >>runner.log 2>&1 & echo $!)
}

report_known_state() {
  [ ! -e outcome.json ] || report ended
  [ ! -e started ] || { read_lock; [ "$held" = yes ] || report_unless_ended lost; report_living started; }
}

report_living() {
  [ ! -e "$current/recovery" ] || report recovering
  report "$1"
}

# The outcome may have come between two looks.
report_unless_ended() {
  [ ! -e outcome.json ] || report ended
  report "$1"
}

# Ends with `failed` when, for a second, the runner started here is gone and nobody holds or takes the lock.
notice_death() {
  case $held in
    no | dead | unowned) [ -n "$runner_pid" ] && [ -n "$(start_time "$runner_pid")" ] || deaths=$((deaths + 1)) ;;
    *) deaths=0 ;;
  esac
  [ "$deaths" -lt 5 ] || report_unless_ended failed
}

await_runner() {
  deadline=$(($(date +%s) + $1))
  while :; do
    report_known_state
    read_lock
    notice_death
    if [ "$(date +%s)" -ge "$deadline" ]; then
      [ "$held" != yes ] || report_unless_ended "$2"
      [ "$(date +%s)" -lt "$((deadline + 15))" ] || report_unless_ended failed
    fi
    pause
  done
}

launch() {
  report_known_state
  read_lock
  [ "$held" != yes ] || await_runner "$1" held
  is_whole || report damaged
  start_runner
  await_runner "$1" importing
}

# A runner that has written its outcome is about to end: only then is there something to recover.
await_dead_lock() {
  while read_lock && [ "$held" = yes ]; do
    [ -e outcome.json ] && [ ! -e "$current/recovery" ] && [ "$(date +%s)" -lt "$deadline" ] || report_living started
    pause
  done
}

await_recovery() {
  while :; do
    read_lock
    [ "$held" != yes ] || report_living started
    if [ "$current" != "$previous" ] && [ "$held" = dead ]; then report_unless_ended failed; fi
    notice_death
    [ "$(date +%s)" -lt "$((deadline + 15))" ] || report failed
    pause
  done
}

recover() {
  deadline=$(($(date +%s) + $1))
  if [ ! -e started ]; then
    read_lock
    [ "$held" != yes ] || report_unless_ended importing
    report_unless_ended absent
  fi
  await_dead_lock
  needs_recovery || report ended
  previous=$current
  start_runner recover
  await_recovery
}

runner_pid='' deaths=0
enter "$1" || report absent
if [ "${3:-}" = recover ]; then recover "$2"; else launch "$2"; fi

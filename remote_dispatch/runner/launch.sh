# shellcheck shell=sh disable=SC2154 # common.sh assigns
# launch RUN_DIRECTORY DEADLINE_S [recover]: starts the runner, detached, and prints `launched STATE` once that is known,
# and what the run directory shows then. With `-` for all values it waits until they come on stdin, a line each:
# RUN_DIRECTORY, DEADLINE_S and PARCEL. With 1 for that a `parcel` (a gzipped tar of files of the run directory) is there,
# or about to be: every file in it takes its place before anything else is looked at.
# States: started, importing, held (another launch's runner is importing), ended, lost, absent (no such run directory),
# damaged (a file differs from the manifest), recovering (a recovery holds the lock), failed (no runner came up).
# With `recover` the runner only exports what OpenCode has of a run that was started and left no back-file. It starts
# nothing, and says so, where a back-file is there or nothing was ever started (ended), where a runner lives (started,
# importing, recovering), and where nothing was started and nobody is at it (absent). A recovery that is over already is
# `ended`, whether it could export or not.

PARCEL_NAPS=500 # some fifteen seconds: it was sent before the values were

report() {
  echo "launched $1"
  print_status "${run:-$place}" brief
  exit 0
}

# Nothing follows the values: a `read` that takes more than its line does no harm.
read_values() {
  IFS= read -r place && IFS= read -r seconds && IFS= read -r is_parcel || exit 1
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
  naps=7 looks=0
  while :; do
    report_known_state
    if [ "$naps" -ge 7 ]; then look_closely "$2"; fi
    if [ "$looks" -lt 60 ]; then nap; else pause; naps=7; fi
  done
}

# What costs more than a test of files.
look_closely() {
  naps=0 looks=$((looks + 1))
  read_lock
  notice_death
  [ "$(date +%s)" -ge "$deadline" ] || return 0
  [ "$held" != yes ] || report_unless_ended "$1"
  [ "$(date +%s)" -lt "$((deadline + 15))" ] || report_unless_ended failed
}

# Another launcher may have taken it already; then the manifest is there.
await_parcel() {
  naps=0
  until enter "$place" && { [ -f parcel ] || [ -f manifest ] || [ -e outcome.json ]; }; do
    [ "$naps" -lt "$PARCEL_NAPS" ] || return 0
    nap
  done
}

# Another launcher of the same dispatch, and a runner that it has started, only ever see whole files: each takes its
# place by a rename. What is damaged, or cannot be unpacked here, the manifest shows.
take_parcel() {
  [ -f parcel ] || return 0
  { [ ! -f manifest ] || ! is_whole; } || return 0
  fresh=parcel.$$
  mkdir "$fresh" && (cd "$fresh" && gzip -dc ../parcel | tar -xmof -) >/dev/null 2>&1 || return 0
  for part in . children tool-output param param/env; do
    settle "$fresh/$part" "$part"
  done
}

settle() {
  [ -d "$1" ] && mkdir -p "$2" || return 0
  target=$2
  shift_files "$1"/*
}

shift_files() {
  for file do
    shift
    [ ! -f "$file" ] || set -- "$@" "$file"
  done
  [ "$#" -eq 0 ] || mv -f -- "$@" "$target/"
}

# What a broken upload left beside a variable would be taken for one.
clear_parcel() {
  rm -rf parcel parcel.* param/env/*.part
}

launch() {
  report_known_state
  read_lock
  [ "$held" != yes ] || await_runner "$1" held
  take_parcel
  is_whole || report damaged
  clear_parcel
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

runner_pid='' deaths=0 place=${1:-} seconds=${2:-} is_parcel=''
[ "$place" != - ] || read_values
[ "$is_parcel" != 1 ] || await_parcel
enter "$place" || report absent
if [ "${3:-}" = recover ]; then recover "$seconds"; else launch "$seconds"; fi

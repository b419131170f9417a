# shellcheck shell=sh disable=SC2154 # common.sh assigns
# launch RUN_DIRECTORY DEADLINE_S: starts the runner, detached, and prints `launched STATE` once that is known.
# States: started, importing, held (another launch's runner is importing), ended, lost, absent (no such run directory),
# damaged (a file differs from the manifest), failed (no runner came up).

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

# All three descriptors are redirected, or the connection would stay open as long as the runner.
start_runner() {
  if command -v setsid >/dev/null 2>&1; then detach="setsid"; else detach="nohup"; fi
  ("$detach" sh runner.sh </dev/null >>runner.log 2>&1 &)
}

report_known_state() {
  [ ! -e outcome.json ] || report ended
  [ ! -e started ] || { read_lock; [ "$held" = yes ] || report_unless_ended lost; report started; }
}

# The outcome may have come between two looks.
report_unless_ended() {
  [ ! -e outcome.json ] || report ended
  report "$1"
}

await_runner() {
  deadline=$(($(date +%s) + $1))
  while :; do
    report_known_state
    if [ "$(date +%s)" -ge "$deadline" ]; then
      read_lock
      [ "$held" != yes ] || report_unless_ended "$2"
      [ "$(date +%s)" -lt "$((deadline + 15))" ] || report_unless_ended failed
    fi
    pause
  done
}

cd -P -- "$1" 2>/dev/null || report absent
report_known_state
read_lock
[ "$held" != yes ] || await_runner "$2" held
is_whole || report damaged
start_runner
await_runner "$2" importing

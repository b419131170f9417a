# shellcheck shell=sh disable=SC2154 # runner.sh assigns
# The runner's steps: each is noted in `journal` before and after, and a test can stop or end the runner there.

# step NAME COMMAND...: the exit status of the command.
step() {
  reach "$1.before"
  without_first "$@"
  set -- "$1" "$?"
  reach "$1.after"
  return "$2"
}

without_first() {
  shift
  "$@"
}

# A journal that cannot be written must not fail the run.
reach() {
  { echo "$(date +%s) ${1%.*} ${1##*.}" >>"$run/journal"; } 2>/dev/null || :
  [ -z "${REMOTE_DISPATCH_FAILPOINTS:-}" ] || obey "$REMOTE_DISPATCH_FAILPOINTS/runner.$1"
}

# Obeys the order in a file once: of several runners one takes it away.
obey() {
  mv "$1" "$1.$$" 2>/dev/null || return 0
  order=$(cat "$1.$$")
  rm -f "$1.$$"
  case $order in
    kill) kill -s KILL $$ ;;
    pause)
      printf '' >"$1.reached"
      while [ ! -e "$1.go" ]; do pause; done
      ;;
  esac
}

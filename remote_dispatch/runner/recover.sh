# shellcheck shell=sh disable=SC2034,SC2154 # runner.sh assigns and reads
# The recovery of a run that was started and left no back-file: its runner was killed, the machine was started anew, or
# the export failed. It never runs the brief; it waits for the end of what OpenCode still does, and exports.

# Takes a dead lock over, as a recovery, or ends.
take_over() {
  settle_lock
  needs_recovery || exit 0
  case $held in
    yes) exit 0 ;;
    dead) previous=$current mine=$current/next ;;
    *) previous='' mine=lock ;;
  esac
  mkdir "$mine" 2>/dev/null || exit 0
  give_way_to_a_late_owner
  printf '' >"$mine/recovery" || exit 0
  own_lock
  needs_recovery || exit 0
}

# Prints a field of the outcome that is there; nothing for null.
told() {
  [ ! -f "$run/outcome.json" ] || sed -n 's/.*"'"$1"'":"\{0,1\}\([A-Za-z0-9_-]*\).*/\1/p' "$run/outcome.json" | sed '/^null$/d'
}

# What is known of the run: by its outcome, or by what a runner that wrote none left.
recall() {
  read_params
  is_started=true
  problem=lost
  import_status=0
  began=$(told began) run_began=$(told run_began) run_ended=$(told run_ended)
  run_status=$(told run_status) earlier_signal=$(told signal)
  [ ! -f "$run/outcome.json" ] || problem=$(told problem)
  [ -n "$run_began" ] || read -r run_began <"$run/started" || :
  [ -n "$run_ended" ] || [ ! -f "$run/ended" ] || read -r run_ended run_status <"$run/ended" || :
  [ -n "$run_status" ] || [ ! -f "$run/live-end" ] || read_live_end
}

rebuild() {
  mkdir -p tmp back-children back-tool-output
  entered=$(cat directory 2>/dev/null && printf x)
  cd -P -- "${entered%x}" 2>/dev/null || :
}

await_end() {
  await_opencode
  signal=${signal:-$earlier_signal}
}

# What failed only because nothing could be exported is no problem any more.
drop_cured_problem() {
  [ -n "$back_sha256" ] && [ "$run_status" = 0 ] || return 0
  case $problem in export-failed | no-space) problem='' ;; esac
}

recover() {
  catch_signals
  step recover take_over
  recall
  trap 'step outcome write_outcome' EXIT
  stop_all "$(processes_with REMOTE_DISPATCH_CALL)"
  rebuild
  step await await_end
  is_stoppable=no
  export_all
  drop_cured_problem
  exit 0
}

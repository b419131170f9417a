# shellcheck shell=sh disable=SC2154 # what stands in front of it assigns
# Ends idle agents of ours, runs OpenCode's own upgrade, and prints which version is there then.
# Lines: version WORDS · status EXIT_STATUS; the blob `said`: the last words of the upgrade; `state` finished or missing.
# Values: 1 OpenCode's path, absolute · 2 owners of the agents, separated by spaces · 3... NAME=VALUE of its environment
# `usual_mask` is the umask of the user: what is installed is not for them alone. In front of it stand the functions of
# probe.sh, with the runner's common.sh before them.

end_agents() {
  for owner in $1; do
    process=${XDG_STATE_HOME:-$HOME/.local/state}/remote-dispatch/acp/$owner/process
    [ -f "$process" ] || continue
    judge_process "$process"
    [ "$held" != yes ] || stop_all "$(tree_of "$owner_pid")"
  done
}

main() {
  opencode=$1 owners=$2
  shift 2
  for pair in "$@"; do export "${pair?}"; done
  cd "$HOME" || cd / || exit 1
  [ -x "$opencode" ] || { say state missing && return; }
  end_agents "$owners"
  there=$(login_path)
  PATH=${opencode%/*}:${there:+$there:}$PATH
  export PATH
  said=$(
    umask "${usual_mask:-022}"
    limited 900 "$opencode" upgrade </dev/null 2>&1
    printf '\nstatus %s\n' "$?"
  )
  say status "$(printf '%s\n' "$said" | sed -n '$s/^status //p')"
  blob_of said last_words
  say version "$(limited 60 "$opencode" --version </dev/null | tail -n 1)"
  say state finished
}

last_words() {
  printf '%s\n' "$said" | sed '$d' | tail -n 20 | tail -c 2000 | tr -cd '\11\12\33\40-\176' # a byte each
}
main "$@"

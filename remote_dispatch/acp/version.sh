# shellcheck shell=sh
# Prints which OpenCode is here, the newest one that this machine's own package tools know of, and our agents.
# Lines: opencode PATH · version WORDS · newest VERSION · source npm|pnpm|brew; the blob `agents`, a line each:
# OWNER PID PORT PASSWORD, with - for what is not to be seen; `state` known or missing (no OpenCode).
# Values: 1 OpenCode's path or "" · 2... NAME=VALUE of its environment
# In front of it stand the functions of probe.sh, with the runner's common.sh before them.

# What there is may ask a registry: whichever the user's own settings name.
find_newest() {
  for tool in npm pnpm brew; do
    command -v "$tool" >/dev/null || continue
    case $tool in
      brew) found=$(HOMEBREW_NO_AUTO_UPDATE=1 limited 30 brew info --json=v2 opencode </dev/null | sed -n 's/.*"stable": *"\([^"]*\)".*/\1/p') ;;
      *) found=$(limited 30 "$tool" view opencode-ai version </dev/null) ;;
    esac
    found=$(printf '%s\n' "$found" | grep -E '^[0-9]+\.[0-9]+\.[0-9]+' | tail -n 1)
    [ -z "$found" ] || { say newest "$found" && say source "$tool" && return; }
  done
}

list_agents() {
  for process in "${XDG_STATE_HOME:-$HOME/.local/state}"/remote-dispatch/acp/*/process; do
    [ -f "$process" ] || continue
    judge_process "$process"
    # shellcheck disable=SC2154 # judge_process assigns
    [ "$held" = yes ] || continue
    owner=${process%/process}
    # shellcheck disable=SC2154 # judge_process assigns
    agent_port=$(tr '\0' ' ' <"/proc/$owner_pid/cmdline" | sed -n 's/.* --port \([0-9]*\).*/\1/p')
    secret=$(tr '\0' '\n' <"/proc/$owner_pid/environ" | sed -n 's/^OPENCODE_SERVER_PASSWORD=//p' | head -n 1)
    printf '%s %s %s %s\n' "${owner##*/}" "$owner_pid" "${agent_port:--}" "${secret:--}"
  done
}

main() {
  asked=$1
  shift
  for pair in "$@"; do export "${pair?}"; done
  cd "$HOME" || cd / || exit 1
  opencode=$(find_opencode "$asked" | head -n 1)
  blob_of agents list_agents
  if [ ! -f "$opencode" ] || [ ! -x "$opencode" ]; then
    say state missing
    return
  fi
  there=$(login_path)
  PATH=${opencode%/*}:${there:+$there:}$PATH
  export PATH
  say opencode "$opencode"
  say version "$(limited 60 "$opencode" --version </dev/null | tail -n 1)"
  find_newest
  say state known
}
main "$@"

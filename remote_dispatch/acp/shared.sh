# shellcheck shell=sh disable=SC2154,SC2034 # common.sh assigns
# What the scripts about `opencode acp` share. In front of it stands common.sh.

# What is kept for an owner of agents. `process` names the process that runs (or ran) for it.
agent_place() {
  printf '%s/remote-dispatch/acp/%s' "${XDG_STATE_HOME:-$HOME/.local/state}" "$1"
}

is_living() { # FILE: sets owner_pid
  [ -f "$1" ] || return 1
  judge_process "$1"
  [ "$held" = yes ]
}

has_gnu_tail() {
  tail --version 2>/dev/null | grep -q GNU
}

# follow START FILE: prints a file from that byte on, and what is appended to it, for ever. It becomes the process.
follow() {
  # A home on a network has no notices of change: without them GNU's looks every second.
  if has_gnu_tail; then exec tail -s 0.1 -c "+$1" -f "$2"; else exec tail -c "+$1" -f "$2"; fi
}

# shellcheck shell=sh
# Removes what is kept for an owner of a process that has ended.
# Values: 1 owner
rm -rf "${XDG_STATE_HOME:-$HOME/.local/state}/remote-dispatch/acp/$1"

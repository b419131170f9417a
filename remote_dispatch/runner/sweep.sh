# shellcheck shell=sh
# sweep: removes what killed probes left in our cache and killed runners among the code, an hour old at least, and prints
# `swept N`. What they left of a tree is only a copy of what was sent.

cache=${XDG_CACHE_HOME:-$HOME/.cache}/remote-dispatch
state=${XDG_STATE_HOME:-$HOME/.local/state}/remote-dispatch
swept=0
for scratch in "$cache"/probe.* "$state"/projects/.part.* "$state"/work/*.part.*; do
  pid=${scratch##*.}
  case $pid in '' | *[!0-9]*) continue ;; esac
  [ -d "$scratch" ] && [ ! -L "$scratch" ] && [ -z "$(start_time "$pid")" ] || continue
  [ -n "$(find "$scratch" -prune -mmin +60 2>/dev/null)" ] || continue
  rm -rf -- "$scratch" && swept=$((swept + 1))
done
echo "swept $swept"

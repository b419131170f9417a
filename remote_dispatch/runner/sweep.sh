# shellcheck shell=sh
# sweep: removes what probes that were killed left in our cache, an hour old at least, and prints `swept N`.

cache=${XDG_CACHE_HOME:-$HOME/.cache}/remote-dispatch
swept=0
for scratch in "$cache"/probe.*; do
  pid=${scratch##*.}
  case $pid in '' | *[!0-9]*) continue ;; esac
  [ -d "$scratch" ] && [ ! -L "$scratch" ] && [ -z "$(start_time "$pid")" ] || continue
  [ -n "$(find "$scratch" -prune -mmin +60 2>/dev/null)" ] || continue
  rm -rf -- "$scratch" && swept=$((swept + 1))
done
echo "swept $swept"

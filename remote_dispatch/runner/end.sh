# shellcheck shell=sh disable=SC2154 # common.sh assigns
# end RUN_DIRECTORY STATUS: tells the runner of a live run that the turn is over, with 0 where it ended well, and prints
# `end told`; `end absent` where there is no such run. What was told first stays.

enter "$1" || { echo "end absent"; exit 0; }
[ -e param/live ] || { echo "end absent"; exit 0; }
[ -e live-end ] || { echo "$2" >"live-end.$$" && mv -f "live-end.$$" live-end; } || exit 1
echo "end told"

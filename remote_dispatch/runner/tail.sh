# shellcheck shell=sh
# tail RUN_DIRECTORY OFFSET: prints the events that are there from that byte on, and ends.

enter "$1" || exit 1
[ ! -f events.jsonl ] || tail -c "+$(($2 + 1))" events.jsonl

# shellcheck shell=sh
# list RUN_DIRECTORY: prints the list of what came of a run; see push.sh.

enter "$1" || exit 1
list_result

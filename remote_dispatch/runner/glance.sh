# shellcheck shell=sh
# glance RUN_DIRECTORY LIMIT_BYTES [events]: prints what `status` prints and, of a run that has ended, what came of it, with
# its small files; see push.sh.

print_result "$@" 2>/dev/null

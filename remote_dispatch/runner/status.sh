# shellcheck shell=sh
# status RUN_DIRECTORY: prints what it shows.

print_status "$1"

# shellcheck shell=sh disable=SC2154 # common.sh and report.sh assign
# What is asked for once a run has ended, all in one answer. Put behind report.sh.

PUSHED_FILES=100

# print_result RUN_DIRECTORY LIMIT_BYTES [events]: the status; where the run has ended and the limit is not 0, behind it a
# list of what came of it, up to a line `listed`; the small files of it, each behind a line `file BYTES NAME`, and `end`.
# The limit is for all files together: what has no room is fetched by its name. A file that changes meanwhile, or a cut
# answer, is found by its digest, or by its size.
print_result() {
  print_status "$1"
  [ "$2" -gt 0 ] && has_ended 2>/dev/null || return 0
  room_bytes=$2 room_files=$PUSHED_FILES
  list_result
  for file in back.json.gz back-todos.json back-children/ses_*.json.gz back-tool-output/tool_* ${3:+events.jsonl}; do
    push_file "$file"
  done
  echo end
}

list_result() {
  [ ! -f back-children.txt ] || { echo family; sed 's/^/expected /' back-children.txt; }
  for file in back-children/*.json.gz back-tool-output/tool_* back-todos.json; do
    [ ! -f "$file" ] || echo "$file"
  done
  [ ! -f back-sums ] || sed 's/^/sum /' back-sums
  echo listed
}

push_file() {
  [ -f "$1" ] && [ "$room_files" -gt 0 ] || return 0
  bytes=$(($(wc -c <"$1")))
  [ "$bytes" -le "$room_bytes" ] || return 0
  room_bytes=$((room_bytes - bytes)) room_files=$((room_files - 1))
  echo "file $bytes $1"
  head -c "$bytes" "$1"
}

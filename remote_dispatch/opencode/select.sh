# shellcheck shell=sh disable=SC2154 # reader.sh and the script behind it assign
# What probe.sh and far.sh share; between reader.sh and them.

# select_rows SECONDS STATEMENT: prints rows as `opencode db --format tsv` does, which is asked where the reader refuses.
# The caller has `limited`; the output is a file, which the second attempt begins anew.
select_rows() {
  as_reader limited "$1" "$opencode" -e "$READER" rows tsv "$2" >"$3" 2>/dev/null </dev/null
  [ "$?" -ne "$READER_DONE" ] || return 0
  limited "$1" "$opencode" --pure db --format tsv "$2" >"$3" 2>/dev/null </dev/null
}

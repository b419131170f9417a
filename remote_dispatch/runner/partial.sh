# shellcheck shell=sh disable=SC2034,SC2154 # common.sh and code.sh assign and read
# partial RUN_DIRECTORY DISPATCH_ID: packs the code as it is now, while the work goes on, and prints
# `partial packed DIRECTORY` with the directory within the run directory that holds back-code, back-sums and, where home
# lacks something, back.bundle or back.tar.gz. Else `partial none` (no code came along), `partial absent` (no such run
# directory) or `partial failed WORD`. What earlier calls left is removed when it is an hour old.

say() {
  echo "partial $*"
  exit 0
}

remove_earlier() {
  for earlier in "$run"/partial.*; do
    [ -d "$earlier" ] && [ ! -L "$earlier" ] && [ -z "$(start_time "${earlier##*.}")" ] || continue
    [ -z "$(find "$earlier" -prune -mmin +60)" ] || rm -rf -- "$earlier"
  done
}

dispatch=$2
enter "$1" || say absent
read_code
[ -n "$code" ] || say none
is_code_sane || say failed values
remove_earlier
made=partial.$$
place=$run/$made
rm -rf -- "$place"
word=$(pack_code "$place" 2>/dev/null) || { rm -rf -- "$place"; say failed "${word:-no-space}"; }
(cd -- "$place" && sums_of back-code back.bundle back.tar.gz >back-sums) || say failed no-space
say packed "$made"

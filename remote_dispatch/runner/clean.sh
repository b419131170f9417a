# shellcheck shell=sh disable=SC2154 # common.sh assigns
# clean RUN_DIRECTORY DISPATCH_ID [unbegun]: removes a run directory that nobody uses, and before it the tree in which the
# work was done; the objects of its project stay for the next dispatch. Prints `removed`, or `kept` and why: path (it is not
# this dispatch's run directory), held (a runner lives), running (its OpenCode lives), begun (it was to go because nothing
# ran, and something did), failed. The tree of a live run stays: its session may be prompted on.

KEPT_SNAPSHOTS=3

keep() {
  echo "kept $1"
  exit 0
}

# A runner that was killed may have left the part of a tool output where OpenCode keeps them.
remove_copies_outside() {
  [ -f before.tsv ] || return 0
  database=$(awk -F '\t' '$1 == "database" { print $2 }' before.tsv)
  [ -z "$database" ] || rm -f -- "${database%/*}"/tool-output/tool_*."$1".part
}

# What the work made unwritable goes too. It is looked for even when the run directory is gone already.
remove_work() {
  for place in "${1:?}/work/$2" "${1:?}/work/$2".part.*; do
    [ -e "$place" ] || [ -L "$place" ] || continue
    rm -rf -- "$place" 2>/dev/null && continue
    chmod -R u+rwX -- "$place" 2>/dev/null
    rm -rf -- "$place" 2>/dev/null || keep failed
  done
}

# Of the dispatches of a project that are over, the newest three keep what they brought: the next one need not bring it
# again. Nothing goes while one has not ended: it may count on what the probe found.
tidy_store() {
  dispatch=$1
  read_code
  [ "$code" = bundle ] && is_code_sane && [ -d "$store" ] || return 0
  (
    prepare_git "$run/tmp/git" || exit 0
    ! is_in_use "$state" "$project" "$dispatch" || exit 0
    our_git --git-dir="$store" for-each-ref --sort=-refname --format='%(refname)' 'refs/dispatch/*' |
      drop_old "$dispatch"
    our_git --git-dir="$store" -c gc.auto=6700 -c gc.autoDetach=true gc --auto --quiet
  ) </dev/null >/dev/null 2>&1
}

is_in_use() {
  grep -slxF -e "$2" "$1"/runs/*/param/code-project | while read -r file; do
    other=${file%/param/code-project}
    [ "${other##*/}" = "$3" ] || [ -e "$other/outcome.json" ] || echo "$other"
  done | grep -q .
}

drop_old() {
  kept=0
  while read -r ref; do
    [ "${ref##*/}" = "$1" ] || { [ ! -d "$state/runs/${ref##*/}" ] && [ ! -d "$state/work/${ref##*/}" ]; } || continue
    kept=$((kept + 1))
    [ "$kept" -le "$KEPT_SNAPSHOTS" ] || our_git --git-dir="$store" update-ref -d "$ref"
  done
}

is_lived_in() {
  [ -e param/live ] && [ -e started ] && [ "$1" != unbegun ]
}

case $2 in '' | *[!A-Za-z0-9-]*) keep path ;; esac
case $1 in
  */../* | */./*) keep path ;;
  /*/remote-dispatch/runs/"$2") ;;
  *) keep path ;;
esac
[ ! -L "$1" ] || keep path
if [ -d "$1" ]; then
  enter "$1" || keep failed
  read_lock
  case $held in yes | unowned) keep held ;; esac
  [ "${3:-}" != unbegun ] || [ ! -e started ] || keep begun
  [ -e outcome.json ] || [ -z "$(marked_processes)" ] || keep running
  stop_all "$(processes_with REMOTE_DISPATCH_CALL)"
  remove_copies_outside "$2"
  is_lived_in "${3:-}" || remove_work "${run%/runs/*}" "$2"
  tidy_store "$2"
  cd /
  rm -rf -- "$1" || keep failed
else
  remove_work "${1%/runs/*}" "$2"
fi
echo removed

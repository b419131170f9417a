# shellcheck shell=sh disable=SC2154 # common.sh assigns
# clean RUN_DIRECTORY DISPATCH_ID [unbegun]: removes a run directory that nobody uses; prints `removed`, or `kept` and
# why: path (it is not this dispatch's run directory), held (a runner lives), running (its OpenCode lives), begun (it was
# to go because nothing ran, and something did), failed.

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
  cd /
  rm -rf -- "$1" || keep failed
fi
echo removed

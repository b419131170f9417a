# Shows a session and all below it as the OpenCode of this machine has them, and changes nothing. Prints `far begin`; for
# each session a line `session ID MESSAGES` and, when exports are asked for, `export ID BYTES` + that many bytes (gzip) +
# newline, or `unreadable ID`; at last `far end`. Instead of that end: `far missing` (no OpenCode), `far failed`.
# Values: 1 OpenCode's path or name · 2 session id · 3 "export", or "" · 4... NAME=VALUE of its environment there
# In front of it stand reader.sh and select.sh.
# shellcheck shell=sh disable=SC2154
umask 077
exec 2>/dev/null

finish() { # WORD
  printf 'far %s\n' "$1"
  exit 0
}
limited() { # SECONDS COMMAND...: where there is no `timeout`, whoever asked gives up and the output breaks
  seconds=$1
  shift
  if command -v timeout >/dev/null; then timeout -k 5 "$seconds" "$@"; else "$@"; fi
}
expanded() { # a leading ~/ means the home directory
  # shellcheck disable=SC2088 # the tilde itself is meant
  case $1 in '~/'*) printf '%s/%s' "$HOME" "${1#??}" ;; *) printf '%s' "$1" ;; esac
}
has_database() {
  ls "${XDG_DATA_HOME:-$HOME/.local/share}"/opencode/*.db >/dev/null || [ -n "${OPENCODE_DB:-}" ]
}
family() { # the id was checked against its grammar before it came here
  select_rows 120 "
    with recursive family(id) as (
      select id from session where id = '$1' union select s.id from session s join family f on s.parent_id = f.id)
    select 'session' as kind, id, (select count(*) from message where session_id = family.id) as messages from family
  " "$scratch/rows" &&
    awk -F '\t' '$1 == "session" && $2 ~ /^ses_[A-Za-z0-9]+$/ { print $2, $3 + 0 }' rows >family
}
export_packed() { # into a file first: OpenCode cuts what it prints into a pipe
  as_reader limited 600 "$opencode" -e "$READER" export "$1" "$scratch/one" "$scratch/one.gz" </dev/null >/dev/null
  [ "$?" -ne "$READER_DONE" ] || [ ! -s one.gz ] || return 0 # it may see a file system of its own
  limited 600 "$opencode" --pure export "$1" >one </dev/null && gzip -1 -c one >one.gz
}
print_export() {
  if export_packed "$1"; then
    printf 'export %s %s\n' "$1" "$(wc -c <one.gz | tr -d ' ')"
    cat one.gz
    printf '\n'
  else
    printf 'unreadable %s\n' "$1"
  fi
  rm -f one one.gz
}
print_family() {
  while read -r id messages <&3; do
    printf 'session %s %s\n' "$id" "$messages" || exit 1
    [ "$1" != export ] || print_export "$id" || exit 1
  done 3<family
}
main() {
  printf '\nfar begin\n'
  asked=$1 session=$2 wanted=$3
  shift 3
  for pair in "$@"; do export "${pair?}"; done
  opencode=$(command -v "$(expanded "$asked")") || finish missing
  has_database || finish end
  # Called like the probe's, whose remains are swept: a connection may break before this one is removed.
  scratch=${XDG_CACHE_HOME:-$HOME/.cache}/remote-dispatch/probe.$$
  mkdir -p "$scratch" || finish failed
  trap 'cd / && rm -rf "$scratch"' EXIT
  trap 'exit 1' HUP INT TERM PIPE
  cd "$scratch" || finish failed
  # Apart from the user's state: what ends without waiting for a plugin's packages leaves a lock of a minute (1.18).
  PWD=$(pwd -P) TMPDIR=$scratch XDG_STATE_HOME=$scratch/state npm_config_offline=true
  export PWD TMPDIR XDG_STATE_HOME npm_config_offline
  family "$session" || finish failed
  print_family "$wanted"
  finish end
}
main "$@"

# shellcheck shell=sh disable=SC2154 # common.sh assigns
# Prints what a run directory shows, as lines `key value`. Put between common.sh and the scripts that need it.

hex_of() {
  head -c 4096 "$1" 2>/dev/null | od -An -v -tx1 | tr -d ' \n'
}

is_there() {
  if [ -e "$1" ]; then echo yes; else echo no; fi
}

modified() {
  stat -c %Y "$1" 2>/dev/null || stat -f %m "$1" 2>/dev/null
}

# A lock that nobody owns counts as being taken for a minute.
held_word() {
  read_lock
  [ "$held" != unowned ] || { held=yes; [ -z "$(find "$current" -prune -mmin +1)" ] || held=dead; }
  echo "$held"
}

# Whether OpenCode lives is looked for only where nobody has seen its end.
print_opencode() {
  if [ -e started ] && ! has_ended && is_opencode_alive; then echo "opencode yes"; else echo "opencode no"; fi
}

print_contents() {
  # In this order: what was started is held from before that on, until its outcome is there.
  echo "started $(is_there started)"
  echo "held $(held_word)"
  if is_recovering; then echo "recovering yes"; else echo "recovering no"; fi
  echo "events_bytes $(size_of events.jsonl)"
  [ ! -f events.jsonl ] || echo "last_event_age_s $(($(date +%s) - $(modified events.jsonl)))"
  [ ! -f directory ] || echo "directory_hex $(hex_of directory)"
  echo "outcome $(is_there outcome.json)"
  [ ! -f outcome.json ] || echo "outcome_json $(head -c 4096 outcome.json | tr -d '\n')"
}

# print_status DIRECTORY [brief]: brief leaves out whether OpenCode lives, for which all processes are looked at.
print_status() {
  echo "status begin"
  if enter "$1"; then
    echo "exists yes"
    [ "${2:-}" = brief ] || print_opencode
    print_contents
  else
    echo "exists no"
  fi
  echo "status end"
}

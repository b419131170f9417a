# shellcheck shell=sh disable=SC2154 # common.sh assigns
# find: prints `state running` and what is known of our server here, or `state none`. What a dead one left is removed,
# unless somebody is about to start another.
exec 2>/dev/null

find_server() {
  enter "$(server_place)" || { say_state none; return; }
  if is_server; then
    print_server
    return
  fi
  say_state none
  [ -e server ] || [ -e process ] || return
  take_lock 0 || return
  is_server || clean_up
  release_lock
}
find_server

# shellcheck shell=sh disable=SC2154,SC2034 # common.sh and place.sh assign
# watch DIRECTORY: ends our server once nobody used it for as many seconds as the file idle_stop says. Used is: a session
# works or waits for an answer, a session was changed, somebody is connected, or was told where it is (the file asked).
# It ends with the server.
# In front of it stand identity.sh, common.sh, the functions of probe.sh, and place.sh.

step_of() { # SECONDS: how long between two looks
  step=$(($1 / 4))
  [ "$step" -ge 1 ] || step=1
  [ "$step" -le 60 ] || step=60
  printf '%s' "$step"
}

is_connected() {
  [ -n "$(sockets "$port" 01)" ]
}

last_use() { # in seconds since 1970; nothing where nobody can tell, which counts as used now
  ! is_connected || return 0
  said=$(ask idle "$port" "$(value_of started)") || return 0
  case $said in *[!0-9]* | '') ;; *) printf '%s' "$said" ;; esac
}

# Whoever held the lock until now may have been told that the server runs.
end_server() {
  take_lock 30 || return 1
  trap release_lock EXIT
  if [ -e asked ] || is_connected; then
    release_lock
    return 1
  fi
  ask dispose "$port"
  end_family "$owner_pid"
  clean_up
}

watch_server() {
  used=$(date +%s)
  while idle_stop=$(cat idle_stop) && sleep "$(step_of "$idle_stop")"; do
    is_server || return
    port=$(value_of port) password=$(value_of password) opencode=$(value_of opencode)
    now=$(date +%s)
    last=$(last_use)
    [ ! -e asked ] || { rm -f asked && last=$now; }
    [ "${last:-$now}" -le "$used" ] || used=${last:-$now}
    [ $((now - used)) -ge "$idle_stop" ] || continue
    end_server && return
    used=$(date +%s)
  done
}

trap '' HUP
unset REMOTE_DISPATCH_SERVED # what it starts itself is not the server's
enter "$1" && watch_server

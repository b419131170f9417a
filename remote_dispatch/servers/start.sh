# shellcheck shell=sh disable=SC2154,SC2034 # common.sh and place.sh assign
# start: starts `opencode serve` on the loopback, detached, and prints what find.sh prints once it answers; one that runs
# is left alone. Other states: missing (no OpenCode), unwritable, busy (somebody else starts or stops it), failed (with
# the blob `log`).
# Values: 1 OpenCode's path or "" · 2 working directory or "" · 3 seconds of idleness after which it is stopped, "never",
#         or "" to leave that as it is · 4 text of ask.js · 5 text of the watchdog · 6... NAME=VALUE of its environment
# `usual_mask` is the umask of the user. In front of it stand identity.sh, common.sh, the functions of probe.sh, and place.sh.

start_s=180 # a small board takes half a minute, the first start after an upgrade may rewrite the database

finish() {
  say_state "$1"
  exit 0
}

set_environment() { # addresses, which a model may read, stay out of it
  for name in $(env | sed -n 's/^\(SSH_[A-Z_]*\)=.*/\1/p'); do unset "$name"; done
  there=$(login_path)
  PATH=${there:+$there:}$PATH TMPDIR=$run/tmp OPENCODE_SERVER_USERNAME=opencode
  export PATH TMPDIR OPENCODE_SERVER_USERNAME
}

spawn() { # PORT: sets server_pid
  : >log
  server_pid=$(
    cd "$work" || exit 1
    unset OLDPWD
    umask "${usual_mask:-022}" # what sessions write there is for the user's other programs
    PWD=$(pwd) OPENCODE_SERVER_PASSWORD=$password REMOTE_DISPATCH_SERVED=$run
    export PWD OPENCODE_SERVER_PASSWORD REMOTE_DISPATCH_SERVED
    "$detach" "$opencode" serve --hostname 127.0.0.1 --mdns=false --port "$1" </dev/null >>"$run/log" 2>&1 &
    echo $!
  )
  name_process process "$server_pid"
}

# It accepts connections half a second before it answers any: what is sent in between is lost (OpenCode 1.18).
await_answer() { # PORT: sets version
  answer_end=$(($(date +%s) + start_s)) looks=0 unheard=0
  while [ -n "$(start_time "$server_pid")" ] && [ "$(date +%s)" -lt "$answer_end" ]; do
    looks=$((looks + 1))
    if grep -q 'listening on' log; then
      version=$(ask health "$1") && return
      # An OpenCode without a runtime that we can use: its word has to do.
      unheard=$((unheard + 1))
      [ "$unheard" -lt 3 ] || { version='' && return; }
    elif [ $((looks % 25)) = 0 ]; then
      version=$(ask health "$1") && return
    fi
    pause
  done
  return 1
}

write_down() { # PORT
  {
    cat process
    printf 'port %s\npassword %s\nversion %s\n' "$1" "$password" "$version"
    printf 'directory %s\nhome %s\nstarted %s\nopencode %s\n' "$work" "$HOME" "$(date +%s)" "$opencode"
  } >server.new && mv -f server.new server
}

begin() { # as often as another program has the port
  password=$(od -An -N24 -tx1 /dev/urandom | tr -cd 0-9a-f)
  [ "${#password}" = 48 ] || return 1
  for try in 1 2 3 4 5; do
    port=$(free_port)
    is_begun=yes
    spawn "$port"
    if await_answer "$port"; then
      write_down "$port" && is_begun=''
      return
    fi
    end_family "$server_pid"
    is_begun=''
    grep -qiE 'ServeError|EADDRINUSE|in use' log || return 1
  done
  return 1
}

print_log() {
  last=$(sed '/^[[:space:]]*$/d' log | tail -n 20 | tail -c 4000)
  printf 'blob log %s\n%s\n' "$(printf '%s' "$last" | wc -c | tr -d ' ')" "$last"
}

set_idle_stop() {
  case $1 in
    '') return ;;
    never) rm -f idle_stop && return ;;
  esac
  printf '%s\n' "$1" >idle_stop.new && mv -f idle_stop.new idle_stop
  [ ! -f watch ] || judge_process watch
  [ -f watch ] && [ "$held" = yes ] && return
  watch_pid=$(
    REMOTE_DISPATCH_SERVED=$run
    export REMOTE_DISPATCH_SERVED
    "$detach" sh "$run/watch.sh" "$run" </dev/null >/dev/null 2>&1 &
    echo $!
  )
  name_process watch "$watch_pid"
}

leave() { # whoever asked may have gone
  [ -z "$is_begun" ] || end_family "$server_pid"
  release_lock
}

lay_out() {
  mkdir tmp && printf '%s' "$ask_text" >ask.js && printf '%s' "$watch_text" >watch.sh
}

main() {
  asked=$1 wanted=$2 idle_stop=$3 ask_text=$4 watch_text=$5
  shift 5
  place=$(server_place)
  if ! { mkdir -p "$place" && chmod 700 "$place" && enter "$place"; }; then finish unwritable; fi
  mine='' is_begun='' server_pid='' is_new=''
  trap leave EXIT
  trap 'exit 1' HUP INT TERM PIPE
  if command -v setsid >/dev/null; then detach='setsid'; else detach='nohup'; fi
  take_lock 240 || finish busy
  if ! is_server; then
    end_family ''
    clean_up
    lay_out || finish unwritable
    for pair in "$@"; do export "${pair?}"; done
    opencode=$(find_opencode "$asked" | head -n 1)
    if [ ! -f "$opencode" ] || [ ! -x "$opencode" ]; then finish missing; fi
    work=$(expand "$wanted")
    [ -d "$work" ] || work=$HOME
    set_environment
    begin || { say_state failed && print_log && exit 0; }
    is_server || finish failed
    is_new=yes
  fi
  set_idle_stop "$idle_stop"
  : >asked
  is_server
  [ -z "$is_new" ] || printf '\nnew yes\n'
  print_server
}
main "$@"

# shellcheck shell=sh disable=SC2154 # what stands in front of it assigns
# Becomes `opencode acp` in a directory. It prints lines `key value`, the last of them `state WORD`; after `state ready`
# stdin and stdout are the protocol's. Other states: missing (no OpenCode), no_directory.
# Values: 1 OpenCode's path or "" · 2 working directory · 3 owner · 4... NAME=VALUE of its environment
# stdin starts with a line that holds the password of the process's HTTP server.
# `usual_mask` is the umask of the user and 9 their stderr. In front of it stand common.sh, the functions of probe.sh,
# place.sh and shared.sh.

finish() {
  say_state "$1"
  exit 0
}

# find_agent ASKED DIRECTORY NAME=VALUE...: sets opencode and work, and the environment. Ends with a state when it cannot.
find_agent() {
  asked=$1 work=$(expand "$2")
  shift 2
  [ -d "$work" ] || finish no_directory
  for pair in "$@"; do export "${pair?}"; done
  opencode=$(find_opencode "$asked" | head -n 1)
  if [ ! -f "$opencode" ] || [ ! -x "$opencode" ]; then finish missing; fi
  unset SSH_CONNECTION SSH_CLIENT SSH_TTY SSH_ORIGINAL_COMMAND OLDPWD # addresses, which a model may read
  there=$(login_path)
  PATH=${there:+$there:}$PATH OPENCODE_SERVER_USERNAME=opencode OPENCODE_SERVER_PASSWORD=$password
  export PATH OPENCODE_SERVER_USERNAME OPENCODE_SERVER_PASSWORD
  cd -P -- "$work" || finish no_directory
  # OpenCode works where PWD says, and bun where the process is: they must not differ.
  PWD=$(pwd -P) && export PWD
  work=$PWD
}

# make_place OWNER: makes its directory and `run` its path; what others left there days ago goes. Fails where it cannot.
make_place() {
  run=$(agent_place "$1")
  mkdir -p "$run" && chmod 700 "${run%/*}" "$run" || return 1
  find "${run%/*}"/* -prune -type d -mtime +2 2>/dev/null | while read -r old; do
    [ "$old" = "$run" ] && continue
    is_living "$old/process" || is_living "$old/keeper" || rm -rf "$old"
  done
}

# A link that falls silent leaves the process behind, at work on the session that the next one is about to open. After
# another loss it is about to end by itself, and saves what it has.
end_previous() {
  tries=5
  while is_living "$run/process" && [ "$tries" -gt 0 ]; do
    pause
    tries=$((tries - 1))
  done
  ! is_living "$run/process" || stop_all "$(tree_of "$owner_pid")"
}

main() {
  owner=$3
  IFS= read -r password || exit 1
  asked_opencode=$1 asked_directory=$2
  shift 3
  find_agent "$asked_opencode" "$asked_directory" "$@"
  if make_place "$owner"; then
    end_previous
    name_process "$run/process" "$$"
  fi
  port=$(free_port)
  printf '\nport %s\ndirectory %s\nhome %s\n' "$port" "$work" "$HOME"
  say_state ready
  umask "${usual_mask:-022}" # what sessions write is for the user's other programs
  exec "$opencode" acp --hostname 127.0.0.1 --mdns=false --port "$port" 2>&9 9>&-
}
main "$@"

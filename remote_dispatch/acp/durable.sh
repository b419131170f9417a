# shellcheck shell=sh disable=SC2154,SC2034 # what stands in front of it assigns and reads
# An `opencode acp` that outlives connections; keep.sh says how. Its directory has `process`, `keeper`, `feeder`, `reader`
# and `writer` (they name processes), `in` (all that was sent to it), `out`, `err`, `pipe`, `keep.sh`, `ended`, and `cuts`:
# how often `out` and `in` were emptied, and how long they were when that happened last.
# Values: 1 `start` · 2 owner · 3 OpenCode's path or "" · 4 working directory · 5 idle seconds · 6 text of keep.sh
#           · 7... NAME=VALUE; stdin has the password
#         1 `attach` · 2 owner · 3 how much of `out` was read · 4 the cuts that are known · 5 how much of `err` was read:
#           stdin and stdout are the protocol's after `state ready`
#         1 `rest` · 2 owner · 3, 4 as for `attach`: what else there is, once it has ended
#         1 `rotate` · 2 owner · 3 how much of `out` was read · 4 how much was sent: empties `out` and `in` when that is all
#         1 `stop` · 2 owner
# They print lines `key value`, the last of them `state WORD`: ready, missing, no_directory, unwritable, gone (nothing is
# known of it), ended (`ended` is its exit status, 137 where nobody saw it, and `words` the end of `err`, with tabs between
# lines), running, done, refused.
# In front of it stands agent.sh without its call, and all that it needs.

start() {
  owner=$1 asked_opencode=$2 asked_directory=$3 idle_s=$4 keep_text=$5
  shift 5
  IFS= read -r password || exit 1
  find_agent "$asked_opencode" "$asked_directory" "$@"
  make_place "$owner" || finish unwritable
  end_everything
  rm -rf "${run:?}"/*
  { : >"$run/in" && : >"$run/out" && : >"$run/err" && mkfifo "$run/pipe"; } || finish unwritable
  printf '%s' "$keep_text" >"$run/keep.sh" || finish unwritable
  port=$(free_port)
  if command -v setsid >/dev/null; then detach='setsid'; else detach='nohup'; fi
  "$detach" sh "$run/keep.sh" "$run" "$opencode" "$port" "$idle_s" "${usual_mask:-022}" </dev/null >/dev/null 2>&1 9>&- &
  tries=50
  until [ -f "$run/process" ] || [ "$tries" = 0 ]; do
    pause
    tries=$((tries - 1))
  done
  [ -f "$run/process" ] || finish unwritable
  printf '\nport %s\ndirectory %s\nhome %s\n' "$port" "$work" "$HOME"
  say_state ready
}

end_everything() {
  for name in keeper process feeder reader writer; do
    ! is_living "$run/$name" || stop_all "$(tree_of "$owner_pid")"
  done
}

# A client whose link fell silent may still hold bytes for `in`: it must be gone before `in` is measured.
end_client() {
  for name in writer reader; do
    ! is_living "$run/$name" || stop_all "$(tree_of "$owner_pid")"
  done
}

# measure READ CUTS: sets `start`, where `out` goes on, and says what is known of cuts.
measure() {
  cuts=0 cut_read=0 cut_sent=0 start=$1
  [ ! -f "$run/cuts" ] || read -r cuts cut_read cut_sent <"$run/cuts"
  [ "$cuts" = "$2" ] || start=$(($1 - cut_read))
  printf '\ncuts %s\ncut_read %s\ncut_sent %s\n' "$cuts" "$cut_read" "$cut_sent"
}

print_rest() {
  printf '\nended %s\nwords %s\n' "$(cat "$run/ended" 2>/dev/null || echo 137)" "$(tail -c 4000 "$run/err" | tr '\n' '\t')"
  say_state ended
  tail -c "+$((start + 1))" "$run/out"
}

attach() {
  end_client
  measure "$1" "$2"
  if ! is_living "$run/process"; then
    tail -c "+$(($3 + 1))" "$run/err" >&9
    print_rest
    return
  fi
  printf '\nsent %s\n' "$(size_of "$run/in")"
  say_state ready
  exec 3<&0
  (follow "$((start + 1))" "$run/out") 3<&- 9>&- &
  reader=$!
  (follow "$(($3 + 1))" "$run/err") >&9 3<&- &
  errors=$!
  name_process "$run/reader" "$reader"
  {
    cat <&3 >>"$run/in"
    kill "$reader"
  } 9>&- &
  writer=$!
  name_process "$run/writer" "$writer"
  exec 3<&-
  [ ! -e "$run/ended" ] || kill "$reader"
  wait "$reader"
  pause # for the last words
  signal_all KILL "$(tree_of "$writer") $errors"
}

rest() {
  if is_living "$run/process"; then finish running; fi
  measure "$1" "$2"
  print_rest
}

# While it stands still nothing is added between the look and the cut. GNU's tail notices a file that became shorter.
rotate() {
  if ! has_gnu_tail || ! is_living "$run/process"; then finish refused; fi
  family=$(tree_of "$owner_pid")
  trap 'signal_all CONT "$family"' EXIT
  signal_all STOP "$family"
  if [ "$(size_of "$run/out")" != "$1" ] || [ "$(size_of "$run/in")" != "$2" ]; then finish refused; fi
  cuts=0
  [ ! -f "$run/cuts" ] || read -r cuts cut_read cut_sent <"$run/cuts"
  { echo "$((cuts + 1)) $1 $2" >"$run/cuts.new" && mv -f "$run/cuts.new" "$run/cuts"; } || finish refused
  : >"$run/out"
  : >"$run/in"
  pause
  finish 'done'
}

stop() {
  if is_living "$run/feeder"; then kill "$owner_pid"; fi
  tries=50
  while is_living "$run/keeper" && [ "$tries" -gt 0 ]; do
    pause
    tries=$((tries - 1))
  done
  end_everything
  rm -rf "$run"
  say_state 'done'
}

main() {
  verb=$1
  shift
  [ "$verb" != start ] || { start "$@" && return; }
  run=$(agent_place "$1")
  [ -f "$run/process" ] || finish gone
  shift
  "$verb" "$@"
}
main "$@"

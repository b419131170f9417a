# shellcheck shell=sh disable=SC2154,SC2329 # runner.sh assigns; traps call
# What the runner does once OpenCode has ended: export the session and all that belongs to it, and write the outcome.

# export_one ID FILE. On a busy machine OpenCode may fail for once; what was killed, or took too long, is not tried again.
export_one() {
  try_export "$1" "$2" && return 0
  [ "$?" -lt 124 ] || return 1
  sleep 1
  try_export "$1" "$2" || return 1
}

# The part of FILE holds the whole export, packed beside it. A status proves nothing: a full disk leaves a cut file, and
# what shuts OpenCode in may have let the reader write to a file system of its own.
try_export() {
  rm -f "$2.$part" "$2.gz.$part"
  read_status=0
  bounded "$EXPORT_LIMIT_S" reader export "$1" "$2.$part" "$2.gz.$part" >/dev/null 2>&1 || read_status=$?
  [ "$read_status" -ne "$READER_DONE" ] || ! is_export_whole "$2" || return 0
  pack_export "$1" "$2" && is_export_whole "$2"
}

pack_export() {
  bounded "$EXPORT_LIMIT_S" opencode --pure export "$1" >"$2.$part" 2>/dev/null || return
  gzip -1 -c "$2.$part" >"$2.gz.$part"
}

is_export_whole() {
  [ -s "$1.gz.$part" ] && [ "$(tail -c 2 "$1.$part" | tr -d '\n')" = '}' ] || return 1
  grep -oE 'tool-output/tool_[A-Za-z0-9]+' "$1.$part" >>"$run/references" || :
}

export_session() {
  export_status=0
  export_one "$session" "$run/back.json" || export_status=$?
  if [ "$export_status" -ne 0 ]; then
    rm -f "$run"/back.json*."$part"
    [ -n "$problem" ] || fail export-failed
    return 1
  fi
  bounded 60 sync "$run/back.json.$part" "$run/back.json.gz.$part" 2>/dev/null || :
  reach export.written
  place_back
}

place_back() {
  back_bytes=$(size_of "$run/back.json.$part")
  sum=$(digest "$run/back.json.$part")
  { mv -f "$run/back.json.$part" "$run/back.json" && mv -f "$run/back.json.gz.$part" "$run/back.json.gz"; } ||
    { back_bytes='' && fail export-failed; } || return 1
  back_sha256=$sum
}

export_child() {
  export_one "$1" "$run/back-children/$1.json" && place_child "$1"
  drop_child "$1"
}

place_child() {
  mv -f "$run/back-children/$1.json.gz.$part" "$run/back-children/$1.json.gz"
}

drop_child() {
  rm -f "$run/back-children/$1.json.$part" "$run/back-children/$1.json.gz.$part"
}

# Prints the sessions below this one that are new or differ from what was there before the run.
changed_children() {
  awk -F '\t' -v session="$session" '
    FILENAME == ARGV[1] { known[$0] = 1; next }
    $1 == "session" && $2 != session && !($0 in known) && $2 ~ /^ses_[A-Za-z0-9]+$/ { print $2 }' "$run/before.tsv" "$run/after.tsv"
}

export_children() {
  changed_children >"$run/back-children.$part" && mv -f "$run/back-children.$part" "$run/back-children.txt"
  [ -s "$run/back-children.txt" ] || return 0
  read_children && return 0
  rm -f "$run"/back-children/*."$part" # what was read may have filled the disk
  export_each_child
}

# All in one start.
read_children() {
  set --
  while read -r id; do
    set -- "$@" "$id" "$run/back-children/$id.json.$part" "$run/back-children/$id.json.gz.$part"
  done <"$run/back-children.txt"
  bounded "$EXPORT_LIMIT_S" reader export "$@" >/dev/null 2>&1
  [ "$?" -eq "$READER_DONE" ] || return 1
  while read -r id; do
    is_export_whole "$run/back-children/$id.json" && place_child "$id" || return 1
    drop_child "$id"
  done <"$run/back-children.txt"
}

# Two at a time: each export takes some hundred megabytes of memory.
export_each_child() {
  while read -r first; do
    second=''
    read -r second || :
    export_child "$first" &
    first_pid=$!
    [ -z "$second" ] || export_child "$second"
    await_process "$first_pid"
  done <"$run/back-children.txt"
}

write_todos() {
  awk -F '\t' '$1 == "todos" { print $2 }' "$run/after.tsv" >"$run/back-todos.json.$part" &&
    mv -f "$run/back-todos.json.$part" "$run/back-todos.json"
}

# What the result refers to and this machine alone has, within bounds.
collect_tool_output() {
  find_tool_output "$run/after.tsv"
  bytes=0
  sed 's|.*/||' "$run/references" | sort -u | head -n "$TOOL_OUTPUT_FILES" >"$run/referred"
  while read -r name; do
    [ -f "$tool_output/$name" ] && [ ! -e "$run/tool-output/$name" ] || continue
    bytes=$((bytes + $(size_of "$tool_output/$name")))
    [ "$bytes" -le "$TOOL_OUTPUT_BYTES" ] || break
    cp -- "$tool_output/$name" "$run/back-tool-output/$name"
  done <"$run/referred" 2>/dev/null
}

# What is in no other digest, as `sha256  name`.
write_sums() (
  cd -- "$run" || return 1
  sums_of back-code back.bundle back.tar.gz back-todos.json back-children/*.json.gz back-tool-output/tool_* \
    >"back-sums.$part" && mv -f "back-sums.$part" back-sums
)

export_main() {
  printf '' >"$run/references" # not `:`, which ends the shell where it cannot be redirected
  query after.tsv &
  query_pid=$!
  export_session || :
  await_process "$query_pid"
}

export_rest() {
  [ -f "$run/after.tsv" ] || return 0
  [ -f "$run/before.tsv" ] || printf '' >"$run/before.tsv"
  write_todos
  export_children
  collect_tool_output
}

# A run whose code could not be packed is no failed run: the tree stays where it is.
pack_back() {
  [ -n "$code" ] || return 0
  code_state=failed code_problem=late
  rm -f "$run/back-code" "$run/back.bundle" "$run/back.tar.gz" "$run/back-left-out"
  bounded "$PACK_LIMIT_S" pack_code "$run/tmp/pack.$$" >"$run/tmp/pack.word" 2>>"$run/code.log" || name_pack_problem || return 0
  reach pack.written
  if place_pack; then code_state=packed code_problem=''; else code_problem=no-space; fi
}

# The list is placed last: without it nothing of the rest counts.
place_pack() {
  bounded 60 sync "$run/tmp/pack.$$"/back* 2>/dev/null || :
  for file in back.bundle back.tar.gz back-left-out back-code; do
    [ ! -f "$run/tmp/pack.$$/$file" ] || mv -f "$run/tmp/pack.$$/$file" "$run/$file" || return 1
  done
}

name_pack_problem() {
  read -r word <"$run/tmp/pack.word" && code_problem=$word
  has_space || code_problem=no-space
  return 1
}

# The model may have removed the directory that it worked in, and OpenCode starts only in one that exists.
export_all() {
  cd -P -- "$PWD" 2>/dev/null || cd -P -- "$run" || return 0
  step export export_main
  step pack pack_back
  step children export_rest
  write_sums
}

# --- the end

text() {
  if [ -n "$1" ]; then printf '"%s"' "$1"; else printf null; fi
}

print_outcome() {
  printf '{"schema":1,"dispatch":"%s","session":"%s","problem":%s,"started":%s,' \
    "$dispatch" "$session" "$(text "$problem")" "$is_started"
  printf '"import_status":%s,"run_status":%s,"export_status":%s,"signal":%s,' \
    "${import_status:-null}" "${run_status:-null}" "${export_status:-null}" "$(text "$signal")"
  printf '"began":%s,"run_began":%s,"run_ended":%s,"ended":%s,' "${began:-null}" "${run_began:-null}" "${run_ended:-null}" "$(now)"
  printf '"code":%s,"code_problem":%s,' "$(text "$code_state")" "$(text "$code_problem")"
  printf '"back_sha256":%s,"back_bytes":%s,"left":%s}\n' "$(text "$back_sha256")" "${back_bytes:-null}" "${left:-null}"
}

# What the model started and left running: it goes on, unless the run was cancelled.
count_left() {
  [ -r /proc/self/stat ] || return 0
  left=0
  [ "$is_started" = true ] || return 0
  # What OpenCode ended, or what ends with it, may need a moment for that.
  tries=10
  while left=$(marked_processes | wc -l | tr -d ' ') && [ "$left" -gt 0 ] && [ "$tries" -gt 0 ]; do
    pause
    tries=$((tries - 1))
  done
}

# The last file. The reserve gives it room on a full disk. Where the disk takes nothing at all, the runner waits for it.
write_outcome() {
  trap "" TERM INT
  cd -- "$run" || return 1
  rm -rf tmp outcome.reserve references referred ./*.part children/*.part back-children/*.part
  name_problem
  count_left
  delay_s=1 waited_s=0
  until save_outcome; do
    [ "$waited_s" -lt "$OUTCOME_LIMIT_S" ] && [ -e "$run" ] || return 1
    sleep "$delay_s"
    waited_s=$((waited_s + delay_s))
    delay_s=$((delay_s < 15 ? delay_s * 2 : 30))
  done 2>/dev/null
}

# A run that was not started, or not exported, never ends without a word for it.
name_problem() {
  if [ -n "$signal" ]; then
    problem=terminated
  elif [ -z "$problem" ] && [ "$is_started" = false ]; then
    fail import-unproved
  elif [ -z "$problem" ] && [ -z "$back_sha256" ]; then
    fail export-failed
  fi
}

save_outcome() {
  print_outcome >"outcome.json.$part" || return 1
  sync "outcome.json.$part" 2>/dev/null || :
  reach outcome.written
  mv -f "outcome.json.$part" outcome.json && wake_waiters
}

# shellcheck shell=sh disable=SC2034,SC2154,SC2329 # common.sh and reader.sh assign, export.sh reads; traps call
# Runs one dispatch in its run directory, which is the current one: import, run, export, outcome. With the word
# `recover` it only exports and writes the outcome; see recover.sh.
# Nothing of it is built from values: they are read from `param/`. It never prints content.

trap "" HUP
# Writing past a file-size limit shall fail, not kill. Not every shell knows the name.
# shellcheck disable=SC2172 # it is tried first
if (trap "" XFSZ) 2>/dev/null; then trap "" XFSZ; fi

IMPORT_LIMIT_S=900
EXPORT_LIMIT_S=900
QUERY_LIMIT_S=180
OUTCOME_LIMIT_S=3600
TOOL_OUTPUT_FILES=64
TOOL_OUTPUT_BYTES=16777216

run=$(pwd -P)
part=$$.part # of its own, so that nothing that a dead runner left writes into the same file
dispatch='' session='' binary='' directory='' model='' agent='' variant='' messages='' parts='' began=''
problem='' signal='' child='' is_stoppable=yes is_started=false
import_status='' run_status='' export_status='' code_state='' code_problem='' run_began='' run_ended='' back_sha256='' back_bytes='' left=''

now() {
  date +%s
}

# --- the lock

# Takes the lock or ends: a second runner of a dispatch does nothing, and one that was started is never run again.
take_lock() {
  settle_lock
  [ ! -e outcome.json ] || exit 0
  case $held in
    yes) exit 0 ;;
    dead)
      [ ! -e started ] || exit 0
      previous=$current
      mine=$current/next
      ;;
    *) previous='' mine=lock ;;
  esac
  mkdir "$mine" 2>/dev/null || exit 0
  give_way_to_a_late_owner
  own_lock
  [ ! -e outcome.json ] && [ ! -e started ] || exit 0
  hold
}

own_lock() {
  name_process "$mine/owner" $$ || { rm -f "$mine/owner.$$"; rmdir "$mine"; exit 0; } 2>/dev/null
  [ ! -d "$mine/next" ] || exit 0
}

# From here on the runner leaves an outcome. What a dead one still had OpenCode do is ended.
hold() {
  trap 'step outcome write_outcome' EXIT
  [ -z "$previous" ] || stop_all "$(processes_with REMOTE_DISPATCH_CALL)"
}

catch_signals() {
  trap 'on_signal TERM' TERM
  trap 'on_signal INT' INT
}

# An owner may have written its name only after it was taken for dead.
give_way_to_a_late_owner() {
  [ -n "$previous" ] || return 0
  judge "$previous"
  [ "$held" != yes ] || { rmdir "$mine"; exit 0; }
}

# --- values

read_params() {
  read_param dispatch && dispatch=$value
  read_param session && session=$value
  read_param opencode && binary=$value
  read_param directory && directory=$value
  read_param model && model=$value
  read_param agent && agent=$value
  read_param variant && variant=$value
  read_param messages && messages=$value
  read_param parts && parts=$value
  case $dispatch in *[!A-Za-z0-9-]*) dispatch='' ;; esac
  case $session in *[!A-Za-z0-9_]*) session='' ;; esac
  read_code
}

# --- processes

# What OpenCode gets from this dispatch. The names are long because the user's variables are set beside them.
set_environment() {
  PWD=$(pwd -P)
  TMPDIR=$run/tmp
  export PWD TMPDIR
  for remote_dispatch_file in "$run"/param/env/*; do
    [ -f "$remote_dispatch_file" ] || continue
    remote_dispatch_value=$(cat "$remote_dispatch_file" && printf x)
    export "${remote_dispatch_file##*/}=${remote_dispatch_value%x}"
  done
}

# OpenCode in the environment of this dispatch; replaces the subshell that it is called in.
opencode() {
  set -- "$binary" "$@"
  set_environment
  [ "$2" != --pure ] || stay_apart
  exec "$@"
}

# OpenCode's own runtime, which reads the database alone: see reader.sh. It replaces the subshell too.
reader() {
  set -- "$binary" -e "$READER" "$@"
  set_environment
  stay_apart
  become_reader && exec "$@"
}

# OpenCode begins to install what plugin files need and, with --pure, ends without waiting for it (1.18): the lock that
# is left among its state would hold up the next start for a minute.
stay_apart() {
  XDG_STATE_HOME=$run/tmp/state npm_config_offline=true REMOTE_DISPATCH_CALL=$run
  export XDG_STATE_HOME npm_config_offline REMOTE_DISPATCH_CALL
}

# Ends the running child with all that belongs to it.
stop_child() {
  [ -n "$child" ] && [ "$is_stoppable" = yes ] || return 0
  stop_all "$(tree_of "$child"; marked_processes)"
}

on_signal() {
  [ "$is_stoppable" = yes ] || return 0
  signal=$1
  stop_child
}

# await_process PID: waits for its end although signals interrupt waiting.
await_process() {
  while :; do
    wait "$1"
    kill -0 "$1" 2>/dev/null || break
  done
}

# Waits for `child` although signals interrupt waiting; returns its exit status.
wait_for_child() {
  [ -z "$signal" ] || stop_child
  while :; do
    status=0
    wait "$child" || status=$?
    kill -0 "$child" 2>/dev/null || break
  done
  child=''
  return "$status"
}

# Ends a process that has not ended in time. It looks every second, so that it is gone soon after that process.
watch_over() {
  (
    left_s=$2
    born=$(start_time "$1")
    while [ "$left_s" -gt 0 ] && [ -n "$born" ] && [ "$(start_time "$1")" = "$born" ]; do
      sleep 1
      left_s=$((left_s - 1))
    done
    [ "$left_s" -gt 0 ] || stop_all "$(tree_of "$1")"
  ) </dev/null >/dev/null 2>&1 &
}

# bounded SECONDS COMMAND...: the exit status of the command, which is ended when it takes longer. Not after a signal.
bounded() {
  [ -z "$signal" ] || [ "$is_stoppable" = no ] || return 143
  limit_s=$1
  shift
  "$@" </dev/null &
  child=$!
  watch_over "$child" "$limit_s"
  wait_for_child
}

# --- before the run

fail() {
  if has_space; then problem=$1; else problem=no-space; fi
  return 1
}

has_space() {
  dd if=/dev/zero of="$run/space.probe" bs=1024 count=64 2>/dev/null
  is_written=$?
  rm -f "$run/space.probe"
  return "$is_written"
}

prepare() {
  began=$(now)
  read_params
  dd if=/dev/zero of=outcome.reserve bs=1024 count=16 2>/dev/null || fail no-space || return 1
  mkdir -p tmp back-children back-tool-output
}

enter_directory() {
  case $directory in /*) ;; *) fail directory; return 1 ;; esac
  { mkdir -p -- "$directory" && cd -P -- "$directory"; } 2>/dev/null && is_inside_tree || fail directory || return 1
  { printf '%s' "$PWD" >"$run/directory.$part" && mv -f "$run/directory.$part" "$run/directory"; } || fail no-space
}

find_opencode() {
  { [ -f "$binary" ] && [ -x "$binary" ]; } || fail opencode-missing
}

unpack() {
  for packed in "$run"/session.json.gz "$run"/children/*.json.gz; do
    [ -f "$packed" ] || continue
    { gzip -dc "$packed" >"${packed%.gz}.$part" && mv -f "${packed%.gz}.$part" "${packed%.gz}"; } 2>/dev/null ||
      fail import-refused || return 1
  done
}

# The old copy on the host goes first where the session replaces it. Gone already is as good.
delete_old_copy() {
  [ -e "$run/param/replace" ] || return 0
  bounded "$QUERY_LIMIT_S" opencode --pure session delete "$session" >"$run/delete.log" 2>&1 && return 0
  grep -q 'Session not found' "$run/delete.log" || fail import-refused
}

# import_one FILE ID. OpenCode's stderr can hold the whole conversation: only its first bytes are kept, here.
import_one() {
  import_status=0
  bounded "$IMPORT_LIMIT_S" opencode --pure import "$1" >"$run/import.out" 2>"$run/import.err" || import_status=$?
  head -c 4096 "$run/import.out" "$run/import.err" >>"$run/import.log" 2>/dev/null
  grep -qxF -e "Imported session: $2" "$run/import.out"
  is_named=$?
  rm -f "$run/import.out" "$run/import.err"
  [ "$import_status" -eq 0 ] && [ "$is_named" -eq 0 ] || fail import-refused
}

import_all() {
  for file in "$run"/children/*.json; do
    [ -f "$file" ] || continue
    id=${file##*/}
    import_one "$file" "${id%.json}" || return 1
  done
  import_one "$run/session.json" "$session"
}

# Writes one file of tab-separated rows about the session and all below it: `session id directory-in-hex messages parts
# updated`, `todos JSON`, `database path`.
query() {
  print_rows "
    with recursive tree(id) as (
      select id from session where id = '$session' union select s.id from session s join tree on s.parent_id = tree.id)
    select 'session' as kind, s.id as id, hex(s.directory) as directory,
      (select count(*) from message where session_id = s.id) as messages,
      (select count(*) from part where session_id = s.id) as parts, s.time_updated as updated
      from session s where s.id in tree
    union all select 'todos', (select json_group_array(json_object('session_id', session_id, 'content', content,
      'status', status, 'priority', priority, 'position', position))
      from (select * from todo where session_id in tree order by session_id, position)), '', 0, 0, 0
    union all select 'database', file, '', 0, 0, 0 from pragma_database_list where name = 'main'
  " "$run/$1.$part" 2>/dev/null && mv -f "$run/$1.$part" "$run/$1"
}

# print_rows STATEMENT FILE: by the reader, or by OpenCode itself, each start of which takes about a second.
print_rows() {
  read_status=0
  bounded "$QUERY_LIMIT_S" reader rows tsv "$1" >"$2" || read_status=$?
  [ "$read_status" -ne "$READER_DONE" ] || return 0
  bounded "$QUERY_LIMIT_S" opencode --pure db --format tsv "$1" >"$2"
}

# is_stored ID MESSAGES PARTS: whether `before.tsv` has the session in this directory with at least so much in it.
is_stored() {
  awk -F '\t' -v id="$1" -v messages="$2" -v parts="$3" -v directory="$directory_hex" '
    $1 == "session" && $2 == id && $3 == directory && $4 >= messages + 0 && $5 >= parts + 0 { found = 1 }
    END { exit !found }' "$run/before.tsv"
}

prove_import() {
  query before.tsv || fail import-unproved || return 1
  directory_hex=$(printf '%s' "$PWD" | od -An -v -tx1 | tr -d ' \n' | tr a-f A-F)
  is_stored "$session" "$messages" "$parts" || fail import-unproved || return 1
  [ -f "$run/param/children" ] || return 0
  while read -r id child_messages child_parts; do
    is_stored "$id" "$child_messages" "$child_parts" || fail import-unproved || return 1
  done <"$run/param/children"
}

# The directory in which OpenCode keeps what was too long for a tool's answer, by the rows of a query.
find_tool_output() {
  database=$(awk -F '\t' '$1 == "database" { print $2 }' "$1")
  tool_output=${database%/*}/tool-output
}

place_tool_output() {
  find_tool_output "$run/before.tsv"
  for file in "$run"/tool-output/tool_*; do
    name=${file##*/}
    case $name in *[!A-Za-z0-9_]*) continue ;; esac
    [ -f "$file" ] && [ ! -e "$tool_output/$name" ] || continue
    mkdir -p -- "$tool_output"
    copy=$tool_output/$name.$dispatch.part
    cp -- "$file" "$copy" && mv -f -- "$copy" "$tool_output/$name"
  done 2>/dev/null
  return 0
}

# --- the run

# Without --pure: here the user's own plugins and tools count.
turn() {
  set -- run --session "$session" --dir "$PWD" --model "$model" --agent "$agent" --format json
  [ -z "$variant" ] || set -- "$@" --variant "$variant"
  [ ! -e "$run/param/auto" ] || set -- "$@" --auto
  read_param permission
  OPENCODE_PERMISSION=$value REMOTE_DISPATCH_DEPTH=1 REMOTE_DISPATCH_RUN=$run
  export OPENCODE_PERMISSION REMOTE_DISPATCH_DEPTH REMOTE_DISPATCH_RUN
  unset SSH_CLIENT SSH_CONNECTION SSH_TTY # addresses, which a model may read
  # shellcheck disable=SC2016 # that shell's parent is this process, which `$$` does not name
  name_process "$run/opencode.pid" "$(exec sh -c 'echo "$PPID"')" || exit 1
  may_begin || exit 1
  opencode "$@"
}

# A recovery takes the lock over before it looks for this process's name, which is written by now: one sees the other.
may_begin() {
  [ ! -d "$run/$mine/next" ] && [ ! -e "$run/stopped" ]
}

mark_started() {
  [ ! -e "$run/stopped" ] || signal=TERM
  [ -z "$signal" ] || return 1
  run_began=$(now)
  echo "$run_began" >"$run/started.$part" || fail no-space || return 1
  bounded 20 sync "$run/started.$part" 2>/dev/null || :
  mv -f "$run/started.$part" "$run/started" || fail no-space || return 1
  # A power cut must not take the name away again: what has started is never started again.
  bounded 20 sync "$run" 2>/dev/null || :
  is_started=true
  drop_code
}

run_session() {
  [ -z "$signal" ] || return 1
  turn <"$run/brief.txt" >"$run/events.jsonl" 2>"$run/stderr.log" &
  child=$!
  reach run.running
  run_status=0
  wait_for_child || run_status=$?
  await_opencode
  [ "$run_status" -eq 0 ] || [ ! -e "$run/stopped" ] || signal=${signal:-TERM}
  is_stoppable=no
}

# OpenCode lives on where a launcher that stood before it was killed, and where a runner was.
await_opencode() {
  while [ -z "$signal" ] && is_opencode_alive; do sleep 1; done
  [ -z "$signal" ] || stop_all "$(marked_processes)"
}

# The exit status is kept for a recovery.
note_end() {
  run_ended=$(now)
  [ -z "$run_status" ] || { echo "$run_ended $run_status" >"$run/ended"; } 2>/dev/null || :
  [ "${run_status:-1}" -eq 0 ] || fail run-failed
}

# --- all of it

# Each step by its name in the journal; what fails has set `problem`.
import_steps() {
  step prepare prepare &&
    step code place_code &&
    step directory enter_directory &&
    find_opencode &&
    step unpack unpack &&
    step delete delete_old_copy &&
    step import import_all &&
    step prove prove_import &&
    step tool-output place_tool_output
}

main() {
  catch_signals
  step lock take_lock
  import_steps && step started mark_started
  if [ "$is_started" = true ]; then
    if is_live; then step run await_live; else step run run_session; fi
    step ended note_end
    is_stoppable=no
    export_all
  fi
  exit 0
}

if [ "${1:-}" = recover ]; then recover; else main; fi

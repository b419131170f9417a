# shellcheck shell=sh
# What all scripts on the host share: who holds the lock of a run directory, and which processes belong to a run.
# It is put in front of every other script here; the current directory is the run directory.

umask 077

UNOWNED_LOOKS=50 # of 0.2 s each
run=''

# Makes a run directory the current one, and `run` its path.
enter() {
  cd -P -- "$1" 2>/dev/null && run=$(pwd -P)
}

boot_id() {
  cat /proc/sys/kernel/random/boot_id 2>/dev/null || sysctl -n kern.bootsessionuuid 2>/dev/null || sysctl -n kern.boottime | tr -cd '0-9'
}

# Prints when a process started, as the system counts it; nothing for one that is gone or only waits to be reaped.
start_time() {
  if [ -r /proc/self/stat ]; then
    # The name in the second field may hold spaces and parentheses.
    sed -n '$s/.*) //p' "/proc/$1/stat" 2>/dev/null | awk '$1 !~ /[ZX]/ { print $20 }'
  else
    TZ=UTC LC_ALL=C ps -o stat= -o lstart= -p "$1" 2>/dev/null | awk '$1 !~ /Z/ { $1 = ""; gsub(" ", "_"); print }'
  fi
}

# A dead lock is taken over by making `next` inside it: mkdir lets one taker win, and nothing is ever moved away.
current_lock() {
  current=lock
  while [ -d "$current/next" ]; do current=$current/next; done
}

# Sets `held` to yes, no, dead or unowned, `current` to the innermost lock, and `owner_pid`.
read_lock() {
  current_lock
  judge "$current"
}

judge() {
  held=no owner_pid=''
  [ -d "$1" ] || return 0
  held=unowned
  [ -f "$1/owner" ] || return 0
  judge_process "$1/owner"
}

# Sets `held` to yes or dead, and `owner_pid`, by a file that names a process.
judge_process() {
  held=dead owner_boot='' owner_pid='' owner_start=''
  read -r owner_boot owner_pid owner_start <"$1" || :
  case $owner_pid in '' | *[!0-9]*) return 0 ;; esac
  [ "$owner_boot" = "$(boot_id)" ] && [ -n "$owner_start" ] && [ "$owner_start" = "$(start_time "$owner_pid")" ] && held=yes
  return 0
}

# A lock without an owner is being taken, or was left by a crash: one that is still so after ten seconds is dead.
settle_lock() {
  tries=$UNOWNED_LOOKS
  read_lock
  while [ "$held" = unowned ] && [ "$tries" -gt 0 ]; do
    pause
    tries=$((tries - 1))
    read_lock
  done
  [ "$held" != unowned ] || held=dead
}

# Writes a file that names a process: boot id, process id and start time.
name_process() {
  echo "$(boot_id) $2 $(start_time "$2")" >"$1.$$" && mv -f "$1.$$" "$1"
}

# Whether the lock is held by a recovery.
is_recovering() {
  current_lock
  [ -e "$current/recovery" ] || return 1
  judge "$current"
  [ "$held" = yes ]
}

# Whether the outcome is there and nobody is about to write it anew.
has_ended() {
  [ -e outcome.json ] && ! is_recovering
}

# Whether it was started and there is no outcome, or one without a back-file.
needs_recovery() {
  [ -e started ] || return 1
  ! { [ -s back.json.gz ] && grep -q '"back_sha256":"' outcome.json; } 2>/dev/null
}

pause() {
  sleep 0.2 2>/dev/null || sleep 1
}

# nap: a short pause, for what is only a test of files; `naps` counts them, and a longer one as so many.
naps=0
nap() {
  if sleep 0.03 2>/dev/null; then naps=$((naps + 1)); else sleep 1; naps=$((naps + 30)); fi
}

size_of() {
  if [ -f "$1" ]; then wc -c <"$1" | tr -d ' '; else echo 0; fi
}

# Prints lines `pid parent`.
process_table() {
  if [ -r /proc/self/stat ]; then
    cat /proc/[0-9]*/stat 2>/dev/null | sed 's/ (.*) [A-Za-z] / /'
  else
    ps -A -o pid= -o ppid=
  fi
}

# Prints a process and everything below it.
tree_of() {
  echo "$1"
  process_table | awk -v root="$1" '
    { parent[$1] = $2 }
    END {
      known[root] = 1
      do {
        grew = 0
        for (pid in parent) if (!(pid in known) && (parent[pid] in known)) { known[pid] = 1; grew = 1; print pid }
      } while (grew)
    }'
}

# processes_with NAME: prints the processes that have this run directory as that variable in their environment. They
# belong to the run even when their parents ended. REMOTE_DISPATCH_RUN is set for `opencode run` and all that the model
# starts, REMOTE_DISPATCH_CALL for the runner's short calls of OpenCode.
processes_with() {
  mark="$1=$run"
  # One grep looks at all processes first: looking at each alone takes a second on a busy machine.
  grep -slF -e "$mark" /proc/[0-9]*/environ 2>/dev/null | while read -r environment; do
    if tr '\0' '\n' 2>/dev/null <"$environment" | grep -qxF -e "$mark"; then
      pid=${environment#/proc/}
      echo "${pid%/environ}"
    fi
  done
}

marked_processes() {
  processes_with REMOTE_DISPATCH_RUN
}

# Whether OpenCode of this run lives: the process that the runner started, or one that this one started in its turn (the
# binary that npm installs may be a launcher), told from what the model runs by its arguments.
is_opencode_alive() {
  [ ! -f "$run/opencode.pid" ] || judge_process "$run/opencode.pid"
  [ ! -f "$run/opencode.pid" ] || [ "$held" != yes ] || return 0
  session_id=''
  read -r session_id <"$run/param/session" || :
  for pid in $(marked_processes); do
    is_turn "$pid" "$session_id" && return 0
  done
  return 1
}

is_turn() {
  tr '\0' '\n' 2>/dev/null <"/proc/$1/cmdline" | awk -v id="$2" '
    last == "run" && before == "--session" && $0 == id { found = 1 }
    { last = before; before = $0 }
    END { exit !found }'
}

signal_all() {
  for pid in $2; do kill -s "$1" "$pid" 2>/dev/null || :; done
}

living() {
  for pid in $1; do [ -z "$(start_time "$pid")" ] || printf '%s ' "$pid"; done
}

# Ends these processes: TERM, and KILL for what is left five seconds later. The list is made before anything dies,
# because the commands of OpenCode's bash tool lead sessions of their own and are orphans afterwards.
stop_all() {
  signal_all TERM "$1"
  tries=25
  while left=$(living "$1") && [ -n "$left" ] && [ "$tries" -gt 0 ]; do
    pause
    tries=$((tries - 1))
  done
  signal_all KILL "$left"
}

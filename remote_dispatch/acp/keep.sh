# shellcheck shell=sh disable=SC2154 # common.sh assigns
# Keeps one `opencode acp` that outlives connections: `in` is fed to it, what it prints goes to `out` and `err`. When it
# ends `ended` appears with its exit status. The current directory is where it works.
# Values: 1 its directory of files · 2 OpenCode's path · 3 port · 4 seconds without a client after which it is ended ·
#         5 umask
# In front of it stand common.sh and shared.sh.

trap '' HUP
run=$1 opencode=$2 port=$3 idle_s=$4 usual_mask=$5

# Without a client and with nothing new to say: nobody comes back.
watch_idle() {
  look_s=5 heard=0 last=$(date +%s)
  [ "$idle_s" -ge 10 ] || look_s=1
  while sleep "$look_s"; do
    size=$(size_of "$run/out")
    if is_living "$run/reader" || [ "$size" != "$heard" ]; then last=$(date +%s); fi
    heard=$size
    [ $(($(date +%s) - last)) -lt "$idle_s" ] || break
  done
  kill "$feeder" # the end of its stdin: it saves what it has
  sleep 10
  stop_all "$(tree_of "$agent")"
}

name_process "$run/keeper" "$$"
follow 1 "$run/in" >"$run/pipe" 2>/dev/null </dev/null &
feeder=$!
name_process "$run/feeder" "$feeder"
(
  umask "$usual_mask"
  exec "$opencode" acp --hostname 127.0.0.1 --mdns=false --port "$port" <"$run/pipe" >>"$run/out" 2>>"$run/err"
) &
agent=$!
name_process "$run/process" "$agent"
watch_idle &
watch=$!
wait "$agent"
echo "$?" >"$run/ended.new" && mv -f "$run/ended.new" "$run/ended"
signal_all KILL "$(tree_of "$watch") $feeder"
# In this order: a client that came meanwhile looks for `ended` once its reader is named.
! is_living "$run/reader" || kill "$owner_pid"

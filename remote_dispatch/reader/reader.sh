# shellcheck shell=sh disable=SC2034 # who calls it reads them
# How scripts have OpenCode's database read by OpenCode's own runtime: see reader.js. Before it stands `READER`, its text.

READER_DONE=93

# What starts the reader does this first. Bun obeys bunfig.toml and .env of the current directory, which may be a project's:
# that would run whatever it names, or have another database read. In a container even / may be one.
become_reader() {
  cd / || return 1
  unset NODE_OPTIONS
  BUN_BE_BUN=1 BUN_OPTIONS='--no-env-file --config=/dev/null'
  export BUN_BE_BUN BUN_OPTIONS
}

# as_reader COMMAND...: runs what starts the reader.
as_reader() (
  become_reader && "$@"
)

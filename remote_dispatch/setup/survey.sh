# What a host is, and which OpenCode it has. Prints lines `key value`; the last one is `surveyed yes`.
# Values: 1 OpenCode's path or "" · 2... NAME=VALUE of the environment that OpenCode gets there
# shellcheck shell=sh
# In front of it stand the functions of the probe, so that both find the same OpenCode.
first_line() { head -n 1 | tr -d '\r'; }
show_libc() {
  found=$(getconf GNU_LIBC_VERSION | first_line)
  case $found in 'glibc '*) say glibc "${found#glibc }" && return ;; esac
  case $(ldd --version 2>&1 </dev/null) in
    *musl*) say musl yes ;;
    *) [ -f /etc/alpine-release ] && say musl yes ;;
  esac
}
show_loaders() {
  for loader in /lib64/ld-linux-x86-64.so.2 /lib/ld-linux-aarch64.so.1 /lib/ld-musl-*.so.1; do
    [ -e "$loader" ] && say loader "$loader"
  done
}
show_avx2() {
  if [ -r /proc/cpuinfo ]; then
    if grep -qw avx2 /proc/cpuinfo; then say avx2 yes; else say avx2 no; fi
  else
    case $(sysctl -n hw.optional.avx2_0) in 1) say avx2 yes ;; 0) say avx2 no ;; esac
  fi
}
show_tools() {
  for tool in npm bun pnpm yarn brew pacman curl; do command -v "$tool" >/dev/null && say installer "$tool"; done
  command -v gzip >/dev/null && say gzip yes
  for tool in sha256sum shasum openssl busybox; do command -v "$tool" >/dev/null && say checker "$tool"; done
}
show_opencode() { # ASKED
  opencode=$(find_opencode "$1" | head -n 1)
  # What an entry names and is not there is none.
  [ -n "$opencode" ] && [ -x "$opencode" ] || return
  say opencode "$opencode"
  TMPDIR=$(mktemp -d) || return
  export TMPDIR
  version=$(limited 60 "$opencode" --version 2>/dev/null </dev/null)
  say status "$?"
  say version "$(printf '%s\n' "$version" | tail -n 1)"
  rm -rf "$TMPDIR"
}
survey() {
  asked=$1
  shift
  for pair in "$@"; do export "${pair?}"; done
  target=$HOME/.opencode/bin
  say system "$(uname -s)"
  say machine "$(uname -m)"
  say home "$HOME"
  say config "${XDG_CONFIG_HOME:-$HOME/.config}/opencode"
  say data "${XDG_DATA_HOME:-$HOME/.local/share}/opencode"
  say free_kib "$(df -Pk "$(existing_parent "$target")" | awk 'NR == 2 { print $4 }')"
  { [ -e "$target/opencode" ] || [ -h "$target/opencode" ]; } && say in_place yes
  for file in "$target"/opencode.setup-*; do [ -e "$file" ] && say leftover yes; done
  if [ "$(uname -s)" = Linux ]; then
    show_libc
    show_loaders
  fi
  show_avx2
  show_tools
  show_opencode "$asked"
  say surveyed yes
}
survey "$@"

# Makes OpenCode of what was uploaded: unpacked, compared, asked for its version, and only then renamed into place.
# Prints lines `key value`; the last is `result WORD`: `installed`, or what stopped it: `place`, `unpack`, `hash`, `mute`.
# Run again after an interruption it goes on: what is in place is whole at any moment.
# Values: 1 directory · 2 the uploaded file's name · 3 "gzip" when it is packed, or "" · 4 SHA-256 of the program
# shellcheck shell=sh
umask 077
LC_ALL=C
export LC_ALL
say() { printf '%s %s\n' "$1" "$2"; }
finish() { # WORD: what it wrote on stderr says why
  [ ! -s "$scratch/words" ] || say words "$(tail -c 300 "$scratch/words" | tr -s '\n\r\t' '   ')"
  say result "$1"
  exit 0
}
limited() { # SECONDS COMMAND...
  seconds=$1
  shift
  if command -v timeout >/dev/null 2>&1; then timeout -k 5 "$seconds" "$@"; else "$@"; fi
}
sha256() { # FILE: whichever tool there is
  { sha256sum "$1" || shasum -a 256 "$1" || openssl dgst -sha256 -r "$1" || busybox sha256sum "$1"; } 2>/dev/null |
    cut -c 1-64
}
answer() { # PROGRAM: prints its version; the exit status is the program's own
  TMPDIR=$scratch limited 60 "$1" --version >"$scratch/version" 2>"$scratch/words" </dev/null
  asked_status=$?
  version=$(tail -n 1 "$scratch/version" | tr -d '\r')
  case $version in [0-9]*.[0-9]*) : ;; *) [ "$asked_status" -ne 0 ] || asked_status=1 ;; esac
  return "$asked_status"
}
unpacked() { # UPLOADED PACKING NEW
  if [ "$2" = gzip ]; then
    [ -f "$3" ] || { gzip -dc <"$1" >"$3.part" && mv -f "$3.part" "$3"; } 2>"$scratch/words"
  else
    [ -f "$1" ]
  fi
}
keep_old() {
  { [ -e opencode ] || [ -h opencode ]; } || return 0
  rm -f opencode.old
  # A second name for the same file, so that at no moment there is none.
  ln opencode opencode.old 2>/dev/null || cp -p opencode opencode.old 2>/dev/null || mv -f opencode opencode.old
}
main() {
  scratch=$1/opencode.setup-scratch
  if ! { cd "$1" && rm -rf "$scratch" && mkdir "$scratch"; } 2>/dev/null; then
    say result place
    return
  fi
  trap 'rm -rf "$scratch"' EXIT
  trap 'exit 1' HUP INT PIPE TERM
  new=${2%.gz}
  if ! unpacked "$2" "$3" "$new"; then
    rm -f "$new.part"
    finish unpack
  fi
  if [ "$(sha256 "$new")" != "$4" ]; then
    rm -f "$new" "$2"
    finish hash
  fi
  chmod 755 "$new" 2>"$scratch/words" || finish place
  if ! answer "./$new"; then
    rm -f "$new" "$2"
    say status "$asked_status"
    finish mute
  fi
  keep_old || finish place
  mv -f "$new" opencode 2>"$scratch/words" || finish place
  if [ -e opencode.old ] && ! answer ./opencode; then
    mv -f opencode.old opencode
    say status "$asked_status"
    finish mute
  fi
  rm -rf opencode.old opencode.setup-*
  say version "$version"
  finish installed
}
main "$@"

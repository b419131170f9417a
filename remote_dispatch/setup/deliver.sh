# Compares files with those of a directory here, or moves them in. The latter never overwrites: what is there and is not
# the same is kept as NAME.before-setup. Prints `same NAME`, `differs NAME` or `missing NAME`; `kept NAME` for each that
# was set aside; at last `result done`.
# Values: 1 "compare" or "put" · 2 the directory · 3... NAME SHA-256, in pairs
# shellcheck shell=sh
umask 077
LC_ALL=C
export LC_ALL
say() { printf '%s %s\n' "$1" "$2"; }
sha256() { # FILE
  { sha256sum "$1" || shasum -a 256 "$1" || openssl dgst -sha256 -r "$1" || busybox sha256sum "$1"; } 2>/dev/null |
    cut -c 1-64
}
is_there() { [ -e "$1" ] || [ -h "$1" ]; }
standing() { # NAME SHA-256
  if ! is_there "$1"; then
    echo missing
  elif [ -f "$1" ] && [ "$(sha256 "$1")" = "$2" ]; then
    echo same
  else
    echo differs
  fi
}
set_aside() { # NAME: under a name that nothing has
  aside=$1.before-setup
  number=1
  while is_there "$aside"; do
    number=$((number + 1))
    aside=$1.before-setup-$number
  done
  { ln "$1" "$aside" || mv -f "$1" "$aside"; } 2>/dev/null && say kept "$aside"
}
put() { # NAME SHA-256
  [ "$(sha256 "$staged/$1")" = "$2" ] || return 1
  mkdir -p "$(dirname "./$1")" || return 1
  case $(standing "./$1" "$2") in
    same) return ;;
    differs) set_aside "$1" || return 1 ;;
  esac
  mv -f "$staged/$1" "./$1"
}
main() {
  verb=$1
  there=$2
  [ "$verb" = compare ] || cd "$there" || return
  staged=$2/.remote-dispatch-setup
  shift 2
  while [ "$#" -gt 1 ]; do
    if [ "$verb" = put ]; then
      put "$1" "$2" 2>/dev/null || return
    else
      say "$(standing "$there/$1" "$2")" "$1"
    fi
    shift 2
  done
  [ "$verb" = compare ] || rm -rf "$staged"
  say result "done"
}
main "$@"

#!/bin/sh
# Put the npm package that the benchmark compares with into a directory: tools/ensure-peer.sh [DIR]
# Does nothing when it is there. It imports nothing but Node's own modules, so its dependencies stay away.
set -eu

package=opencode-remote-login
version=0.2.1
integrity=sha512-9HvWDjohc64c9hrX1jYbxjPu4Ka69OKcRuaGEF1MsTEYoF5OrUpfFEoTI1To6+hOkUA9+6eZGe7UblODaKcT2A==
directory=${1:-.cache/peer}

say() { printf '%s\n' "ensure-peer: $*" >&2; }

[ -f "$directory/$package-$version/src/index.ts" ] && exit 0

if ! command -v npm >/dev/null 2>&1; then
    say "npm is missing: without it the benchmark leaves $package out"
    exit 1
fi

mkdir -p "$directory"
parts=$(mktemp -d "$directory/.parts.XXXXXX")
trap 'rm -rf "$parts"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say "fetching $package@$version into $directory"
npm pack "$package@$version" --json --pack-destination "$parts" --loglevel=error </dev/null >"$parts/report"
if ! grep -qF "$integrity" "$parts/report"; then
    say "what the registry gave for $package@$version is not what the benchmark was written for"
    exit 1
fi
tar -xzf "$parts/$package-$version.tgz" -C "$parts"
[ -d "$directory/$package-$version" ] || mv "$parts/package" "$directory/$package-$version"

#!/bin/sh
# Put OpenCode for the tests into a directory: tools/ensure-opencode.sh [DIR]
# Does nothing when the right version is there. Several at once wait for the first.
set -eu

version=1.18.33
directory=${1:-.cache/opencode}
opencode=$directory/node_modules/.bin/opencode
lock=$directory/.lock
patience=600

say() { printf '%s\n' "ensure-opencode: $*" >&2; }

is_there() {
    [ -x "$opencode" ] && [ "$("$opencode" --version </dev/null 2>/dev/null)" = "$version" ]
}

take_lock() {
    waited=0
    until (set -C; echo $$ >"$lock") 2>/dev/null; do
        owner=$(cat "$lock" 2>/dev/null || true)
        if [ -n "$owner" ] && ! kill -0 "$owner" 2>/dev/null; then
            rm -f "$lock"
        elif [ "$waited" -ge "$patience" ]; then
            say "process ${owner:-unknown} has been installing for $patience seconds; remove $lock and try again"
            exit 1
        else
            sleep 1
            waited=$((waited + 1))
        fi
    done
    trap 'rm -f "$lock"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

is_there && exit 0

if ! command -v npm >/dev/null 2>&1; then
    say "npm is missing: install Node.js with npm, or set REMOTE_DISPATCH_TEST_OPENCODE to an opencode $version"
    exit 1
fi

mkdir -p "$directory"
take_lock
is_there && exit 0
say "installing opencode-ai@$version into $directory"
npm install --prefix "$directory" --no-audit --no-fund --loglevel=error "opencode-ai@$version" </dev/null >&2
if ! is_there; then
    say "$opencode does not answer with version $version"
    exit 1
fi

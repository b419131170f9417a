#!/bin/sh
# ensure-program.sh PROGRAM PACKAGE: make sure that a program is installed for the tests; it is never started here.
# Does nothing when it is there. apt-get's own lock keeps several at once apart.
set -eu

program=$1
package=$2

say() { printf '%s\n' "ensure-program: $*" >&2; }

is_there() { PATH=$PATH:/usr/sbin:/usr/local/sbin command -v "$program" >/dev/null 2>&1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo -n "$@"
    fi
}

apt() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@" </dev/null >&2; }

is_there && exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    say "$program is missing: install it (Debian's package is $package)"
    exit 1
fi
if [ "$(id -u)" -ne 0 ] && ! sudo -n true 2>/dev/null; then
    say "$program is missing and installing it needs root: run \`sudo apt-get install $package\`"
    exit 1
fi

say "installing $package"
apt update || say "the package lists could not be refreshed; trying with the old ones"
apt install -y --no-install-recommends "$package"
if ! is_there; then
    say "$package was installed, but there is no $program"
    exit 1
fi

#!/bin/sh
# Make sure that OpenSSH's server is installed for the tests; it is never started here, nor as a service.
# Does nothing when there is one. apt-get's own lock keeps several at once apart.
set -eu

say() { printf '%s\n' "ensure-sshd: $*" >&2; }

is_there() { PATH=$PATH:/usr/sbin:/usr/local/sbin command -v sshd >/dev/null 2>&1; }

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
    say "sshd is missing: install OpenSSH's server (Debian: openssh-server, Fedora: openssh-server, Alpine: openssh)"
    exit 1
fi
if [ "$(id -u)" -ne 0 ] && ! sudo -n true 2>/dev/null; then
    say "sshd is missing and installing it needs root: run \`sudo apt-get install openssh-server\`"
    exit 1
fi

say "installing openssh-server"
apt update || say "the package lists could not be refreshed; trying with the old ones"
apt install -y --no-install-recommends openssh-server
if ! is_there; then
    say "openssh-server was installed, but there is no sshd"
    exit 1
fi

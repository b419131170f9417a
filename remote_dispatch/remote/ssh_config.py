"""How a host is reached, as OpenSSH itself reads ~/.ssh/config: `ssh -G`, translated into plain values.

Nothing here connects. asyncssh's own parser stands in only where there is no `ssh` program: it fails on missing key
files and on trailing comments, and ignores the global files (measured with asyncssh 2.24).
"""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from remote_dispatch.errors import ConfigurationError
from remote_dispatch.remote.address import Address, parse_address
from remote_dispatch.remote.ssh_aliases import config_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from remote_dispatch.model import Host

_ASK_S = 10
_MOST_HOPS = 8
_DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
_GLOBAL_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")


@dataclass(frozen=True, slots=True, repr=False)
class Target:
    """Everything that a connection to one host needs. Files are existing ones only. Its repr shows the name alone.

    `alias` is what the hosts file says, `host` what it stands for. `known_hosts` may be empty, which trusts nothing.
    `agent` is None where no agent may be asked. `jumps` are the hosts on the way, the nearest first, each with keys
    and known hosts of its own.
    """

    name: str
    alias: str
    host: str
    port: int
    user: str
    identities: tuple[Path, ...] = ()
    certificates: tuple[Path, ...] = ()
    is_identities_only: bool = False
    agent: str | None = None
    known_hosts: tuple[Path, ...] = ()
    host_key_alias: str | None = None
    address_family: str = "any"
    connect_timeout_s: int | None = None
    proxy_command: str | None = None
    jumps: tuple[Target, ...] = ()

    def __repr__(self) -> str:
        return f"Target({self.name!r}, ...)"

    def secrets(self) -> frozenset[str]:
        """Return what must appear in no message: hosts, users and key files, of the jump hosts too."""
        own = {self.alias, self.host, self.user, self.host_key_alias or self.host}
        files = {str(file) for file in (*self.identities, *self.certificates, *self.known_hosts)}
        return frozenset(own | files).union(*(jump.secrets() for jump in self.jumps))


async def resolve(host: Host) -> Target:
    """Return how to reach a host; its `port`, and a user or port in its address, win over ~/.ssh/config.

    Raises ConfigurationError when the address is not one, or when ssh refuses the configuration.
    """
    try:
        address = parse_address(host.host or "")
    except ValueError as error:
        raise ConfigurationError(
            f"{host.name}: {error}", hint=f"correct `host` of `{host.name}` in the hosts file"
        ) from None
    return await _resolve(host.name, replace(address, port=host.port or address.port), depth=0)


async def destination(alias: str) -> Address:
    """Return whom and where an alias stands for. Raises ValueError for no address, ConfigurationError as `resolve`."""
    address = parse_address(alias)
    program = shutil.which("ssh")
    name = "~/.ssh/config"
    options = await ask_ssh(program, name, address) if program else ask_asyncssh(name, address)
    target = _translate(name, address, options)
    return Address(target.user, target.host, target.port)


async def _resolve(name: str, address: Address, *, depth: int, is_direct: bool = False) -> Target:
    if depth > _MOST_HOPS:
        raise ConfigurationError(f"{name}: the jump hosts in ~/.ssh/config form a loop", hint="check `ProxyJump`")
    program = shutil.which("ssh")
    options = await ask_ssh(program, name, address) if program else ask_asyncssh(name, address)
    target = _translate(name, address, options)
    jump = _last(options, "proxyjump")
    if is_direct or jump in (None, "none"):
        return target
    assert jump is not None
    return replace(target, proxy_command=None, jumps=await _resolve_jumps(name, jump, depth=depth + 1))


async def _resolve_jumps(name: str, text: str, *, depth: int) -> tuple[Target, ...]:
    """Only the nearest hop follows a ProxyJump of its own: OpenSSH gives the others theirs by `-J`."""
    hops: list[Target] = []
    for number, part in enumerate(text.split(",")):
        try:
            address = parse_address(part.strip().removeprefix("ssh://").rstrip("/"))
        except ValueError as error:
            raise ConfigurationError(
                f"{name}: `ProxyJump`: {error}", hint="check `ProxyJump` in ~/.ssh/config"
            ) from None
        hop = await _resolve(f"{name} (jump host)", address, depth=depth, is_direct=number > 0)
        hops += [*hop.jumps, replace(hop, jumps=())]
    return tuple(hops)


Options = dict[str, list[str]]
"""ssh's keywords in lower case, and the values of each in order."""


async def ask_ssh(program: str, name: str, address: Address) -> Options:
    """Return what `ssh -G` says of an address. Raises ConfigurationError when ssh refuses its configuration."""
    argv = [program, *_config_choice(), "-G"]
    argv += ["-l", address.user] if address.user else []
    argv += ["-p", str(address.port)] if address.port else []
    process = await asyncio.create_subprocess_exec(
        *argv,
        "--",
        address.host,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(_ASK_S):
            stdout, _ = await process.communicate()
    except TimeoutError:
        raise ConfigurationError(f"{name}: ssh did not read its configuration in {_ASK_S} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise ConfigurationError(f"{name}: ssh refuses its configuration", hint="run `ssh -G` with this host's address")
    return _parse(stdout.decode(errors="replace"))


def _config_choice() -> list[str]:
    """OpenSSH reads the home of the user database; a HOME of its own must not be answered from another home."""
    if Path.home() == _login_home():
        return []
    return ["-F", str(config_path()) if config_path().is_file() else "none"]


def _parse(text: str) -> Options:
    options: Options = {}
    for line in text.splitlines():
        keyword, _, value = line.partition(" ")
        options.setdefault(keyword.lower(), []).append(value.strip())
    return options


def _last(options: Options, keyword: str) -> str | None:
    return options[keyword][-1] if options.get(keyword) else None


def _translate(name: str, address: Address, options: Options) -> Target:
    hostname = _last(options, "hostname") or address.host
    target = Target(
        name=name,
        alias=address.host,
        host=hostname,
        port=address.port or int(_last(options, "port") or 22),
        user=address.user or _last(options, "user") or pwd.getpwuid(os.getuid()).pw_name,
        is_identities_only=_last(options, "identitiesonly") == "yes",
        host_key_alias=_last(options, "hostkeyalias"),
        address_family=_last(options, "addressfamily") or "any",
        connect_timeout_s=_seconds(_last(options, "connecttimeout")),
        known_hosts=tuple(_known_hosts(options)),
    )
    identities = tuple(_existing(_expanded(value, target) for value in options.get("identityfile", ())))
    certificates = tuple(_existing(_expanded(value, target) for value in options.get("certificatefile", ())))
    command = _last(options, "proxycommand")
    return replace(
        target,
        identities=identities,
        certificates=certificates,
        agent=_agent(_last(options, "identityagent"), target),
        proxy_command=None if command in (None, "none") else _with_tokens(command or "", target, address.host),
    )


def _seconds(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() and int(text) > 0 else None


def _known_hosts(options: Options) -> Iterator[Path]:
    for keyword in ("userknownhostsfile", "globalknownhostsfile"):
        for value in options.get(keyword, ()):
            yield from _split_existing(value)


def _split_existing(text: str) -> Iterator[Path]:
    """`ssh -G` prints file names without quotes: take the longest run of words that is a file."""
    words = text.split()
    while words:
        for count in range(len(words), 0, -1):
            path = in_our_home(Path(" ".join(words[:count])).expanduser())
            if path.is_file() and os.access(path, os.R_OK):
                yield path
                break
        words = words[count:]


def in_our_home(path: Path) -> Path:
    """`ssh -G` expands `~` and `%d` here to the home of the user database; ours is HOME."""
    home, login_home = Path.home(), _login_home()
    if home == login_home or path.is_relative_to(home) or not path.is_relative_to(login_home):
        return path
    return home / path.relative_to(login_home)


def _existing(paths: Iterator[Path]) -> Iterator[Path]:
    return (path for path in dict.fromkeys(paths) if path.is_file() and os.access(path, os.R_OK))


def _expanded(text: str, target: Target) -> Path:
    return Path(os.path.expandvars(_with_tokens(text, target, target.host))).expanduser()


def _with_tokens(text: str, target: Target, original_host: str) -> str:
    tokens = {
        "%": "%",
        "h": target.host,
        "n": original_host,
        "k": target.host_key_alias or target.host,
        "p": str(target.port),
        "r": target.user,
        "u": pwd.getpwuid(os.getuid()).pw_name,
        "d": str(Path.home()),
        "i": str(os.getuid()),
        "l": os.uname().nodename,
        "L": os.uname().nodename.partition(".")[0],
    }
    return re.sub(r"%(.)", lambda match: tokens.get(match[1], match[0]), text)


def _agent(text: str | None, target: Target) -> str | None:
    if text == "none":
        return None
    if text in (None, "SSH_AUTH_SOCK"):
        return os.environ.get("SSH_AUTH_SOCK") or None
    assert text is not None
    return str(_expanded(text, target))


def _login_home() -> Path:
    return Path(pwd.getpwuid(os.getuid()).pw_dir)


def ask_asyncssh(name: str, address: Address) -> Options:
    """Return the same where there is no `ssh`. Raises ConfigurationError for lines that asyncssh cannot read."""
    import asyncssh  # noqa: PLC0415 - 300 ms, and only on machines without ssh

    try:
        config = asyncssh.SSHClientConnectionOptions(
            host=address.host,
            port=address.port or (),
            username=address.user or (),
            config=[str(config_path())] if config_path().is_file() else None,
            known_hosts=b"",
            client_keys=None,
            client_certs=[],
        ).config
    except asyncssh.ConfigParseError as error:
        raise ConfigurationError(f"{name}: ~/.ssh/config has a line that cannot be read without `ssh`") from error
    options = {key.lower(): _texts(value) for key, value in config.get_options(reload=False).items()}
    options.setdefault("identityfile", [str(Path.home() / ".ssh" / key) for key in _DEFAULT_KEYS])
    options.setdefault("userknownhostsfile", [str(Path.home() / ".ssh" / "known_hosts")])
    options.setdefault("globalknownhostsfile", list(_GLOBAL_KNOWN_HOSTS))
    return options


def _texts(value: object) -> list[str]:
    values: Sequence[object] = value if isinstance(value, list) else [value]
    return [{"True": "yes", "None": "none"}.get(str(one), str(one)) for one in values]

"""Whether a build suits a host, and what to do where none does. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from remote_dispatch.setup.build import Build

if TYPE_CHECKING:
    from remote_dispatch.setup.build import Libc, System

_SYSTEMS: dict[str, System] = {"Linux": "Linux", "Darwin": "Darwin"}
_MACHINES = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}
_LOADERS = {
    ("x64", "glibc"): "/lib64/ld-linux-x86-64.so.2",
    ("x64", "musl"): "/lib/ld-musl-x86_64.so.1",
    ("arm64", "glibc"): "/lib/ld-linux-aarch64.so.1",
    ("arm64", "musl"): "/lib/ld-musl-aarch64.so.1",
}
_INSTALLERS = {
    "npm": "npm install -g opencode-ai",
    "bun": "bun install -g opencode-ai",
    "pnpm": "pnpm install -g opencode-ai",
    "yarn": "yarn global add opencode-ai",
    "brew": "brew install anomalyco/tap/opencode",
    "pacman": "sudo pacman -S opencode",
    "curl": "curl -fsSL https://opencode.ai/install | bash",
}
"""As OpenCode's own documentation and downloads page have them, the least surprising first."""


@dataclass(frozen=True, slots=True)
class HostSystem:
    """What a host is, in its own words: `uname -s` and `uname -m`, its C library and its loaders."""

    system: str
    machine: str
    libc: Libc | None = None
    glibc: tuple[int, int] | None = None
    loaders: frozenset[str] = frozenset()
    has_avx2: bool | None = None
    """None where that could not be learned, or means nothing."""
    installers: tuple[str, ...] = ()
    """Package managers and downloaders that it has."""

    @property
    def wanted(self) -> Build | None:
        """The kind of build that OpenCode has for it; None when it has none."""
        system, machine = _SYSTEMS.get(self.system), _MACHINES.get(self.machine)
        if system is None or machine is None:
            return None
        return Build(system, machine, _LOADERS[machine, self.libc or "glibc"] if system == "Linux" else None)

    def __str__(self) -> str:
        return str(self.wanted or f"{self.system} {self.machine}")


def misfit(build: Build, host: HostSystem) -> str | None:
    """Say why a build cannot run on a host, as a part of a sentence; None when nothing speaks against it.

    Of AVX2 nothing is said here: whether a build needs it is not in its header.
    """
    wanted = host.wanted
    if wanted is None or (build.system, build.machine) != (wanted.system, wanted.machine):
        return f"it is built for {build}, and the host is {host}"
    if build.loader is None:
        return None
    if host.libc and build.libc != host.libc:
        return f"it is built for {build.libc}, and the host has {host.libc}"
    if build.loader not in host.loaders:
        return f"it needs `{build.loader}`, which the host does not have"
    if build.glibc and host.glibc and build.glibc > host.glibc:
        return f"it needs glibc {_version(build.glibc)}, and the host has {_version(host.glibc)}"
    return None


def cure(name: str, host: HostSystem) -> str:
    """Say how OpenCode gets on a host to which none of this machine's builds can be copied."""
    commands = [f"`{_INSTALLERS[one]}`" for one in _INSTALLERS if one in host.installers]
    there = " or ".join(commands[:2]) or "OpenCode's own installer, once it has `curl` or `npm`"
    if host.wanted is None:
        return f"OpenCode publishes no build for {host}"
    return (
        f"run {there} on the host; or get the build for {host} (`{host.wanted.package}`), and send it with "
        f"`remote-dispatch hosts setup {name} --binary FILE`"
    )


def _version(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))

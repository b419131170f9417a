from __future__ import annotations

import pytest

from remote_dispatch.setup.build import Build
from remote_dispatch.setup.fit import HostSystem, cure, misfit
from tests.setup.programs import GLIBC_ARM64, GLIBC_X64, MUSL_X64

DEBIAN = HostSystem("Linux", "x86_64", "glibc", (2, 36), frozenset({GLIBC_X64}))
ALPINE = HostSystem("Linux", "x86_64", "musl", None, frozenset({MUSL_X64}))
ALPINE_WITH_GCOMPAT = HostSystem("Linux", "x86_64", "musl", None, frozenset({MUSL_X64, GLIBC_X64}))
OLD_DEBIAN = HostSystem("Linux", "x86_64", "glibc", (2, 12), frozenset({GLIBC_X64}))
PI = HostSystem("Linux", "aarch64", "glibc", (2, 36), frozenset({GLIBC_ARM64}))
PI_OF_32_BITS = HostSystem("Linux", "aarch64", "glibc", (2, 31), frozenset())
NIXOS = HostSystem("Linux", "x86_64", "glibc", (2, 38), frozenset())
MAC = HostSystem("Darwin", "arm64")
BSD = HostSystem("FreeBSD", "amd64")

GLIBC = Build("Linux", "x64", GLIBC_X64, (2, 17))
MUSL = Build("Linux", "x64", MUSL_X64)
STATIC = Build("Linux", "x64")
ARM = Build("Linux", "arm64", GLIBC_ARM64, (2, 25))
MACH = Build("Darwin", "arm64")


@pytest.mark.parametrize(
    ("build", "host"), [(GLIBC, DEBIAN), (STATIC, DEBIAN), (STATIC, ALPINE), (MUSL, ALPINE), (ARM, PI), (MACH, MAC)]
)
def test_a_build_of_the_same_kind_suits(build: Build, host: HostSystem) -> None:
    assert misfit(build, host) is None


@pytest.mark.parametrize(
    ("build", "host", "why"),
    [
        (GLIBC, PI, "it is built for Linux x64, glibc, and the host is Linux arm64, glibc"),
        (GLIBC, MAC, "it is built for Linux x64, glibc, and the host is macOS arm64"),
        (MACH, DEBIAN, "it is built for macOS arm64, and the host is Linux x64, glibc"),
        (GLIBC, ALPINE, "it is built for glibc, and the host has musl"),
        (GLIBC, ALPINE_WITH_GCOMPAT, "it is built for glibc, and the host has musl"),
        (MUSL, DEBIAN, "it is built for musl, and the host has glibc"),
        (GLIBC, OLD_DEBIAN, "it needs glibc 2.17, and the host has 2.12"),
        (ARM, PI_OF_32_BITS, f"it needs `{GLIBC_ARM64}`, which the host does not have"),
        (GLIBC, NIXOS, f"it needs `{GLIBC_X64}`, which the host does not have"),
        (GLIBC, BSD, "it is built for Linux x64, glibc, and the host is FreeBSD amd64"),
    ],
)
def test_a_build_of_another_kind_is_refused_with_the_reason(build: Build, host: HostSystem, why: str) -> None:
    assert misfit(build, host) == why


@pytest.mark.parametrize(
    ("host", "package"),
    [(PI, "opencode-linux-arm64"), (ALPINE, "opencode-linux-x64-musl"), (MAC, "opencode-darwin-arm64")],
)
def test_the_cure_names_the_build_that_suits_and_the_command_that_sends_it(host: HostSystem, package: str) -> None:
    text = cure("pi", host)

    assert f"`{package}`" in text
    assert "`remote-dispatch hosts setup pi --binary FILE`" in text


def test_the_cure_names_package_managers_that_the_host_has() -> None:
    text = cure("pi", HostSystem("Darwin", "arm64", installers=("curl", "brew")))

    assert "`brew install anomalyco/tap/opencode` or `curl -fsSL https://opencode.ai/install | bash`" in text
    assert "npm" not in text


def test_for_a_system_without_builds_nothing_is_recommended() -> None:
    assert cure("pi", BSD) == "OpenCode publishes no build for FreeBSD amd64"

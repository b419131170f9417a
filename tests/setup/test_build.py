from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from remote_dispatch.setup.build import Build, read_build, runs_without_avx2
from tests.setup.programs import (
    ARM64,
    GLIBC_ARM64,
    GLIBC_X64,
    MUSL_X64,
    X64,
    linked_program,
    mach_program,
    tiny_program,
)


def build_of(tmp_path: Path, content: bytes) -> Build | None:
    path = tmp_path / "program"
    path.write_bytes(content)
    return read_build(path)


def test_a_program_linked_with_glibc_says_which_version_it_needs(tmp_path: Path) -> None:
    content = linked_program(X64, GLIBC_X64, "libc.so.6", "GLIBC_2.2.5", "GLIBC_2.17", "GLIBC_2.9")

    build = build_of(tmp_path, content)

    assert build == Build("Linux", "x64", GLIBC_X64, (2, 17))
    assert (build.libc, str(build), build.package) == ("glibc", "Linux x64, glibc", "opencode-linux-x64")


def test_a_program_linked_with_musl_is_told_from_one_linked_with_glibc(tmp_path: Path) -> None:
    build = build_of(tmp_path, linked_program(X64, MUSL_X64, "libc.musl-x86_64.so.1"))

    assert build == Build("Linux", "x64", MUSL_X64, None)
    assert (build.libc, build.package) == ("musl", "opencode-linux-x64-musl")


def test_the_processor_is_read(tmp_path: Path) -> None:
    build = build_of(tmp_path, linked_program(ARM64, GLIBC_ARM64, "GLIBC_2.25"))

    assert build == Build("Linux", "arm64", GLIBC_ARM64, (2, 25))


def test_a_static_program_needs_no_library(tmp_path: Path) -> None:
    build = build_of(tmp_path, tiny_program())

    assert build == Build("Linux", "x64", None, None)
    assert build.libc is None


@pytest.mark.parametrize(("number", "machine"), [(0x0100000C, "arm64"), (0x01000007, "x64")])
def test_a_program_of_macos_is_known(tmp_path: Path, number: int, machine: str) -> None:
    build = build_of(tmp_path, mach_program(number))

    assert build == Build("Darwin", machine)
    assert str(build) == f"macOS {machine}"


@pytest.mark.parametrize(
    "content", [b"", b"#!/usr/bin/env node\n", b"MZ\x90", b"PK\x03\x04", b"\x7fELF\x01\x01" + bytes(99)]
)
def test_what_is_no_program_of_ours_is_none(tmp_path: Path, content: bytes) -> None:
    assert build_of(tmp_path, content) is None


@example(400, [(37, 16)])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.integers(0, 400), st.lists(st.tuples(st.integers(0, 399), st.integers(0, 255)), max_size=6))
def test_a_damaged_header_is_read_or_refused_and_never_a_crash(
    tmp_path: Path, length: int, changes: list[tuple[int, int]]
) -> None:
    content = bytearray(linked_program(X64, GLIBC_X64, "GLIBC_2.17")[:length])
    for place, value in changes:
        if place < len(content):
            content[place] = value

    build = build_of(tmp_path, bytes(content))

    assert build is None or build.system in ("Linux", "Darwin")


def test_this_machines_own_programs_are_read(tmp_path: Path) -> None:
    build = read_build(Path("/bin/sh").resolve())

    assert build is not None
    assert build.loader is None or Path(build.loader).exists()


def test_a_baseline_build_says_so_itself(tmp_path: Path) -> None:
    path = tmp_path / "program"

    path.write_bytes(b"x" * 5000 + b"/bun-linux-x64-baseline.zip" + b"bun-darwin-x64-baseline")
    assert runs_without_avx2(path)

    path.write_bytes(b"x" * 5000 + b"/bun-linux-x64.zip" + b"bun-linux-x64-baseline")
    assert not runs_without_avx2(path)

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from remote_dispatch.errors import HostNotReadyError, UsageError
from remote_dispatch.setup.here import candidates, given
from tests.setup.programs import GLIBC_X64, MUSL_X64, X64, linked_program, put, tiny_program

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = b'#!/usr/bin/env node\nconst name = "opencode"\n'


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def environment(home: Path, *path: Path) -> dict[str, str]:
    return {"HOME": str(home), "PATH": ":".join(map(str, path)) or "/nowhere"}


def test_the_program_in_the_path_is_meant(home: Path, tmp_path: Path) -> None:
    program = put(tmp_path / "bin/opencode", tiny_program())

    (found,) = candidates(environment(home, program.parent))

    assert (found.path, found.size) == (program, program.stat().st_size)


def test_a_link_is_followed_to_the_program(home: Path, tmp_path: Path) -> None:
    program = put(tmp_path / "lib/opencode-ai/bin/opencode.exe", tiny_program())
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/opencode").symlink_to(program)

    assert candidates(environment(home, tmp_path / "bin"))[0].path == program


def test_behind_the_launcher_of_npm_its_builds_are_found(home: Path, tmp_path: Path) -> None:
    modules = tmp_path / "lib/node_modules"
    launcher = put(modules / "opencode-ai/bin/opencode", SCRIPT)
    glibc = put(modules / "opencode-linux-x64/bin/opencode", linked_program(X64, GLIBC_X64))
    musl = put(modules / "opencode-ai/node_modules/opencode-linux-x64-musl/bin/opencode", linked_program(X64, MUSL_X64))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/opencode").symlink_to(launcher)

    found = candidates(environment(home, tmp_path / "bin"))

    assert {one.path: one.build.libc for one in found} == {glibc: "glibc", musl: "musl"}


def test_a_script_that_names_the_program_leads_to_it_and_not_to_its_interpreter(home: Path, tmp_path: Path) -> None:
    program = put(tmp_path / "opt/opencode.exe", tiny_program())
    inner = put(tmp_path / "libexec/opencode", f'#!/bin/sh\nX=1 exec "{program}" "$@"\n'.encode())
    put(tmp_path / "bin/opencode", f'#!/bin/sh\nexec {inner} "$@"\n'.encode())

    assert [one.path for one in candidates(environment(home, tmp_path / "bin"))] == [program]


def test_the_shim_of_a_version_manager_is_never_taken_for_opencode(home: Path, tmp_path: Path) -> None:
    manager = put(tmp_path / "manager", tiny_program())
    installed = put(home / ".opencode/bin/opencode", tiny_program("1.0.0"))
    (tmp_path / "shims").mkdir()
    (tmp_path / "shims/opencode").symlink_to(manager)

    assert [one.path for one in candidates(environment(home, tmp_path / "shims"))] == [installed]


def test_a_script_with_no_program_behind_it_is_an_error_that_names_the_option(home: Path, tmp_path: Path) -> None:
    put(tmp_path / "bin/opencode", SCRIPT)

    with pytest.raises(HostNotReadyError, match="is a script") as raised:
        candidates(environment(home, tmp_path / "bin"))

    assert "--binary FILE" in (raised.value.hint or "")


@pytest.mark.parametrize("content", [SCRIPT, b"PK\x03\x04 an archive", b""])
def test_a_named_file_that_is_no_program_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UsageError, match="is not a program of Linux or macOS"):
        given(put(tmp_path / "opencode", content))


def test_a_named_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        given(tmp_path / "missing")

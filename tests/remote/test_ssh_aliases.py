"""Which words behind `Host` are aliases. Where it can, a test asks the real `ssh` whether it reads the same."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.remote.ssh_aliases import MAX_BYTES, aliases, names

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def ssh(client_home: Path) -> Path:
    directory = client_home / ".ssh"
    directory.mkdir(mode=0o700)
    return directory


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


def test_without_a_configuration_there_are_no_aliases(client_home: Path) -> None:
    assert aliases() == frozenset()


def test_several_names_on_a_line_are_aliases_in_their_order(ssh: Path) -> None:
    write(ssh / "config", "Host zeta alpha\nHost mid zeta\n")
    assert names().aliases == ("zeta", "alpha", "mid")


def test_patterns_and_negations_are_no_aliases(ssh: Path) -> None:
    write(ssh / "config", "Host lab *.lan node?? !secret *\n")
    assert names().aliases == ("lab",)
    assert names().patterns == ("*.lan", "node??")


@pytest.mark.parametrize(
    ("word", "is_covered"),
    [("lab", True), ("x.lan", True), ("node12", True), ("NODE12", False), ("node1", False), ("other", False)],
)
def test_a_word_is_covered_by_a_name_or_a_pattern_but_not_by_everything(ssh: Path, word: str, is_covered: bool) -> None:
    write(ssh / "config", "Host lab *.lan node??\nHost *\n  User me\n")
    assert names().covers(word) is is_covered


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("Host lab # a comment", ["lab"]),
        ("Host lab#1", ["lab#1"]),
        ("host=lab", ["lab"]),
        ("HOST = lab", ["lab"]),
        ("\tHost\tlab\tpi", ["lab", "pi"]),
        ("Host lab\r", ["lab"]),
        ('Host "lab" pi', ["lab", "pi"]),
        ("Host 'lab'", ["lab"]),
        ('Host la"b"', ["lab"]),
        ("# Host lab", []),
        ("HostName lab", []),
        ("Hostlab", []),
    ],
)
def test_a_line_is_read_as_ssh_reads_it(ssh: Path, line: str, found: list[str]) -> None:
    write(ssh / "config", f"{line}\n  Port 2345\n" if found else f"{line}\n")
    assert names().aliases == tuple(found)
    if program := shutil.which("ssh"):
        for alias in found:
            assert "port 2345" in asked(program, ssh, alias)


def test_a_quoted_blank_stays_in_the_word(ssh: Path) -> None:
    write(ssh / "config", 'Host "build box" back\\ slash\n')
    assert names().aliases == ("build box", "back slash")


@pytest.mark.parametrize("line", ['Host "open quote', "Host 'open quote", 'Host lab "'])
def test_a_line_that_ssh_refuses_has_no_aliases(ssh: Path, line: str) -> None:
    write(ssh / "config", f"{line}\nHost pi\n")
    assert names().aliases == ("pi",)
    if program := shutil.which("ssh"):
        assert "port " not in asked(program, ssh, "pi")


def test_included_files_are_read_in_place_relative_names_from_the_directory_of_ssh(ssh: Path) -> None:
    write(ssh / "config", "Host first\nInclude conf.d/*.conf ~/other\nHost last\n")
    write(ssh / "conf.d" / "b.conf", "Host b\n")
    write(ssh / "conf.d" / "a.conf", "Host a\nInclude deeper\n")
    write(ssh / "conf.d" / ".hidden.conf", "Host hidden\n")
    write(ssh / "conf.d" / "a.txt", "Host text\n")
    write(ssh / "deeper", "Host deep\n")
    write(ssh.parent / "other", "Host other\n")
    assert names().aliases == ("first", "a", "deep", "b", "other", "last")


def test_an_included_name_may_be_quoted_absolute_missing_or_a_variable(
    ssh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORK_CONFIG", "work")
    write(ssh / "config", f'Include "with blank" {ssh}/absolute missing ${{WORK_CONFIG}}\n')
    for name in ("with blank", "absolute", "work"):
        write(ssh / name, f"Host {name.split()[0]}\n")
    assert names().aliases == ("with", "absolute", "work")


def test_a_match_block_and_what_it_includes_are_left_out(ssh: Path) -> None:
    write(ssh / "config", "Match host y exec true\n  Include work\nHost lab\nMatch all\n  Include always\n")
    write(ssh / "work", "Host work\n")
    write(ssh / "always", "Host always\n")
    assert names().aliases == ("lab", "always")


def test_files_that_include_themselves_or_each_other_are_read_once(ssh: Path) -> None:
    write(ssh / "config", "Host lab\nInclude config other other\n")
    write(ssh / "other", "Include config other *\nHost pi\n")
    assert set(names().aliases) == {"lab", "pi"}


def test_files_that_are_directories_or_huge_do_no_harm(ssh: Path) -> None:
    write(ssh / "config", "Include here huge\nHost lab\n")
    (ssh / "here").mkdir()
    write(ssh / "huge", "#" * (MAX_BYTES + 10) + "\nHost late\n")
    assert names().aliases == ("lab",)


def asked(program: str, ssh: Path, alias: str) -> str:
    argv = [program, "-F", str(ssh / "config"), "-G", "--", alias]
    return subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, check=False
    ).stdout

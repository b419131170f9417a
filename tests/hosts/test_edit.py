"""Adding a host: the user's file stays as it was but for one entry, or stays as it was."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.errors import ConfigurationError, RemoteDispatchError, UsageError
from remote_dispatch.hosts import add
from remote_dispatch.hosts.schema import installed_reference
from tests.hosts.test_registry import BAD_ADDRESSES, BAD_NAMES, THREE_FORMS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.hosts.conftest import Home


def names_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_first_host_makes_a_private_file(home: Home) -> None:
    file = add(home.registry().places, "lab", "me@lab.lan", agent="build", port=None)
    assert file == home.directory / "hosts.jsonc"
    assert (mode(file), mode(file.parent)) == (0o600, 0o700)
    assert file.read_text() == (
        f'{{\n  "$schema": "{installed_reference()}",\n  "hosts": {{\n'
        '    "lab": { "host": "me@lab.lan", "agent": "build" }\n  }\n}\n'
    )
    assert home.registry()["lab"].agent == "build"


def test_comments_order_and_formatting_stay(home: Home) -> None:
    file = home.write(THREE_FORMS)
    add(home.registry().places, "new", "me@new.lan", port=22)
    before, after = THREE_FORMS, file.read_text()
    line = '    "new": { "host": "me@new.lan", "port": 22 }'
    assert after == before.replace('opencode" } } }', f'opencode" }},\n{line} }} }}')
    assert home.registry().names == ("dev", "lab", "new", "pi")


NEW = '"new": { "host": "u@h" }'


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("{}", '{\n  "hosts": { %s }\n}'),
        ('{"hosts":{}}', '{"hosts":{\n  %s\n}}'),
        ('{\n\t"hosts": {\n\t}\n}', '{\n\t"hosts": {\n\t\t%s\n\t}\n}'),
        ('{"hosts": {"a": "b"}}', '{"hosts": {"a": "b", %s}}'),
        ('{"hosts": {"a": "b",}}', '{"hosts": {"a": "b", %s,}}'),
        ('{"hosts": {\n  "a": "b"\n}}', '{"hosts": {\n  "a": "b",\n  %s\n}}'),
        ('{"hosts": {\n  "a": "b", // x\n  // y\n}}', '{"hosts": {\n  "a": "b", // x\n  %s,\n  // y\n}}'),
        ('{"hosts": {\n  "a": "b" // x\n}}', '{"hosts": {\n  "a": "b", // x\n  %s\n}}'),
        ('{"hosts": {\n  "a": "b" /* x\n y */ }}', '{"hosts": {\n  "a": "b",\n  %s /* x\n y */ }}'),
        ('{"hosts": {\n  "a": "b" /* , } */ }}', '{"hosts": {\n  "a": "b", /* , } */\n  %s }}'),
        ('{"hosts": { // x\n} }', '{"hosts": { // x\n  %s\n} }'),
        ('{"hosts": {\r\n  "a": "b"\r\n}}', '{"hosts": {\r\n  "a": "b",\r\n  %s\r\n}}'),
        ('{"$schema": "x" // }\n}', '{"$schema": "x", "hosts": { %s } // }\n}'),
    ],
)
def test_a_host_finds_its_place_in_every_style(home: Home, before: str, after: str) -> None:
    file = home.write(before)
    add(home.registry().places, "new", "u@h")
    assert file.read_bytes().decode() == after % NEW
    assert home.registry()["new"].host == "u@h"
    assert home.registry().problems == ()


def test_the_jsonc_is_edited_before_the_json(home: Home) -> None:
    home.write("{}", "hosts.json")
    assert add(home.registry().places, "a", "x").name == "hosts.json"
    home.write("{}", "hosts.jsonc")
    assert add(home.registry().places, "b", "x").name == "hosts.jsonc"


def test_a_named_file_is_made_and_edited_alone(home: Home) -> None:
    given = home.path / "deep" / "mine.json"
    add(home.registry(hosts_file=given).places, "a", "x")
    assert home.registry(hosts_file=given).names == ("a",)
    assert not home.directory.exists()


@pytest.mark.parametrize("permissions", [0o600, 0o640, 0o644])
def test_the_mode_of_a_file_stays(home: Home, permissions: int) -> None:
    file = home.write("{}")
    file.chmod(permissions)
    add(home.registry().places, "a", "x")
    assert mode(file) == permissions


def test_a_symlink_stays_and_its_target_is_edited(home: Home, tmp_path: Path) -> None:
    target = home.write('{"hosts": {}}', "dotfiles.json", at=tmp_path)
    home.directory.mkdir(parents=True)
    link = home.directory / "hosts.jsonc"
    link.symlink_to(target)
    add(home.registry().places, "a", "x")
    assert link.is_symlink()
    assert '"a"' in target.read_text()
    assert names_in(home.directory) == ["hosts.jsonc"]


def test_a_taken_name_is_refused_with_its_place(home: Home) -> None:
    file = home.write('{"hosts": {\n"lab": "me@10.0.0.5", "bad": 7}}')
    for name, word in (("lab", ":2)"), ("bad", ":2)"), ("Lab", "only in case")):
        with pytest.raises(UsageError) as caught:
            add(home.registry().places, name, "x")
        assert word in caught.value.message
        assert "10.0.0.5" not in caught.value.message
    assert file.read_text() == '{"hosts": {\n"lab": "me@10.0.0.5", "bad": 7}}'


@pytest.mark.parametrize(
    ("name", "address", "fields"),
    [
        *((name, "u@h", {}) for name in BAD_NAMES),
        *(("new", address, {}) for address in BAD_ADDRESSES),
        ("new", "u@h", {"port": 0}),
        ("new", "u@h:22", {"port": 23}),
        ("new", "u@h", {"model": "x"}),
        ("new", "u@h", {"permissions": "all"}),
        ("new", "u@h", {"directory": "a\nb"}),
        ("new", "u@h", {"unknown": "x"}),
    ],
)
def test_bad_input_changes_nothing(home: Home, name: str, address: str, fields: dict[str, object]) -> None:
    file = home.write('{"hosts": {}} // mine')
    before = file.stat()
    with pytest.raises(UsageError) as caught:
        add(home.registry().places, name, address, **fields)
    assert caught.value.message.isprintable()
    assert "10.0.0.5" not in caught.value.message
    assert (file.read_text(), file.stat().st_ino) == ('{"hosts": {}} // mine', before.st_ino)


@pytest.mark.parametrize("content", ['{"hosts": [1]}', "[]", '{"hosts": {}', '{"hosts": {}, "hosts": {}}', "{} {}"])
def test_a_broken_file_is_not_edited(home: Home, content: str) -> None:
    file = home.write(content)
    with pytest.raises(ConfigurationError, match=r"hosts\.jsonc"):
        add(home.registry().places, "new", "u@h")
    assert file.read_text() == content
    assert names_in(home.directory) == ["hosts.jsonc"]


@pytest.mark.parametrize("obstacle", ["directory", "fifo", "loop"])
def test_what_is_no_file_is_not_edited(home: Home, obstacle: str) -> None:
    home.directory.mkdir(parents=True)
    file = home.directory / "hosts.jsonc"
    if obstacle == "directory":
        file.mkdir()
    elif obstacle == "fifo":
        os.mkfifo(file)
    else:
        file.symlink_to("hosts.jsonc")
    with pytest.raises(RemoteDispatchError):
        add(home.registry().places, "new", "u@h")
    assert names_in(home.directory) == ["hosts.jsonc"]


def test_edits_at_the_same_time_are_all_kept(home: Home) -> None:
    names = [f"h{number}" for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: add(home.registry().places, name, "x"), names))
    assert home.registry().names == tuple(names)

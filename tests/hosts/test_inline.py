"""Hosts in OpenCode's own configuration: a layer of the user's, the last, and as careful as every other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from remote_dispatch.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.hosts.conftest import Home

INLINE = '{"plugin": ["x", ["%s", {"command": ["c"], "hosts": {"lab": "me@inline.lan"}}]]}'


@pytest.mark.parametrize(
    "spec", ["remote-dispatch", "remote-dispatch@0.1.0", "file:///a%20b/remote-dispatch.js", "/a/remote-dispatch.js"]
)
def test_every_spelling_of_the_plugin_may_carry_hosts(home: Home, spec: str) -> None:
    home.write('{"hosts": {"lab": "me@file.lan", "pi": "pi"}}')
    home.write(INLINE % spec, "opencode.json")
    assert home.registry().names == ("lab", "pi")
    assert home.registry()["lab"].host == "me@inline.lan"


@pytest.mark.parametrize("spec", ["remote-dispatch-extra", "@x/remote-dispatch", "./other.js"])
def test_other_plugins_carry_none(home: Home, spec: str) -> None:
    home.write(INLINE % spec, "opencode.json")
    assert home.registry().names == ()


def test_the_later_file_wins(home: Home) -> None:
    for name in ("config.json", "opencode.json", "opencode.jsonc"):
        home.write((INLINE % "remote-dispatch").replace("inline", name), name)
    assert home.registry()["lab"].host == "me@opencode.jsonc.lan"


def test_files_that_the_environment_names_are_read_too(home: Home, tmp_path: Path) -> None:
    home.write(INLINE % "remote-dispatch", "opencode.json")
    home.environment["OPENCODE_CONFIG"] = str(home.write(INLINE % "remote-dispatch", "c.json", at=tmp_path))
    home.environment["OPENCODE_CONFIG_DIR"] = str(tmp_path / "d")
    assert home.registry().origin("lab").file == tmp_path / "c.json"
    home.write(INLINE % "remote-dispatch", "opencode.json", at=tmp_path / "d")
    assert home.registry().origin("lab").file == tmp_path / "d" / "opencode.json"


def test_a_projects_configuration_is_inert(home: Home, tmp_path: Path) -> None:
    home.write(INLINE % "remote-dispatch", "opencode.json", at=tmp_path / "project")
    assert home.registry(project=tmp_path / "project").names == ()


def test_a_given_hosts_file_replaces_them(home: Home, tmp_path: Path) -> None:
    home.write(INLINE % "remote-dispatch", "opencode.json")
    given = home.write('{"hosts": {"pi": "pi"}}', at=tmp_path)
    assert home.registry(hosts_file=given).names == ("pi",)


def test_a_bad_entry_disables_itself(home: Home) -> None:
    text = INLINE.replace('{"lab"', '{\n"bad": {"host": "x", "port": 0}, "lab"')
    home.write(text % "remote-dispatch", "opencode.json")
    registry = home.registry()
    assert registry.names == ("lab",)
    with pytest.raises(ConfigurationError, match=r"opencode\.json:2: host `bad`: `port`"):
        registry["bad"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"plugin": [["remote-dispatch",\n{"hosts": []}]]}', 2),
        ('{"plugin": [["remote-dispatch",\n{"hosts": {]}]]}', 2),
    ],
)
def test_a_broken_configuration_is_a_problem_with_its_line(home: Home, text: str, line: int) -> None:
    home.write(text, "opencode.json")
    assert [problem.line for problem in home.registry().problems] == [line]


def test_a_configuration_without_our_plugin_is_none_of_our_business(home: Home) -> None:
    home.write("{broken", "opencode.json")
    assert home.registry().problems == ()

"""Removing and renaming hosts, in the file in which they count."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from remote_dispatch.errors import ConfigurationError, UnknownNameError, UsageError
from remote_dispatch.hosts import remove, rename
from tests.hosts.test_registry import BAD_NAMES, THREE_FORMS, trusted

if TYPE_CHECKING:
    from pathlib import Path

    from tests.hosts.conftest import Home


def test_a_host_is_removed_with_its_line(home: Home) -> None:
    file = home.write(THREE_FORMS)
    remove(home.registry().places, "pi")
    lines = THREE_FORMS.splitlines(keepends=True)
    assert file.read_text() == "".join(line for line in lines if '"pi"' not in line)
    assert home.registry().names == ("dev", "lab")


def test_a_host_is_renamed_in_its_place(home: Home) -> None:
    file = home.write(THREE_FORMS)
    rename(home.registry().places, "pi", "raspi")
    assert file.read_text() == THREE_FORMS.replace('"pi"', '"raspi"')
    assert home.registry()["raspi"].port == 2222


def test_a_removed_entry_no_longer_hides_the_earlier_one(home: Home) -> None:
    home.write('{"hosts": {"a": "first"}}', "hosts.jsonc")
    later = home.write('{"hosts": {"a": "second"}}', "hosts.json")
    assert remove(home.registry().places, "a") == later
    assert home.registry()["a"].host == "first"


def test_a_bad_entry_and_namesakes_can_be_removed(home: Home) -> None:
    home.write('{"hosts": {"a": 7, "b": "x", "b": "y", "c": "z"}}')
    remove(home.registry().places, "a")
    remove(home.registry().places, "b")
    assert (home.registry().names, home.registry().problems) == (("c",), ())


def test_an_entry_with_a_bad_name_is_cured_by_another_name(home: Home) -> None:
    home.write('{"hosts": {"10.0.0.5": "x", "local": "y"}}')
    rename(home.registry().places, "10.0.0.5", "a")
    rename(home.registry().places, "local", "b")
    assert (home.registry().names, home.registry().problems) == (("a", "b"), ())


@pytest.mark.parametrize("new", [*BAD_NAMES, "b", "B"])
def test_a_bad_or_taken_name_is_refused(home: Home, new: str) -> None:
    file = home.write('{"hosts": {"a": "x", "b": "y"}}')
    with pytest.raises(UsageError) as caught:
        rename(home.registry().places, "a", new)
    assert "10.0.0.5" not in caught.value.message
    assert file.read_text() == '{"hosts": {"a": "x", "b": "y"}}'


def test_a_name_may_change_in_case_alone(home: Home) -> None:
    home.write('{"hosts": {"Lab": "x"}}')
    rename(home.registry().places, "Lab", "lab")
    assert home.registry().names == ("lab",)


def test_an_unknown_name_is_neither_removed_nor_renamed(home: Home) -> None:
    home.write('{"hosts": {"lab": "x"}}')
    with pytest.raises(UnknownNameError, match="no host is named `lba`") as caught:
        remove(home.registry().places, "lba")
    assert caught.value.hint == "did you mean `lab`?"
    with pytest.raises(UnknownNameError, match="no host is named `lba`"):
        rename(home.registry().places, "lba", "c")


def test_an_entry_of_a_trusted_project_is_left_alone(home: Home, tmp_path: Path) -> None:
    file = home.write('{"hosts": {"a": "x"}}', "hosts.json", at=tmp_path / "project")
    places = trusted(home.registry(project=tmp_path / "project").places)
    with pytest.raises(UsageError):
        remove(places, "a")
    with pytest.raises(UsageError):
        rename(places, "a", "b")
    assert file.read_text() == '{"hosts": {"a": "x"}}'


def test_hosts_among_the_plugins_options_are_removed_and_renamed(home: Home) -> None:
    text = '{"plugin": [["remote-dispatch", {"hosts": {"a": "x", "b": "y"}}]]}'
    file = home.write(text, "opencode.jsonc")
    rename(home.registry().places, "a", "c")
    remove(home.registry().places, "b")
    assert file.read_text() == text.replace('"a": "x", "b": "y"', '"c": "x"')


def test_a_broken_file_is_not_touched(home: Home) -> None:
    file = home.write('{"hosts": {"a": "x"')
    with pytest.raises(ConfigurationError):
        remove(home.registry().places, "a")
    assert file.read_text() == '{"hosts": {"a": "x"'

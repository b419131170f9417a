"""Setting and taking out fields: the file in which the entry counts changes, and only to something better."""

from __future__ import annotations

import threading
from collections import UserDict
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.errors import ConfigurationError, RemoteDispatchError, UnknownNameError, UsageError
from remote_dispatch.hosts import Registry, add, add_many, parse_value, set_field, unset_field
from tests.hosts.test_registry import trusted

if TYPE_CHECKING:
    from collections.abc import ItemsView
    from pathlib import Path

    from tests.hosts.conftest import Home

SHORT = '{"hosts": {"a": "me@box.lan"}} // mine'
LONG = '{"hosts": {\n  "a": { "host": "me@box.lan", "port": 22 }, // mine\n  "b": "y"\n}}\n'


def refused(home: Home, name: str, field: str, value: object) -> RemoteDispatchError:
    before = {path: path.read_bytes() for path in home.directory.iterdir()}
    with pytest.raises(RemoteDispatchError) as caught:
        set_field(home.registry().places, name, field, value)
    assert {path: path.read_bytes() for path in home.directory.iterdir()} == before
    return caught.value


def test_a_field_of_a_long_form_is_set(home: Home) -> None:
    file = home.write(LONG)
    assert set_field(home.registry().places, "a", "port", 2222) == file
    set_field(home.registry().places, "a", "agent", "build")
    assert file.read_text() == LONG.replace("22 }", '2222, "agent": "build" }')
    assert home.registry()["a"].agent == "build"


def test_a_short_form_stays_short_for_its_address_and_grows_for_the_rest(home: Home) -> None:
    file = home.write(SHORT)
    set_field(home.registry().places, "a", "host", "me@other.lan")
    assert file.read_text() == SHORT.replace("box", "other")
    set_field(home.registry().places, "a", "env.TOKEN", "x")
    assert file.read_text() == '{"hosts": {"a": { "host": "me@other.lan", "env": { "TOKEN": "x" } }}} // mine'


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("port", "22", 22),
        ("model", "p/m", "p/m"),
        ("env", '{"A": "1"}', {"A": "1"}),
        ("env.A", "{", "{"),
        ("permission_rules", '{"bash": "deny"}', {"bash": "deny"}),
        ("permission_rules.bash", '{"*": "deny"}', {"*": "deny"}),
        ("permission_rules.edit", "allow", "allow"),
        ("directory", "~/src", "~/src"),
        ("server_password_command", '["pass", "show"]', ["pass", "show"]),
    ],
)
def test_a_value_is_read_by_the_type_of_its_field(home: Home, field: str, text: str, value: object) -> None:
    home.write(SHORT)
    assert parse_value(field, text) == value
    set_field(home.registry().places, "a", field, value)
    assert home.registry().problems == ()


@pytest.mark.parametrize(
    ("field", "text"), [("env", "A=1"), ("permission_rules", "me@10.0.0.5"), ("permission_rules.bash", "{1}")]
)
def test_a_value_that_should_be_json_is_refused_and_not_repeated(field: str, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_value(field, text)
    assert "as JSON" in caught.value.message
    assert "10.0.0.5" not in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("prot", "1", "`prot` is no field of a host; did you mean `port`?"),
        ("me@10.0.0.5", "1", "that is no field of a host; known are `host`, `port`"),
        ("port", "x", "whole number"),
        ("port", 0, "whole number"),
        ("host", "u@@10.0.0.5", "user name"),
        ("host", "box:23", "another port"),
        ("model", "m", "provider/id"),
        ("env.A B", "x", "variable names"),
        ("port.x", 1, "no fields of its own"),
        ("env.", "x", "no fields of its own"),
        ("server", "ftp://10.0.0.5", "URL"),
        ("name", "x", "`name` is no field of a host"),
    ],
)
def test_a_wrong_field_or_value_changes_nothing(home: Home, field: str, value: object, word: str) -> None:
    home.write(LONG)
    error = refused(home, "a", field, value)
    assert isinstance(error, UsageError)
    assert word in f"{error.message}; {error.hint}"
    assert "10.0.0.5" not in f"{error.message}; {error.hint}"


def test_a_bad_entry_is_cured_field_by_field(home: Home) -> None:
    home.write('{"hosts": {"a": { "host": "x", "port": "x", "modle": "m", "agent": 7 }}}')
    set_field(home.registry().places, "a", "port", 2222)
    unset_field(home.registry().places, "a", "modle")
    assert [problem.field for problem in home.registry().problems] == ["agent"]
    assert isinstance(refused(home, "a", "port", 0), UsageError)
    set_field(home.registry().places, "a", "agent", "build")
    assert home.registry()["a"].port == 2222


@pytest.mark.parametrize("entry", ["7", "null", "[]", "{}", '{"host": 7}', '"u@@h"', '{"host": "x", "host": "y"}'])
def test_any_entry_is_cured_by_an_address(home: Home, entry: str) -> None:
    home.write(f'{{"hosts": {{"a": {entry}}}}}')
    set_field(home.registry().places, "a", "host", "me@box.lan")
    assert home.registry()["a"].host == "me@box.lan"


def test_an_address_alone_cannot_be_taken_out(home: Home) -> None:
    home.write(SHORT)
    with pytest.raises(UsageError, match="would be no host without it"):
        unset_field(home.registry().places, "a", "host")


def test_half_a_surrogate_pair_in_the_file_stays_as_it_is_written(home: Home) -> None:
    file = home.write('{"hosts": {"a": "u\\ud800"}}')
    set_field(home.registry().places, "a", "port", 22)
    assert file.read_text() == '{"hosts": {"a": { "host": "u\\ud800", "port": 22 }}}'


def test_a_name_that_is_there_twice_is_named_with_its_lines(home: Home) -> None:
    file = home.write('{"hosts": {"a": "x",\n"a": "y"}}')
    error = refused(home, "a", "host", "z")
    assert isinstance(error, ConfigurationError)
    assert error.message == f"this name is there more than once ({file}:1 and {file}:2)"


def test_a_field_is_taken_out(home: Home) -> None:
    file = home.write(LONG)
    unset_field(home.registry().places, "a", "port")
    assert file.read_text() == LONG.replace(', "port": 22', "")


@pytest.mark.parametrize(
    ("field", "message", "hint"),
    [
        ("agent", "host `a` has no `agent`", "it has `host`, `port`"),
        ("prot", "host `a` has no such field", "did you mean `port`?"),
        ("me@10.0.0.5", "host `a` has no such field", "it has `host`, `port`"),
        (
            "host",
            "host `a` would be no host without it: `host` is missing: an address, or an alias of ~/.ssh/config",
            "",
        ),
    ],
)
def test_a_field_that_is_not_there_or_is_needed_is_not_taken_out(
    home: Home, field: str, message: str, hint: str
) -> None:
    file = home.write(LONG)
    with pytest.raises(UsageError) as caught:
        unset_field(home.registry().places, "a", field)
    assert caught.value.message == message
    assert hint in (caught.value.hint or "")
    assert file.read_text() == LONG


def test_the_file_in_which_the_entry_counts_is_edited(home: Home) -> None:
    first = home.write('{"hosts": {"a": "x"}}', "hosts.jsonc")
    second = home.write('{"hosts": {"a": "y"}}', "hosts.json")
    assert set_field(home.registry().places, "a", "host", "z") == second
    assert first.read_text() == '{"hosts": {"a": "x"}}'


def test_hosts_among_the_plugins_options_are_edited_where_they_stand(home: Home) -> None:
    text = '{ "plugin": ["x", ["remote-dispatch", { "hosts": { "a": "x" /* c */ }, "command": ["c"] }]] } // mine\n'
    file = home.write(text, "opencode.json")
    assert set_field(home.registry().places, "a", "port", 22) == file
    assert file.read_text() == text.replace('"x" /*', '{ "host": "x", "port": 22 } /*')
    unset_field(home.registry().places, "a", "port")
    assert file.read_text() == text.replace('"x" /*', '{ "host": "x" } /*')


def test_an_entry_of_a_trusted_project_is_not_edited(home: Home, tmp_path: Path) -> None:
    theirs = home.write('{"hosts": {"a": "x"}}', "hosts.json", at=tmp_path / "project")
    places = trusted(home.registry(project=tmp_path / "project").places)
    with pytest.raises(UsageError) as caught:
        set_field(places, "a", "port", 22)
    assert caught.value.message == f"host `a` stands in a file of a project ({theirs}:1), which is not edited here"
    assert theirs.read_text() == '{"hosts": {"a": "x"}}'


def test_an_unknown_host_gets_suggestions(home: Home) -> None:
    home.write(LONG.replace('"a"', '"lab"'))
    error = refused(home, "lba", "port", 22)
    assert isinstance(error, UnknownNameError)
    assert error.hint == "did you mean `lab`?"


def test_a_byte_order_mark_and_line_ends_stay(home: Home) -> None:
    file = home.write(b'\xef\xbb\xbf{"hosts": {\r\n  "a": "x"\r\n}}\r\n')
    set_field(home.registry().places, "a", "host", "y")
    assert file.read_bytes() == b'\xef\xbb\xbf{"hosts": {\r\n  "a": "y"\r\n}}\r\n'


def test_an_edit_that_would_make_the_file_unreadable_is_refused(home: Home) -> None:
    file = home.write(SHORT)
    with pytest.raises(ConfigurationError, match="larger than 1 MiB"):
        set_field(home.registry().places, "a", "env.A", "x" * (1 << 20))
    assert file.read_text() == SHORT


def test_readers_always_see_a_whole_file_while_others_write(home: Home) -> None:
    home.write(SHORT)
    places = home.registry().places
    seen: list[Any] = []
    is_over = threading.Event()

    def read() -> None:
        while not is_over.is_set():
            registry = Registry.read(places)
            seen.append((registry.problems, "a" in registry))

    reader = threading.Thread(target=read)
    reader.start()
    writers = [
        threading.Thread(target=set_field, args=(places, "a", f"env.V{number}", "x" * 2000)) for number in range(12)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    is_over.set()
    reader.join()
    assert set(seen) == {((), True)}
    env = Registry.read(places)["a"].env
    assert env is not None
    assert sorted(env) == sorted(f"V{number}" for number in range(12))


def test_several_hosts_are_added_at_once_or_not_at_all(home: Home) -> None:
    file = home.write('{"hosts": {"a": "x"}}')
    places = home.registry().places
    for entries in ({"b": "y", "a": "z"}, {"b": "y", "c": "u@@h"}, {"b": "y", "B": "z"}):
        with pytest.raises(UsageError):
            add_many(places, entries)
        assert file.read_text() == '{"hosts": {"a": "x"}}'
    add_many(places, {"b": "y", "c": {"host": "z", "port": 22}})
    assert file.read_text() == '{"hosts": {"a": "x", "b": "y", "c": { "host": "z", "port": 22 }}}'


def test_a_file_that_an_editor_changes_meanwhile_is_not_overwritten(home: Home) -> None:
    file = home.write('{"hosts": {}}')

    class Slow(UserDict[str, str]):
        def items(self) -> ItemsView[str, str]:
            file.write_text(file.read_text() + "// theirs\n")
            return super().items()

    with pytest.raises(ConfigurationError, match="was changed meanwhile"):
        add_many(home.registry().places, Slow(a="x"))
    assert "theirs" in file.read_text()
    assert home.registry().names == ()


def test_a_host_may_have_a_server_alone(home: Home) -> None:
    add(home.registry().places, "a", None, server="http://127.0.0.1:4096")
    assert home.registry()["a"].host is None
    with pytest.raises(UsageError, match="`host` is missing"):
        add(home.registry().places, "b", None)

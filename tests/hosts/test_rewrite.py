"""Every edit of any hosts file: the entry changes as asked, and nothing else is another byte."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from remote_dispatch.hosts.jsonc import Object, parse, plain
from remote_dispatch.hosts.rewrite import with_field, with_hosts, with_name, without_field, without_host

if TYPE_CHECKING:
    from collections.abc import Sequence

    from remote_dispatch.hosts.jsonc import Member

NEW = {"host": "me@new.lan", "port": 22}
NAMES = ("dev", "lab", "pi")

gaps = st.sampled_from(
    ["", "", " ", "\n", "\n    ", "\n\t", "\r\n", " // c ,]}\n", " /* , ] } */ ", "\n\n", "/* \n } */"]
)


@st.composite
def bracketed(draw: st.DrawFn, contents: Sequence[str]) -> str:
    """Members between braces, with white space and comments anywhere, and perhaps a trailing comma."""
    inner = ",".join(draw(gaps) + content + draw(gaps) for content in contents)
    comma = "," if draw(st.booleans()) and contents else ""
    return "{" + inner + comma + draw(gaps) + "}"


@st.composite
def member(draw: st.DrawFn, key: str, value: str) -> str:
    return f"{json.dumps(key)}{draw(gaps)}:{draw(gaps)}{value}"


@st.composite
def entries(draw: st.DrawFn) -> str:
    """What stands behind a name: an address, or an object of fields in any style."""
    if draw(st.booleans()):
        return '"me@box.lan"'
    fields = {"host": '"// box"', "port": "2222", "env": '{"A": "1", /* x */ "B": "}"}'}
    keys = draw(st.lists(st.sampled_from(sorted(fields)), unique=True))
    return draw(bracketed([draw(member(key, fields[key])) for key in keys]))


@st.composite
def files(draw: st.DrawFn, least: int = 0) -> str:
    """A hosts file as somebody may have written it."""
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=least))
    hosts = draw(bracketed([draw(member(name, draw(entries()))) for name in names]))
    members = [draw(member("hosts", hosts))]
    if draw(st.booleans()):
        members.insert(draw(st.integers(0, 1)), draw(member("$schema", '"x"')))
    return draw(gaps) + draw(bracketed(members)) + draw(gaps)


def hosts_of(text: str) -> Object:
    root = parse(text)
    assert isinstance(root, Object)
    found = root.get("hosts")
    assert found
    assert isinstance(found.value, Object)
    return found.value


def first(text: str) -> Member:
    return hosts_of(text).members[0]


def contents(text: str) -> list[tuple[str, object]]:
    return [(one.key, plain(one.value)) for one in hosts_of(text).members]


def around(text: str, one: Member) -> tuple[str, str]:
    return text[: one.value.start], text[one.value.end :]


def bare(text: str) -> str:
    """The text without white space and commas: what must stay when an entry goes."""
    return re.sub(r"[\s,]", "", text)


@given(files())
@example('{"hosts": {"dev": "x" // c\n}}')
@example('{"hosts": {\n  "dev": "x" /* c */ }}')
@example('{"hosts": {}}')
def test_an_entry_is_added_at_the_end_and_the_rest_stays(text: str) -> None:
    after = with_hosts(text, {"new": NEW})
    assert contents(after) == [*contents(text), ("new", NEW)]
    added = hosts_of(after).members[-1]
    assert bare(after[: added.start] + after[added.value.end :]) == bare(text)


@given(files(least=1))
@example('{"hosts": {\n  "dev": "x", // c\n}}')
def test_adding_and_removing_gives_the_file_back_byte_for_byte(text: str) -> None:
    assert without_host(with_hosts(text, {"new": NEW}), "new") == text


def test_adding_to_no_hosts_and_removing_gives_the_file_back() -> None:
    for text in ('{"hosts": {}}', '{\n  "$schema": "x",\n  "hosts": {}\n}\n'):
        assert without_host(with_hosts(text, {"new": NEW}), "new") == text


@given(files(least=1))
@example('{"hosts": {"dev": "x", // c\n"lab": "y" // d\n}}')
def test_an_entry_is_removed_and_every_comment_outside_it_stays(text: str) -> None:
    gone = first(text)
    after = without_host(text, gone.key)
    assert contents(after) == contents(text)[1:]
    assert bare(after) == bare(text[: gone.start] + text[gone.value.end :])


@given(files(least=1))
def test_an_entry_is_renamed_in_its_place_and_nothing_else_changes(text: str) -> None:
    old = first(text)
    after = with_name(text, old.key, 'n"ew')
    assert contents(after) == [('n"ew', plain(old.value)), *contents(text)[1:]]
    assert after == text[: old.start] + '"n\\"ew"' + text[old.start + len(old.key) + 2 :]


@given(files(least=1), st.sampled_from([("agent",), ("port",), ("env", "A"), ("env", "C")]))
def test_a_field_is_set_and_nothing_outside_the_entry_changes(text: str, path: tuple[str, ...]) -> None:
    old = first(text)
    after = with_field(text, old.key, path, "value")
    assert around(after, first(after)) == around(text, old)
    assert contents(after)[1:] == contents(text)[1:]
    before = plain(old.value)
    expected = before if isinstance(before, dict) else {"host": before}
    expected = expected | ({"env": expected.get("env", {}) | {path[1]: "value"}} if path[1:] else {path[0]: "value"})
    assert plain(first(after).value) == expected


@given(files(least=1), st.sampled_from([("host",), ("port",), ("env",), ("env", "A")]))
def test_a_field_is_unset_and_nothing_outside_the_entry_changes(text: str, path: tuple[str, ...]) -> None:
    old = first(text)
    before = plain(old.value)
    if not isinstance(before, dict) or path[0] not in before:
        with pytest.raises(KeyError):
            without_field(text, old.key, path)
        return
    after = without_field(text, old.key, path)
    assert around(after, first(after)) == around(text, old)
    rest = {key: value for key, value in before.items() if key != path[0]}
    assert plain(first(after).value) == (before | {"env": {"B": "}"}} if path[1:] else rest)


@given(files(least=1))
def test_the_address_of_a_short_form_changes_in_its_place(text: str) -> None:
    old = first(text)
    if not isinstance(plain(old.value), str):
        return
    before, behind = around(text, old)
    assert with_field(text, old.key, ("host",), "other") == f'{before}"other"{behind}'


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{"hosts": {\n  "a": "x", // of a\n  "b": "y"\n}}', '{"hosts": {\n  // of a\n  "b": "y"\n}}'),
        ('{"hosts": {\n  "b": "y",\n  "a": "x" // of a\n}}', '{"hosts": {\n  "b": "y"\n  // of a\n}}'),
        ('{"hosts": {\n  // before\n  "a": "x",\n  "b": "y"\n}}', '{"hosts": {\n  // before\n  "b": "y"\n}}'),
        ('{"hosts": {"a": "x", "b": "y"}}', '{"hosts": { "b": "y"}}'),
        ('{"hosts": { "a": "x" }}', '{"hosts": {}}'),
        ('{"hosts": {\r\n  "a": "x",\r\n  "b": "y",\r\n}}', '{"hosts": {\r\n  "b": "y",\r\n}}'),
    ],
)
def test_a_comment_behind_a_removed_entry_is_not_given_to_its_neighbour(before: str, after: str) -> None:
    assert without_host(before, "a") == after


def test_a_variable_is_unset_and_an_empty_object_goes_with_the_last_one() -> None:
    text = '{"hosts": {"a": { "host": "x", "env": { "A": "1", "B": "2" } }}}'
    once = without_field(text, "a", ("env", "A"))
    assert once == '{"hosts": {"a": { "host": "x", "env": { "B": "2" } }}}'
    assert without_field(once, "a", ("env", "B")) == '{"hosts": {"a": { "host": "x" }}}'


def test_a_field_that_is_there_twice_is_there_once_afterwards() -> None:
    text = '{"hosts": {"a": { "port": 1, "host": "x", "port": 2 }}}'
    assert with_field(text, "a", ("port",), 22) == '{"hosts": {"a": { "host": "x", "port": 22 }}}'
    assert without_field(text, "a", ("port",)) == '{"hosts": {"a": { "host": "x" }}}'

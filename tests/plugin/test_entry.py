"""Our entry in any configuration: put in and taken out, nothing else is another byte."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from remote_dispatch.hosts.jsonc import JsoncError, Object, parse, plain
from remote_dispatch.plugin.entry import NEW_TEXT, EntryReceipt, entry_of, with_entry, without_entry

if TYPE_CHECKING:
    from collections.abc import Sequence

SPEC = "file:///data/plugin/remote-dispatch.js"
COMMAND = ("/bin/remote-dispatch",)
SCHEMA = '\n  "$schema": "https://opencode.ai/config.json",'

gaps = st.sampled_from(["", "", " ", "\n", "\n    ", "\n\t", "\r\n", " // c ,]}\n", " /* , ] } */ ", "\n\n"])
items = st.sampled_from(['"a"', '["b", {"x": [1]}]', '"opencode-x@1.2"', '[ "./local.js" ]'])


@st.composite
def bracketed(draw: st.DrawFn, contents: Sequence[str], marks: str) -> str:
    """Contents between two marks, with white space and comments anywhere, and perhaps a trailing comma."""
    inner = ",".join(draw(gaps) + content + draw(gaps) for content in contents)
    comma = "," if draw(st.booleans()) and contents else ""
    return marks[0] + inner + comma + draw(gaps) + marks[1]


@st.composite
def configurations(draw: st.DrawFn) -> str:
    """A configuration that OpenCode would take: with or without `plugin`, in any style."""
    members = draw(st.lists(st.sampled_from(['"a": 1', '"b": {"plugin": []}', '"c": "// x"']), unique=True))
    if draw(st.booleans()):
        listed = draw(st.lists(items, max_size=3, unique=True))
        plugins = draw(bracketed(listed, "[]"))
        members.insert(draw(st.integers(0, len(members))), f'"plugin":{draw(gaps)}{plugins}')
    return draw(gaps) + draw(bracketed(members, "{}")) + draw(gaps)


def installed(text: str) -> tuple[str, EntryReceipt]:
    written = with_entry(text, SPEC, COMMAND)
    assert written
    return written.text, written.receipt


def uninstalled(text: str, receipt: EntryReceipt | None) -> str:
    removed = without_entry(text, SPEC, receipt)
    assert removed
    return removed.text


def value(text: str) -> dict[str, object]:
    root = plain(parse(text))
    assert isinstance(root, dict)
    return root


@settings(deadline=None)
@given(configurations())
@example(NEW_TEXT)
@example('{"plugin": ["remote-dispatch"]}')
@example('{"plugin": [["remote-dispatch", {"hosts": {"lab": "me@lab.lan"}}]]} // c')
def test_out_is_the_way_back_to_the_byte(text: str) -> None:
    after, receipt = installed(text)
    found = entry_of(after, SPEC)
    assert found
    assert found[1] == COMMAND
    assert with_entry(after, SPEC, COMMAND, receipt) is None
    assert uninstalled(after, receipt) == text


@settings(deadline=None)
@given(configurations())
def test_everything_else_means_the_same_while_it_is_in(text: str) -> None:
    before, after = value(text), value(installed(text)[0])
    plugins = after.pop("plugin")
    assert isinstance(plugins, list)
    assert plugins.pop() == [SPEC, {"command": list(COMMAND)}]
    assert plugins == before.pop("plugin", [])
    assert after == before


@settings(deadline=None)
@given(configurations())
def test_opencode_may_add_its_schema_in_between(text: str) -> None:
    """OpenCode 1.18 adds it at its start to a file without one, in an empty one with a comma too many."""

    def started(text: str) -> str:
        return re.sub(r"^\s*\{", lambda _: "{" + SCHEMA, text, count=1)

    after, receipt = installed(text)
    expected = started(text) if value(text) else started(text).replace(SCHEMA, SCHEMA[:-1])
    assert uninstalled(started(after), receipt) == expected


@settings(deadline=None)
@given(configurations(), st.booleans())
def test_what_the_user_added_in_between_stays(text: str, has_receipt: bool) -> None:
    after, receipt = installed(text)
    spelled = f'["{SPEC}"'
    edited = after.replace(spelled, f'"mine", {spelled}', 1)
    plugins = value(uninstalled(edited, receipt if has_receipt else None))["plugin"]
    earlier = value(text).get("plugin", [])
    assert isinstance(earlier, list)
    assert plugins == [*earlier, "mine"]


@pytest.mark.parametrize("name", ["remote-dispatch", "remote-dispatch@0.1.0"])
def test_an_npm_like_entry_becomes_the_files_and_keeps_its_options(name: str) -> None:
    text = f'{{"plugin": ["x", ["{name}", {{"hosts": {{"lab": "lab"}}}}]]}}'
    after, receipt = installed(text)
    assert value(after)["plugin"] == ["x", [SPEC, {"hosts": {"lab": "lab"}, "command": list(COMMAND)}]]
    edited = after.replace('"lab": "lab"', '"lab": "lab", "pi": "pi"')
    assert uninstalled(edited, receipt) == text.replace('"lab": "lab"', '"lab": "lab", "pi": "pi"')


def test_another_command_is_a_change_of_the_command_alone() -> None:
    after, receipt = installed('{"plugin": [] /* mine */}')
    edited = after.replace('{"command"', '{"hosts": {"lab": "lab"}, "command"')
    again = with_entry(edited, SPEC, ["/new"], receipt)
    assert again
    assert again.text == edited.replace("/bin/remote-dispatch", "/new")
    removed = without_entry(again.text, SPEC, again.receipt)
    assert removed
    assert removed.options == {"hosts": {"lab": "lab"}}
    assert value(removed.text) == {"plugin": []}


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("[]", 1, "object"),
        ('{"plugin": []\n"x": 1}', 2, "comma"),
        ('{\n"plugin": "x"}', 2, "not a list"),
        ('{"plugin": [],\n"plugin": []}', 2, "twice"),
    ],
)
def test_what_is_no_configuration_is_refused_with_its_line(text: str, line: int, word: str) -> None:
    with pytest.raises(JsoncError, match=word) as caught:
        with_entry(text, SPEC, COMMAND)
    assert caught.value.line == line


def test_nothing_is_taken_out_where_nothing_is() -> None:
    assert isinstance(parse("{}"), Object)
    assert without_entry("{}", SPEC, None) is None
    assert without_entry('{"plugin": ["x"]}', SPEC, None) is None

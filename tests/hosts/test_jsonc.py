"""The JSONC reader: what it takes, what it refuses, and where it says the fault is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remote_dispatch.hosts import grammar
from remote_dispatch.hosts.jsonc import JsoncError, Object, parse, plain
from remote_dispatch.hosts.nodes import MAX_TOKENS
from remote_dispatch.hosts.reader import read

if TYPE_CHECKING:
    from remote_dispatch.hosts.jsonc import Node

REPOSITORY = Path(__file__).parents[2]

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON_VALUES, st.sampled_from([None, 2]), st.booleans())
def test_whatever_is_json_means_the_same_here(value: object, indent: int | None, is_ascii: bool) -> None:
    assert plain(parse(json.dumps(value, indent=indent, ensure_ascii=is_ascii))) == value


@given(st.text(alphabet="{}[]\",:/*\\\n tfn1.-eu0aN'", max_size=40))
def test_any_text_is_a_value_or_an_error_with_a_line_of_it(text: str) -> None:
    line = 1
    try:
        plain(parse(text))
    except JsoncError as error:
        line = error.line
    assert 1 <= line <= text.count("\n") + 1


def test_comments_and_trailing_commas_are_allowed() -> None:
    assert plain(parse('// a\n{"a": [1, 2,], /* b\n */ "c": {},} // d')) == {"a": [1, 2], "c": {}}


def test_p34_two_slashes_inside_a_text_are_text() -> None:
    text = '{"url": "http://example/x", "b": "/* no comment */", "c": "\\"//"}'
    assert plain(parse(text)) == {"url": "http://example/x", "b": "/* no comment */", "c": '"//'}


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("", 1, "empty"),
        ("// only this\n", 1, "too early"),
        ('{\n"a": 1\n"b": 2}', 3, "comma"),
        ('{\n"a": 1}}', 2, "unexpected `}`"),
        ('{"a":\n[1, , 2]}', 2, "unexpected `,`"),
        ('{\n"a":\nNaN}', 3, "not JSON"),
        ("[Infinity]", 1, "not JSON"),
        ('{\n\n"a": me@example}', 3, "not JSON"),
        ("{'a': 1}", 1, "double quotes"),
        ("{a: 1}", 1, "not JSON"),
        ('{"a": "x\ny"}', 1, "not closed"),
        ('{"a": "\\q"}', 1, "unknown escape"),
        ('{"a": 1 /* open', 1, "comment is not closed"),
        ('{"a": [1, 2', 1, "too early"),
        ("[01]", 1, "comma"),
        ("9" * 5000, 1, "too long"),
    ],
)
def test_an_error_names_the_line_and_the_fault(text: str, line: int, word: str) -> None:
    with pytest.raises(JsoncError, match=word) as caught:
        parse(text)
    assert caught.value.line == line


def test_an_error_repeats_nothing_of_the_text() -> None:
    for text in ('{"a": me@10.0.0.5}', '{"a" "me@10.0.0.5"}', '{"a": "me@10.0.0.5}'):
        with pytest.raises(JsoncError) as caught:
            parse(text)
        assert "10.0.0.5" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[" * 100_000 + "]" * 100_000, "nested"),
        ('{"a":' * 100_000, "nested"),
        ("[" + "1," * 500_000 + "]", "too many"),
        ("[" + "/**/" * 200_000, "too early"),
    ],
)
def test_deep_or_endless_input_ends_at_once(text: str, word: str) -> None:
    with pytest.raises(JsoncError, match=word):
        parse(text)


def test_nodes_know_lines_and_duplicates() -> None:
    root = parse('{\n "a": 1,\n "b": 2,\n "a": 3\n}')
    assert isinstance(root, Object)
    assert [member.line for member in root.members] == [2, 3, 4]
    twice = root.duplicate()
    assert twice is root.members[2]


PIECES = st.sampled_from(
    [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        '"a"',
        '"\\u00e9//"',
        "-0.5e+3",
        "01",
        "true",
        "null",
        "NaN",
        "// x\n",
        "/* * */",
        "\r\n",
    ]
)


@settings(deadline=None)
@given(
    st.text(alphabet="{}[]\",:/*\\\n tfn1.-eu0aN'", max_size=30)
    | st.lists(PIECES, max_size=14).map("".join)
    | JSON_VALUES.map(lambda value: json.dumps(value, indent=1).replace("}", ",/* } */}").replace(" ", " // {\n"))
)
def test_the_quick_reader_and_the_grammar_agree_to_the_offset(text: str) -> None:
    expected: Node | None
    try:
        expected = grammar.parse(text)
    except JsoncError:
        expected = None
    assert read(text) == expected


@pytest.mark.parametrize("count", [49_998, 49_999])
def test_a_hundred_thousand_tokens_are_the_limit(count: int) -> None:
    text = "[" + "1,\n" * count + "0]"
    if 2 * count + 3 <= MAX_TOKENS:
        assert read(text) is not None
    else:
        with pytest.raises(JsoncError, match="too many") as caught:
            read(text)
        assert caught.value.line == count + 1


@pytest.mark.parametrize("text", ["[" * 65 + "]" * 65, "9" * 5000, ""])
def test_the_quick_reader_leaves_what_is_not_plainly_right_to_the_grammar(text: str) -> None:
    assert read(text) is None


def test_a_right_file_is_read_without_the_grammar() -> None:
    program = (
        "import sys; from remote_dispatch.hosts.jsonc import parse; parse('{\"a\": [1], // c\\n}');"
        "print('lark' in sys.modules); exec('try: parse(\"{\")\\nexcept ValueError: print(\"lark\" in sys.modules)')"
    )
    completed = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=20
    )
    assert completed.stdout.split() == ["False", "True"]

"""How JSON with comments changes when a member or an item comes or goes: edits that leave the rest alone."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from remote_dispatch.hosts.jsonc import Array, JsoncError, Object, Scalar, parse, plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from remote_dispatch.hosts.jsonc import Member, Node

_BEFORE_COMMA = re.compile(r"(?:[ \t\r\n]++|//[^\n]*+|/\*(?:[^*]|\*(?!/))*+\*/)*+,")
_GAP = re.compile(r"(?:\r?\n)?[ \t]*\Z")
_BLANKS = re.compile(r"[ \t]*")
_COMMENTS_BEHIND = re.compile(r"(?:[ \t]*/\*(?:[^*\n]|\*(?!/))*+\*/)*+(?:[ \t]*//[^\r\n]*)?")
"""Comments that end on the line on which they begin: they belong to what stands before them."""


@dataclass(frozen=True, slots=True)
class Edit:
    """`text[start:end]` becomes `new`. Offsets are those of the text before any edit."""

    start: int
    end: int
    new: str


def changed(text: str, edits: Sequence[Edit]) -> str:
    """Return the text after these edits, which do not overlap; of two at one place the first comes first."""
    parts: list[str] = []
    done = 0
    for edit in sorted(edits, key=lambda edit: edit.start):
        parts += [text[done : edit.start], edit.new]
        done = edit.end
    return "".join(parts) + text[done:]


def way_back(text: str, edits: Sequence[Edit]) -> tuple[Edit, ...]:
    """Return the edits that turn `changed(text, edits)` into the text again."""
    back: list[Edit] = []
    shift = 0
    for edit in sorted(edits, key=lambda edit: edit.start):
        start = edit.start + shift
        back.append(Edit(start, start + len(edit.new), text[edit.start : edit.end]))
        shift += len(edit.new) - (edit.end - edit.start)
    return tuple(back)


def new_member(text: str, target: Object, key: str, value: object) -> tuple[Edit, ...]:
    """Return the edits that put one more member at the end of an object that `parse` found in the text."""
    return _added(text, target, f"{_dumped(key)}: {_shown(value)}", (key, value))


def new_item(text: str, target: Array, value: object) -> tuple[Edit, ...]:
    """Return the edits that put one more item at the end of an array that `parse` found in the text."""
    return _added(text, target, _dumped(value), value)


def new_value(node: Node, value: object) -> tuple[Edit, ...]:
    """Return the edit that puts another value in place of one that `parse` found."""
    return (Edit(node.start, node.end, _shown(value)),)


def new_key(text: str, member: Member, key: str) -> tuple[Edit, ...]:
    """Return the edit that gives a member that `parse` found in the text another key."""
    _, end = json.JSONDecoder().raw_decode(text, member.start)
    return (Edit(member.start, end, _dumped(key)),)


def removal(text: str, target: Object | Array, index: int, known: Sequence[str] = ()) -> tuple[Edit, ...]:
    """Return the edits that take out one member or item, with its comma and the white space before it.

    A comment behind it stays, on a line of its own. `known` are texts that were put in once: one that still stands
    around it goes as a whole.
    """
    expected = [content for position, content in enumerate(_contents(target)) if position != index]
    for edits in _removals(text, target, index, known):
        if _contents_at(changed(text, edits), target.start) == expected:
            return edits
    raise ValueError("the entry cannot be taken out")


def _removals(text: str, target: Object | Array, index: int, known: Sequence[str]) -> Iterator[tuple[Edit, ...]]:
    slots = _slots(target)
    start, end = slots[index]
    comma = _BEFORE_COMMA.match(text, end)
    commas = [Edit(comma.end() - 1, comma.end(), "")] if comma else []
    if not comma and index and (before := _BEFORE_COMMA.match(text, slots[index - 1][1])):
        commas = [Edit(before.end() - 1, before.end(), "")]
    whole = _span(text, start - len(_gap_before(text, start)), start, end, known)
    with_gap = (whole, *(edit for edit in commas if edit.end <= whole.start or edit.start >= whole.end))
    alone = _alone(text, start, end, commas)
    is_commented = not known and _indent_of(text, start) is not None and _has_comment(text, alone[-1].end)
    yield from (alone, with_gap) if is_commented else (with_gap, alone)


def _alone(text: str, start: int, end: int, commas: Sequence[Edit]) -> tuple[Edit, ...]:
    """Take it out and leave its line, with the comment that stands there."""
    edits = sorted((Edit(start, end, ""), *commas), key=lambda edit: edit.start)
    last = edits.pop()
    blanks = _BLANKS.match(text, last.end)
    return (*edits, Edit(last.start, blanks.end() if blanks else last.end, ""))


def _has_comment(text: str, place: int) -> bool:
    return text.startswith("//", place) or _end_of_comments(text, place) > place


def _end_of_comments(text: str, place: int) -> int:
    found = _COMMENTS_BEHIND.match(text, place)
    return found.end() if found else place


def _added(text: str, target: Object | Array, source: str, content: object) -> tuple[Edit, ...]:
    expected = [*_contents(target), content]
    for edits in _candidates(text, target, source):
        if _contents_at(changed(text, edits), target.start) == expected:
            return edits
    raise ValueError("no place was found for the new entry")


def _candidates(text: str, target: Object | Array, source: str) -> Iterator[tuple[Edit, ...]]:
    newline = "\r\n" if "\r\n" in text else "\n"
    if slots := _slots(target):
        yield from _after_last(text, target, slots[-1], source, newline)
    else:
        yield (_as_first(text, target, source, newline),)


def _after_last(
    text: str, target: Object | Array, last: tuple[int, int], source: str, newline: str
) -> Iterator[tuple[Edit, ...]]:
    """Put it on a line of its own where the others have one, after a comment that ends the last line when that fits."""
    comma = () if target.comma_end is not None else (_insertion(last[1], ","),)
    closing = "" if comma else ","
    end = target.comma_end or last[1]
    indent = _indent_of(text, last[0])
    if indent is None:
        yield (*comma, _insertion(end, f" {source}{closing}"))
        return
    for place in (_line_end(text, end), _end_of_comments(text, end), end):
        yield (*comma, _insertion(place, f"{newline}{indent}{source}{closing}"))


def _as_first(text: str, target: Object | Array, source: str, newline: str) -> Edit:
    inner = text[target.start + 1 : target.end - 1]
    outer = re.match(r"[ \t]*", text[text.rfind("\n", 0, target.start) + 1 :])
    indent = outer[0] if outer else ""
    unit = "\t" if indent.startswith("\t") else "  "
    place = target.start + 1 + len(inner.rstrip())
    closing = "" if "\n" in text[place : target.end] else f"{newline}{indent}"
    return _insertion(place, f"{newline}{indent}{unit}{source}{closing}")


def _span(text: str, begin: int, start: int, end: int, known: Sequence[str]) -> Edit:
    for piece in known:
        inside = piece.find(text[start:end])
        if inside >= 0 and text.startswith(piece, start - inside):
            return Edit(start - inside, start - inside + len(piece), "")
    return Edit(begin, end, "")


def _gap_before(text: str, start: int) -> str:
    gap = _GAP.search(text[max(0, start - 200) : start])
    return gap[0] if gap else ""


def _insertion(place: int, new: str) -> Edit:
    return Edit(place, place, new)


def _slots(target: Object | Array) -> list[tuple[int, int]]:
    if isinstance(target, Object):
        return [(member.start, member.value.end) for member in target.members]
    return [(item.start, item.end) for item in target.items]


def _contents(target: Node) -> list[object]:
    if isinstance(target, Object):
        return [(member.key, plain(member.value)) for member in target.members]
    return [plain(item) for item in target.items] if isinstance(target, Array) else []


def _contents_at(text: str, start: int) -> list[object] | None:
    try:
        root = parse(text)
    except JsoncError:
        return None
    return next((_contents(node) for node in _containers(root) if node.start == start), None)


def _containers(node: Node) -> Iterator[Object | Array]:
    if isinstance(node, Scalar):
        return
    yield node
    inner = node.items if isinstance(node, Array) else tuple(member.value for member in node.members)
    for value in inner:
        yield from _containers(value)


def _indent_of(text: str, start: int) -> str | None:
    """Return what stands before the entry on its line when that is blank, else None."""
    before = text[text.rfind("\n", 0, start) + 1 : start]
    return before if not before.strip() and "\n" in text[:start] else None


def _line_end(text: str, start: int) -> int:
    end = text.find("\n", start)
    end = len(text) if end < 0 else end
    return end - 1 if text[end - 1] == "\r" else end


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_dumped(key)}: {_shown(item)}" for key, item in value.items()) + " }"
    return _dumped(value)


def _dumped(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    is_writable = not any("\ud800" <= letter <= "\udfff" for letter in text)
    return text if is_writable else json.dumps(value)

"""The names behind `Host` in ~/.ssh/config and the files that it includes. Asks no program, and connects nowhere."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_BYTES = 1 << 20
_MOST_FILES = 200
_DEEPEST = 16
"""OpenSSH 9: the depth of Include."""

_DIRECTIVE = re.compile(r"\s*([A-Za-z]+)(?:\s*=\s*|\s+)(.+)")
_WORD = re.compile(r"""\s*+(?!\#)((?:"(?:\\["'\\]|[^"])*+"|'(?:\\["'\\]|[^'])*+'|\\["'\\ ]|[^\s"'])++)""")
_PART = re.compile(r"""\\(["'\\ ])|["']""")
_VARIABLE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Names:
    """What stands behind `Host`: aliases, in the order of the files, and patterns other than `*`."""

    aliases: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()

    def covers(self, word: str) -> bool:
        """Whether the configuration says something of this word in particular. Case counts, as it does in OpenSSH."""
        return word in self.aliases or any(fnmatchcase(word, one.replace("[", "[[]")) for one in self.patterns)


def config_path() -> Path:
    """Return the user's configuration of ssh."""
    return Path.home() / ".ssh" / "config"


def aliases() -> frozenset[str]:
    """Return the names behind `Host`; patterns and negations are left out."""
    return frozenset(names().aliases)


def names() -> Names:
    """Read the configuration. What is included in a `Match` block holds only now and then, and is left out."""
    words = list(dict.fromkeys(_words_of(config_path(), set(), depth=0)))
    patterns = (word for word in words if re.search(r"[*?]", word) and not word.startswith("!") and word.strip("*"))
    return Names(tuple(word for word in words if not re.search(r"[*?!]", word)), tuple(patterns))


def _words_of(file: Path, seen: set[Path], *, depth: int) -> Iterator[str]:
    if file in seen or depth > _DEEPEST or len(seen) > _MOST_FILES:
        return
    seen.add(file)
    is_conditional = False
    for line in _lines(file):
        keyword, words = _directive(line)
        match keyword:
            case "host":
                is_conditional = False
                yield from words
            case "match":
                is_conditional = words != ["all"]
            case "include" if not is_conditional:
                for path in _included(words):
                    yield from _words_of(path, seen, depth=depth + 1)


def _lines(file: Path) -> list[str]:
    if not file.is_file():
        return []
    try:
        with file.open("rb") as opened:
            return opened.read(MAX_BYTES).decode(errors="replace").splitlines()
    except OSError:
        return []


def _included(patterns: Iterable[str]) -> Iterator[Path]:
    """Relative names are those of ~/.ssh; `*` takes no hidden files, as in glob(3)."""
    for pattern in patterns:
        text = _VARIABLE.sub(lambda match: os.environ.get(match[1], match[0]), pattern)
        path = config_path().parent / Path(text).expanduser()
        found = Path(path.anchor).glob(str(path.relative_to(path.anchor)))
        yield from sorted(one for one in found if not one.name.startswith(".") or path.name.startswith("."))


def _directive(line: str) -> tuple[str, list[str]]:
    match = _DIRECTIVE.match(line)
    return (match[1].lower(), _words(match[2])) if match else ("", [])


def _words(text: str) -> list[str]:
    r"""Split as OpenSSH 9 does: quotes, `\` before a quote, a blank or itself, and a word that begins with `#` ends it.

    A line with an open quote has no words: ssh refuses it.
    """
    words: list[str] = []
    place = 0
    while match := _WORD.match(text, place):
        words.append(_PART.sub(lambda part: part[1] or "", match[1]))
        place = match.end()
    rest = text[place:].strip()
    return words if not rest or rest.startswith("#") else []

"""A copy of the user's hosts file that a person edits; it comes back only when nothing in it is wrong."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from remote_dispatch.errors import ConfigurationError
from remote_dispatch.hosts.entries import Problem, parse_hosts_file
from remote_dispatch.hosts.files import UnreadableError, decoded, locked, read_bytes, real, replace_text

if TYPE_CHECKING:
    from remote_dispatch.hosts.layers import Places

_START = '{\n  "hosts": {\n    // "name": "user@host"\n  }\n}\n'


@dataclass(frozen=True, slots=True)
class Draft:
    """The file, what it held when the copy was made (None: it was not there), and the copy as it began."""

    file: Path
    original: bytes | None
    copy: Path
    beginning: bytes

    @property
    def is_changed(self) -> bool:
        """Whether the copy is another text than it was."""
        return self._edited() != self.beginning

    def problems(self) -> tuple[Problem, ...]:
        """Return all that is wrong in the copy as it is now."""
        try:
            text = decoded(self._edited())
        except UnreadableError as error:
            return (Problem(self.copy, None, str(error)),)
        file = parse_hosts_file(self.copy, text)
        return (*file.problems, *(problem for entry in file.entries for problem in entry.problems))

    def keep(self) -> None:
        """Put the copy in the file's place, and remove it.

        Raises ConfigurationError when the copy is wrong, or when somebody else changed the file meanwhile; then the
        file is as it was, and the copy stays.
        """
        if found := self.problems():
            raise ConfigurationError(str(found[0]), hint=f"the file was not changed; your copy is {self.copy}")
        with locked(real(self.file).parent):
            if _content(self.file) != self.original:
                raise ConfigurationError(
                    f"{self.file} was changed by somebody else meanwhile",
                    hint=f"nothing was overwritten; your copy is {self.copy}",
                )
            replace_text(self.file, self._edited().decode())
        self.drop()

    def drop(self) -> None:
        """Remove the copy, and what an editor left beside it."""
        shutil.rmtree(self.copy.parent, ignore_errors=True)

    def _edited(self) -> bytes:
        try:
            return read_bytes(self.copy) or b""
        except UnreadableError as error:
            raise ConfigurationError(f"{self.copy} {error}", hint="the hosts file was not changed") from None


def draft_of(places: Places) -> Draft:
    """Copy the user's hosts file into a private directory; where there is none yet, a beginning of one.

    Raises ConfigurationError for a file that cannot be read. A broken one can be edited: that cures it.
    """
    file = places.target
    original = _content(file)
    beginning = _START.encode() if original is None else original
    copy = Path(tempfile.mkdtemp(prefix="remote-dispatch-")) / file.name
    copy.touch(mode=0o600)
    copy.write_bytes(beginning)
    return Draft(file, original, copy, beginning)


def _content(file: Path) -> bytes | None:
    try:
        return read_bytes(file)
    except UnreadableError as error:
        raise ConfigurationError(f"{file} {error}", hint="nothing was changed") from None

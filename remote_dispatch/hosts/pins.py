"""Which hosts files of projects the user trusts: each by its real path and the SHA-256 of its bytes. Shows nothing."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from remote_dispatch.errors import ConfigurationError
from remote_dispatch.hosts.files import UnreadableError, decoded, locked, read_bytes, read_text, real, replace_text

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE_NAME = "trusted-hosts-files.json"
SCHEMA = 1
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Trust(StrEnum):
    """How the user stands to a project's file."""

    TRUSTED = "trusted"
    CHANGED = "changed"
    """Other bytes were trusted under this path."""
    UNTRUSTED = "untrusted"
    REFUSED = "refused"
    """It can be no hosts file, so nothing of it was read."""


@dataclass(frozen=True, slots=True)
class Pin:
    """What the user agreed to: this path, symlinks followed, as long as it holds these bytes."""

    path: Path
    sha256: str
    trusted_at: datetime


@dataclass(frozen=True, slots=True, repr=False)
class Content:
    """What a project's file held at one moment. Only this text may be used: the file may change at any time."""

    path: Path
    sha256: str
    text: str

    def __repr__(self) -> str:
        return f"Content({str(self.path)!r}, ...)"


def store_path() -> Path:
    """Return the file in which the pins are kept, in this user's data directory."""
    import platformdirs  # noqa: PLC0415 - 20 ms that only a directory with a project's file pays

    return platformdirs.user_data_path("remote-dispatch") / FILE_NAME


def read_content(path: Path, project: Path) -> Content | None:
    """Read a file of a project, or return None when there is none.

    Raises UnreadableError for a symlink that leads out of the project, and for what `read_bytes` refuses.
    """
    target = real(path)
    if not target.is_relative_to(real(project)):
        raise UnreadableError("is a symlink that leads out of the project")
    content = read_bytes(target)
    return None if content is None else Content(target, hashlib.sha256(content).hexdigest(), decoded(content))


def judge(content: Content, pins: Mapping[Path, Pin]) -> Trust:
    """Say how the user stands to this content."""
    pin = pins.get(content.path)
    if pin is None:
        return Trust.UNTRUSTED
    return Trust.TRUSTED if pin.sha256 == content.sha256 else Trust.CHANGED


def read_pins() -> dict[Path, Pin]:
    """Return what is trusted, by path. Raises ConfigurationError when the record of it is broken."""
    path = store_path()
    try:
        text = read_text(path)
        return {} if text is None else _pins_from(text)
    except UnreadableError as error:
        raise ConfigurationError(f"{path} {error}", hint=_hint(path)) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigurationError(f"{path} is not the record that it should be", hint=_hint(path)) from None


def add_pins(contents: Mapping[Path, str]) -> None:
    """Trust these paths with these hashes, all or none. Raises ConfigurationError."""
    now = datetime.now(UTC)
    with locked(store_path().parent):
        _write(read_pins() | {path: Pin(path, sha256, now) for path, sha256 in contents.items()})


def remove_pins(paths: frozenset[Path]) -> None:
    """Forget these paths. Raises ConfigurationError."""
    with locked(store_path().parent):
        _write({path: pin for path, pin in read_pins().items() if path not in paths})


def _pins_from(text: str) -> dict[Path, Pin]:
    record = json.loads(text)
    if record["schema"] != SCHEMA:
        raise ValueError("another schema")
    pins = [_pin(name, fields) for name, fields in record["files"].items()]
    return {pin.path: pin for pin in pins}


def _pin(name: str, fields: Mapping[str, str]) -> Pin:
    path = Path(name)
    if not path.is_absolute() or not _SHA256.fullmatch(fields["sha256"]):
        raise ValueError("no path and hash")
    return Pin(path, fields["sha256"], datetime.fromisoformat(fields["trusted_at"]))


def _write(pins: Mapping[Path, Pin]) -> None:
    files = {
        str(pin.path): {"sha256": pin.sha256, "trusted_at": pin.trusted_at.isoformat(timespec="seconds")}
        for pin in sorted(pins.values(), key=lambda pin: pin.path)
    }
    replace_text(store_path(), json.dumps({"schema": SCHEMA, "files": files}, indent=2) + "\n")


def _hint(path: Path) -> str:
    return f"remove {path}, then trust your projects' hosts files anew with `remote-dispatch hosts trust`"

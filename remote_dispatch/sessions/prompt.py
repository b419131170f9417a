"""What is sent to a session: text, attached files, and the request that can be repeated without running twice."""

from __future__ import annotations

import mimetypes
import secrets
import string
import time
from base64 import b64encode
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from remote_dispatch.errors import UsageError

if TYPE_CHECKING:
    from remote_dispatch.model import Model
    from remote_dispatch.opencode.served import Raw

FILE_LIMIT_BYTES = 5 * 1024 * 1024
"""What is embedded travels with every further prompt of the session."""
REMOTE = "remote:"
_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_PLAIN = "text/plain"
_SHOWN = ("image/png", "image/jpeg", "image/gif", "image/webp", "application/pdf")


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that goes with a prompt. Its content, or where it is on the server, is in the URL."""

    name: str
    mime: str
    url: str = field(repr=False)
    size: int | None = None
    """In bytes; None for a file of the server."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is asked. None leaves to the session what it used last, and to OpenCode what it takes by itself."""

    text: str
    agent: str | None = None
    model: Model | None = None
    variant: str | None = None
    system: str | None = None
    """Added at the end of the system prompt, for this turn."""
    files: tuple[Attachment, ...] = ()


@dataclass(frozen=True, slots=True)
class Sent:
    """A prompt that the session took."""

    message_id: str
    """The user message that it became."""
    prompt: Prompt
    at_s: float
    """When it was sent, on our monotonic clock."""

    def data(self) -> dict[str, Any]:
        """The complete prompt as sent, for people and `--json`; of embedded files the name, not the content."""
        one = self.prompt
        return {
            "message_id": self.message_id,
            "text": one.text,
            "agent": one.agent,
            "model": str(one.model) if one.model else None,
            "variant": one.variant,
            "system": one.system,
            "files": [{"name": file.name, "mime": file.mime, "bytes": file.size} for file in one.files],
        }


def attach(name: str) -> Attachment:
    """Return a local file embedded, or with `remote:PATH` a file or directory that the server reads itself.

    A relative PATH is taken from the session's directory. Raises UsageError for what OpenCode 1.18 cannot hand
    to a model: a part that no provider takes breaks every further prompt of the session.
    """
    if name.startswith(REMOTE):
        return _of_the_server(name.removeprefix(REMOTE))
    content = _content(Path(name))
    mime = _mime(name, content)
    url = f"data:{mime};base64,{b64encode(content).decode()}"
    return Attachment(Path(name).name, mime, url, len(content))


def body_of(prompt: Prompt, message_id: str, directory: str) -> Raw:
    """Return the request: with ids of its own, so that sending it again changes nothing (OpenCode 1.18)."""
    moment = _now()
    parts: list[Raw] = [{"id": new_id("prt", moment), "type": "text", "text": prompt.text}]
    for place, file in enumerate(prompt.files, 1):
        url = file.url if file.size is not None else f"file://{quote(_absolute(file.url, directory))}"
        part = {"type": "file", "mime": file.mime, "filename": file.name, "url": url}
        parts.append({"id": new_id("prt", moment + place), **part})
    body: Raw = {"messageID": message_id, "parts": parts, "agent": prompt.agent, "system": prompt.system}
    body["variant"] = prompt.variant
    if prompt.model:
        body["model"] = {"providerID": prompt.model.provider, "modelID": prompt.model.id}
    return {name: value for name, value in body.items() if value is not None}


def new_id(prefix: str, moment: int | None = None) -> str:
    """Return a random id in OpenCode's form, `msg_` and `prt_` with time and chance.

    OpenCode 1.18 sorts messages by its own clock and parts by their ids: ours may be hours off, and the parts of one
    prompt need ids that ascend.
    """
    ticks = (_now() if moment is None else moment) & 0xFFFFFFFFFFFF
    return f"{prefix}_{ticks:012x}" + "".join(secrets.choice(_DIGITS) for _ in range(14))


def _now() -> int:
    return int(time.time() * 1000) * 4096


def _of_the_server(path: str) -> Attachment:
    if not path or "\0" in path:
        raise UsageError(f"`{REMOTE}` needs a path on the server", hint="write `--attach remote:src/app.py`")
    return Attachment(PurePosixPath(path).name or path, _PLAIN, path)


def _absolute(path: str, directory: str) -> str:
    return str(PurePosixPath(directory, path))


def _content(path: Path) -> bytes:
    """Read a regular file; anything else could keep the command waiting."""
    if path.exists() and not path.is_file():
        raise UsageError(f"`{path.name}` is no file", hint="attach files; name a directory with `remote:PATH`")
    try:
        with path.open("rb") as file:
            content = file.read(FILE_LIMIT_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or "it cannot be read").lower()
        raise UsageError(
            f"`{path}` cannot be attached: {reason}", hint="a file on the server is attached with `remote:PATH`"
        ) from error
    if len(content) > FILE_LIMIT_BYTES:
        raise UsageError(
            f"`{path.name}` is larger than {FILE_LIMIT_BYTES // 1024 // 1024} MB",
            hint="put it on the host, and attach it with `remote:PATH`",
        )
    return content


def _mime(name: str, content: bytes) -> str:
    """OpenCode 1.18 turns plain text into text that any model reads; another text type would go out as a file."""
    guessed, _ = mimetypes.guess_type(name)
    if guessed in _SHOWN:
        return guessed
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UsageError(
            f"`{Path(name).name}` is neither text (UTF-8) nor an image or PDF: no model can read it",
            hint="put it on the host, and say in the prompt where it is",
        )
    return _PLAIN

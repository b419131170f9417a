"""The files that make a run directory before it is launched: what was asked, its values, and what travels."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal

from remote_dispatch.model import DISPATCH_ID, SESSION_ID, Mode, Model
from remote_dispatch.runner import directory as names
from remote_dispatch.runner.scripts import script

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path, PurePosixPath

TOOL_OUTPUT_NAME = re.compile(r"tool_[A-Za-z0-9]+")
_CODE_FILES = {"bundle": names.CODE_BUNDLE, "archive": names.CODE_ARCHIVE}
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Payload:
    """A file as it travels: its bytes, or the path of a local file with the digest of what is in it."""

    content: bytes | Path
    sha256: str

    @classmethod
    def of(cls, content: bytes) -> Payload:
        """Return these bytes as a payload."""
        return cls(content, sha256(content).hexdigest())


@dataclass(frozen=True, slots=True)
class SessionFile:
    """A gzipped transcript, and how many messages and parts the host must have of it afterwards."""

    id: str
    packed: Payload
    messages: int
    parts: int


@dataclass(frozen=True, slots=True)
class Code:
    """The code that travels along.

    `payload` is a bundle whose one ref is `snapshot`, or the archive of its tree. `prefix` is where in the tree the
    conversation was held; `name` that of the tree's directory. `base` is the snapshot's parent, None without one.
    `project` is hex and names the objects that the host keeps: one name for one set of `shallow` lines. `author` stands
    in commits where nobody is named there.
    """

    kind: Literal["bundle", "archive"]
    payload: Payload
    project: str
    snapshot: str
    base: str | None
    branch: str
    name: str
    prefix: PurePosixPath
    shallow: tuple[str, ...] = ()
    author: str = "OpenCode"


@dataclass(frozen=True, slots=True)
class Job:
    """All that the runner needs. `permission` is the JSON object for OPENCODE_PERMISSION.

    `record` is what another machine needs to finish the dispatch (a dispatch's record as JSON data); it is stored in
    `job.json` and not read on the host. `tool_output` maps names `tool_…` to files.
    """

    dispatch_id: str
    session: SessionFile
    mode: Mode
    opencode: PurePosixPath
    directory: PurePosixPath
    model: Model
    agent: str
    brief: str
    variant: str | None = None
    is_auto: bool = False
    is_replacing: bool = False
    is_live: bool = False
    """Whether a server works on the session: the runner starts nothing, and waits to be told of the end."""
    permission: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    children: tuple[SessionFile, ...] = ()
    tool_output: Mapping[str, Payload] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict, repr=False)
    code: Code | None = None
    """With it, `directory` is the place of the same code there: `work_tree` and the prefix."""


def files_for(job: Job) -> dict[str, bytes | Path]:
    """Return the files of the run directory, by name, the manifest last; as `Connection.upload` takes them.

    Raises ValueError for a name that must not become a file's: ids, tool outputs, variables.
    """
    _check_names(job)
    payloads = dict(_payloads(job))
    manifest = "".join(f"{payload.sha256}  {name}\n" for name, payload in payloads.items())
    return {name: payload.content for name, payload in payloads.items()} | {names.MANIFEST: manifest.encode()}


def _check_names(job: Job) -> None:
    _check(DISPATCH_ID, job.dispatch_id)
    for session in (job.session, *job.children):
        _check(SESSION_ID, session.id)
    for name in job.tool_output:
        _check(TOOL_OUTPUT_NAME, name)
    for name in job.environment:
        _check(_ENVIRONMENT_NAME, name)


def _check(pattern: re.Pattern[str], name: str) -> None:
    if not pattern.fullmatch(name):
        raise ValueError(f"`{name}` cannot be the name of a file in a run directory")


def _payloads(job: Job) -> Iterator[tuple[str, Payload]]:
    yield names.packed(names.SESSION), job.session.packed
    for child in job.children:
        yield names.packed(f"{names.CHILDREN}/{child.id}.json"), child.packed
    for name, payload in job.tool_output.items():
        yield f"{names.TOOL_OUTPUT}/{name}", payload
    if job.code is not None:
        yield _CODE_FILES[job.code.kind], job.code.payload
    for name, text in _texts(job):
        yield name, Payload.of(text.encode("utf-8", "surrogateescape"))


def _texts(job: Job) -> Iterator[tuple[str, str]]:
    yield names.JOB, json.dumps(_description(job), indent=2)
    yield names.BRIEF, job.brief
    yield names.RUNNER, script("runner")
    for name, value in _parameters(job):
        yield f"{names.PARAM}/{name}", value
    for name, value in job.environment.items():
        yield f"{names.ENVIRONMENT}/{name}", value


def _parameters(job: Job) -> Iterator[tuple[str, str]]:
    yield "dispatch", job.dispatch_id
    yield "session", job.session.id
    yield "mode", job.mode
    yield "opencode", str(job.opencode)
    yield "directory", str(job.directory)
    yield "model", str(job.model)
    yield "agent", job.agent
    yield "permission", json.dumps(job.permission)
    yield "messages", str(job.session.messages)
    yield "parts", str(job.session.parts)
    yield from _optional_parameters(job)


def _optional_parameters(job: Job) -> Iterator[tuple[str, str]]:
    if job.children:
        yield "children", "".join(f"{child.id} {child.messages} {child.parts}\n" for child in job.children)
    if job.variant is not None:
        yield "variant", job.variant
    if job.is_auto:
        yield "auto", ""
    if job.is_replacing:
        yield "replace", ""
    if job.is_live:
        yield "live", ""
    if job.code is not None:
        yield from _code_parameters(job.code)


def _code_parameters(code: Code) -> Iterator[tuple[str, str]]:
    yield "code", code.kind
    yield "code-project", code.project
    yield "code-snapshot", code.snapshot
    yield "code-base", code.base or ""
    yield "code-branch", code.branch
    yield "code-name", code.name
    yield "code-prefix", str(code.prefix)
    yield "code-author", code.author
    if code.shallow:
        yield "code-shallow", "".join(f"{line}\n" for line in code.shallow)


def _description(job: Job) -> dict[str, Any]:
    return {
        "schema": 1,
        "dispatch": job.dispatch_id,
        "session": job.session.id,
        "children": [child.id for child in job.children],
        "mode": job.mode,
        "directory": str(job.directory),
        "model": str(job.model),
        "agent": job.agent,
        "variant": job.variant,
        "auto": job.is_auto,
        "live": job.is_live,
        "record": dict(job.record),
    }

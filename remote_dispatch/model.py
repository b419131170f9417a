"""The values that travel between the rooms: hosts, requests, dispatches, facts and outcomes. No I/O here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

SESSION_ID = re.compile(r"ses_[A-Za-z0-9]{20,40}")
DISPATCH_NAME = re.compile(r"[a-z][a-z0-9-]{1,30}")
DISPATCH_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[a-z0-9]{8}")

PermissionAction = Literal["allow", "ask", "deny"]
PermissionRules = dict[str, PermissionAction | dict[str, PermissionAction]]
"""OpenCode's permission object: `{"bash": {"*": "deny", "git *": "allow"}, "edit": "allow"}`; the last match wins."""

VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
"""The name of an environment variable."""

SafeText = Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=r"^[^\x00-\x1f\x7f]+$")]


class Mode(StrEnum):
    """What happens to the result: it stays on the host, or it comes home."""

    ONE_WAY = "one-way"
    ROUND_TRIP = "round-trip"


class Permissions(StrEnum):
    """What becomes of a permission that OpenCode would ask for: refused so that the model goes on, or granted."""

    DENY = "deny"
    AUTO = "auto"


class Code(StrEnum):
    """Which code the session works on there."""

    CARRY = "carry"
    """The working tree travels along, and what was done to it comes back as a branch."""
    EXISTING = "existing"
    """The code in a directory of the host."""
    NONE = "none"
    """None: whatever is in the directory."""


class State(StrEnum):
    """Where a dispatch stands. Forward only; the last four are ends."""

    NEW = "new"
    STAGING = "staging"
    RUNNING = "running"
    FINISHED = "finished"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"

    @property
    def is_end(self) -> bool:
        """Whether nothing changes this state any more."""
        return self in (State.DONE, State.FAILED, State.CANCELLED, State.LOST)

    @property
    def rank(self) -> int:
        """The place in the order of states; all ends share the last place."""
        return 4 if self.is_end else list(State).index(self)


class Collected(StrEnum):
    """How much of the result is home."""

    NONE = "none"
    PARTIAL = "partial"
    WHOLE = "whole"
    COPY = "copy"


@dataclass(frozen=True, slots=True)
class Model:
    """A model as OpenCode names it: `provider/id`; the id may hold further slashes."""

    provider: str
    id: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `provider/id`. Raises ValueError for anything else."""
        provider, slash, name = text.partition("/")
        if not (slash and provider and name) or re.search(r"\s|[\x00-\x1f\x7f]", text) or text.startswith("-"):
            raise ValueError(f"`{text}` is not a model: expected `provider/id`")
        return cls(provider, name)

    def __str__(self) -> str:
        return f"{self.provider}/{self.id}"


class Host(BaseModel):
    """One entry of the host registry. What is an address, or may hold a secret, is private: shown by no repr."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    host: str | None = Field(
        default=None,
        repr=False,
        description="The address: `user@host`, `host:port`, `[IPv6]:port`, or an alias of ~/.ssh/config. "
        "Required unless `server` is there.",
        examples=["me@gpu.example"],
    )
    port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        default=None,
        repr=False,
        description="The SSH port; without it that of ~/.ssh/config, else 22.",
        examples=[2222],
    )
    agent: SafeText | None = Field(default=None, description="The agent that works there.", examples=["build"])
    model: str | None = Field(
        default=None,
        description="The model that works there, as `provider/id`.",
        examples=["anthropic/claude-sonnet-4-5"],
    )
    variant: SafeText | None = Field(default=None, description="The variant of that model.", examples=["high"])
    directory: SafeText | None = Field(
        default=None, description="The working directory there; `~` is the home there.", examples=["~/src/app"]
    )
    permissions: Literal["deny", "auto"] | None = Field(
        default=None,
        description="What becomes of a permission that OpenCode asks for there: refused so that the model goes on "
        "(`deny`), or granted (`auto`).",
        examples=["deny"],
    )
    permission_rules: PermissionRules | None = Field(
        default=None,
        description="Rules as in OpenCode's `permission`: a tool, then `allow`, `ask` or `deny`, or an object of "
        "patterns of which the last match wins. What they leave open, `permissions` decides.",
        examples=[{"bash": {"*": "deny", "git *": "allow"}, "edit": "allow"}],
    )
    opencode: SafeText | None = Field(
        default=None,
        description="Where OpenCode is there, when it is not found by itself; `~` is the home there.",
        examples=["~/.opencode/bin/opencode"],
    )
    env: dict[Annotated[str, StringConstraints(pattern=VARIABLE)], str] | None = Field(
        default=None,
        repr=False,
        description="Variables for OpenCode there. Their values are never shown.",
        examples=[{"npm_config_fetch_retries": "0"}],
    )
    code: Literal["carry", "existing", "none"] | None = Field(
        default=None,
        description="Which code the session works on there: this working tree, what is in the directory, or none.",
        examples=["carry"],
    )
    server: str | None = Field(
        default=None,
        repr=False,
        description="The URL of an OpenCode server, for named sessions; without user and password.",
        examples=["https://opencode.example:4096"],
    )
    server_user: SafeText | None = Field(
        default=None,
        repr=False,
        description="The user name at that server; without it OPENCODE_SERVER_USERNAME, else `opencode`.",
        examples=["opencode"],
    )
    server_password_env: Annotated[str, StringConstraints(pattern=VARIABLE)] | None = Field(
        default=None,
        description="The variable of this machine that holds the password of that server; without it and without a "
        "command OPENCODE_SERVER_PASSWORD.",
        examples=["SHARED_OPENCODE_PASSWORD"],
    )
    server_password_command: Annotated[list[SafeText], Field(min_length=1)] | None = Field(
        default=None,
        repr=False,
        description="The command of this machine that prints the password of that server in its first line: program "
        "and arguments, no shell. Never shown.",
        examples=[["pass", "show", "opencode"]],
    )
    os: Literal["linux", "macos", "windows"] | None = Field(
        default=None, description="The system there; accepted in files of the npm plugin.", examples=["linux"]
    )

    @field_validator("model")
    @classmethod
    def _is_a_model(cls, value: str | None) -> str | None:
        if value is not None:
            Model.parse(value)
        return value

    @field_validator("agent")
    @classmethod
    def _is_an_agent(cls, value: str | None) -> str | None:
        if value is not None and value.startswith("-"):
            raise ValueError(f"`{value}` is not an agent's name")
        return value

    @model_validator(mode="after")
    def _has_a_way_in(self) -> Self:
        if self.host is None and self.server is None:
            raise ValueError("`host` is missing (an address, or an alias of ~/.ssh/config)")
        return self


class DispatchRequest(BaseModel):
    """What the user asked for. None leaves the choice to the host's entry, the session, or the host, in this order."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    host: str
    session_id: Annotated[str, StringConstraints(pattern=rf"^{SESSION_ID.pattern}$")] | None = None
    """The local session; None makes a new one on the host."""
    mode: Mode = Mode.ONE_WAY
    prompt: str | None = None
    """The user's own words, verbatim; None means "continue"."""
    local_directory: Path
    directory: SafeText | None = None
    agent: SafeText | None = None
    model: SafeText | None = None
    variant: SafeText | None = None
    permissions: Permissions | None = None
    permission_rules: PermissionRules | None = None
    name: str | None = None
    code: Code | None = None
    include: tuple[SafeText, ...] = ()
    """Patterns of ignored files and likely secrets that travel all the same."""
    is_copy: bool = False
    """Whether it is to be an independent copy: fresh ids there, and a session of its own at home."""
    is_live: bool = False
    """Whether an OpenCode server there works on it, so that it can be watched, answered and talked to."""
    is_forced: bool = False
    """Whether a session goes although a turn of it seems to be open here."""


class Moment(BaseModel):
    """A state and the time at which it was reached."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    state: State
    at: datetime


class Entry(BaseModel):
    """A step of the main path in the journal: begun, how often, and when it was last seen to be done."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    step: str
    began: datetime
    ended: datetime | None = None
    tries: int = 1


class Origin(BaseModel):
    """What the local session was when it left: put back on return."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    agent: str | None = None
    model: str | None = None
    variant: str | None = None
    directory: str
    title: str = ""
    digest: str = ""
    """Digest of the local transcript as exported (transcript.digest)."""
    messages: int = 0


class Travel(BaseModel):
    """How the transcript was changed for the journey; what is needed to change it back."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    session_id: str
    """The id under which the session lives on the host."""
    agent: str
    model: str
    variant: str | None = None
    shift_ms: int = 0
    """What was added to every time of the outgoing transcript."""
    clock_offset_ms: int = 0
    """The host's clock minus ours, as probed."""
    id_map: dict[str, str] = {}
    """Local id to travelling id, where the session travels under fresh ids; otherwise empty."""
    replaces: bool = False
    """Whether the host's old copy of the session is deleted first."""
    held_messages: int | None = None
    """How many messages the host's old copy had, with its sub-agents' sessions, where it is deleted."""
    children: tuple[str, ...] = ()
    """Local ids of the sub-agents' sessions that travel along."""
    opencode: str | None = None
    """The OpenCode binary on the host, absolute."""


class CodeHome(StrEnum):
    """How much of the work on the code is here."""

    AWAY = "away"
    PARTIAL = "partial"
    """As it was at some moment of the run."""
    UNCHANGED = "unchanged"
    """The host changed nothing."""
    HOME = "home"
    LOST = "lost"
    """The host could not pack it: it is there only."""


class Carried(BaseModel):
    """The code that went along with a session, and what came of it. Commits are hexadecimal ids."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    is_bundle: bool
    """Whether it travelled as a git bundle; otherwise as an archive of the tree."""
    top: str
    """The top of the working tree here, absolute."""
    is_repository: bool
    """Whether a git repository is there; otherwise ours is in the folder of the dispatch."""
    prefix: str = ""
    """Where in it the session works, relative; empty for the top."""
    project: str
    """The root commit of its history, or another word that names the objects on the host."""
    base: str | None
    """HEAD as it was; None without any commit."""
    snapshot: str
    """The commit of the working tree as it was."""
    directory: str
    """The top of the working tree there, absolute."""
    sent_bytes: int
    left_out: tuple[str, ...] = ()
    """What did not travel and why, a line each."""
    home: CodeHome = CodeHome.AWAY
    result: str | None = None
    """The commit that came back."""
    branch: str | None = None
    """The branch here that holds it."""
    stat: str = ""
    """Its diffstat against the snapshot."""
    further: tuple[str, ...] = ()
    """Further branches that were made there, by their names; they are kept in the folder of the dispatch."""
    not_taken: tuple[str, ...] = ()
    """What stayed there, or was refused, a line each."""
    left_there: int = 0
    """How many files the host could not send: they are there only."""


class Dispatch(BaseModel):
    """The record of one hand-over. `history` has every state with its time. Old records load for ever."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: int = 1
    id: str
    name: str
    request: DispatchRequest
    history: Annotated[tuple[Moment, ...], Field(min_length=1)]
    journal: tuple[Entry, ...] = ()
    """The steps that were begun, in the order of their first beginning."""
    origin: Origin | None = None
    travel: Travel | None = None
    code: Carried | None = None
    run_directory: str | None = None
    """Absolute path on the host."""
    remote_directory: str | None = None
    """The working directory on the host, absolute, once the runner has entered it."""
    turn_id: str | None = None
    """The user message that opened its turn on an OpenCode server, once it is known to be there."""
    kind: str | None = None
    """Why it failed, one word (see dispatch.verdict)."""
    detail: str | None = None
    """Why it failed, for people; cleaned."""
    collected: Collected = Collected.NONE
    session_id: str | None = None
    """The local session that holds the result."""
    copy_session_id: str | None = None
    new_messages: int | None = None
    last_message_id: str | None = None
    """The newest message that came home, by its id here."""
    warnings: tuple[str, ...] = ()
    answer: str | None = None
    """The host's last answer, once home."""
    unreachable_since: datetime | None = None
    stays_there: bool = False
    """Whether a sub-agent's session could not come home: it is in the host's OpenCode only."""
    is_cleaned_up: bool = False
    """Whether the run directory on the host was removed."""

    @property
    def state(self) -> State:
        """The state reached last."""
        return self.history[-1].state

    @property
    def host(self) -> str:
        """The host's public name."""
        return self.request.host

    @property
    def mode(self) -> Mode:
        """One-way or round-trip."""
        return self.request.mode

    @property
    def stopped_in(self) -> str | None:
        """The step that was begun last and not seen to end."""
        unfinished = [entry for entry in self.journal if entry.ended is None]
        return max(unfinished, key=lambda entry: entry.began).step if unfinished else None

    def begun(self, step: str, at: datetime) -> Dispatch:
        """Return a copy in whose journal this step has begun, perhaps again."""
        known = next((entry for entry in self.journal if entry.step == step), None)
        if known is None:
            return self.but(journal=(*self.journal, Entry(step=step, began=at)))
        again = Entry(step=step, began=at, tries=known.tries + 1)
        return self.but(journal=tuple(again if entry is known else entry for entry in self.journal))

    def completed(self, step: str, at: datetime) -> Dispatch:
        """Return a copy in whose journal this step is done."""
        return self.but(
            journal=tuple(
                entry.model_copy(update={"ended": at}) if entry.step == step else entry for entry in self.journal
            )
        )

    def reached(self, state: State) -> datetime | None:
        """Return when this state was reached, or None."""
        return next((moment.at for moment in self.history if moment.state is state), None)

    def advance(self, state: State, at: datetime, **changes: Any) -> Dispatch:
        """Return a copy in this state. Going backwards, or leaving an end, changes nothing but `changes`."""
        is_forward = not self.state.is_end and state.rank > self.state.rank
        history = (*self.history, Moment(state=state, at=at)) if is_forward else self.history
        return self.model_validate({**dict(self), **changes, "history": history})

    def but(self, **changes: Any) -> Dispatch:
        """Return a copy with these fields changed, in the same state."""
        return self.model_validate({**dict(self), **changes})


@dataclass(frozen=True, slots=True)
class Todo:
    """One todo of a session, in OpenCode's own words."""

    content: str
    status: str
    priority: str


@dataclass(frozen=True, slots=True)
class RemoteFacts:
    """What one probe learned about a host. Paths are absolute."""

    system: str
    """`Linux`, `Darwin`, ... as `uname -s` says."""
    machine: str
    home: PurePosixPath
    shell: str
    path: str | None
    """PATH as a login shell has it; None where that could not be learned."""
    state_directory: PurePosixPath
    """Where our run directories live on the host: `.../remote-dispatch/runs`."""
    opencode: PurePosixPath | None
    opencode_version: str | None
    git_version: str | None
    free_bytes: int | None
    clock_offset_ms: int
    """The host's clock minus ours."""
    directory: PurePosixPath
    """The asked working directory with `~` expanded; it need not exist yet."""
    is_directory_there: bool

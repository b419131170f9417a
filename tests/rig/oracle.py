"""Judges what a dispatch left behind. It shares no code with the product: it reads both OpenCode databases read-only,
the scripted task's log, the state directories, the process table and the file trees by itself.

`picture.look` takes a picture of a machine; `judge` compares the pictures before a dispatch with those afterwards, and
with what the commands said. The invariants are those of docs/reliability.md.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.rig.picture import below, living

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from tests.rig.picture import Message, Picture, Row

ENDS = frozenset({"done", "failed", "cancelled", "lost"})
DOCUMENTED_EXITS = frozenset({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 130})
STATE = ".local/state/remote-dispatch"
TEMPORARY = re.compile(
    r"(^\.|\.part$|\.tmp$|\.partial$|^scratch-|^planning$|^probe\.|^space\.probe$|^outcome\.reserve$)"
)


@dataclass(frozen=True, slots=True)
class Broken:
    """One invariant that does not hold."""

    invariant: str
    message: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.message}"


def first_requests(log: Path) -> Iterator[str]:
    """From the scripted model's own log: the user's message of each request that was the first one of its turn."""
    for line in log.read_text().splitlines() if log.exists() else ():
        request = json.loads(line)
        if not request["is_title"] and request["messages"][-1]["role"] == "user":
            yield json.dumps(request["messages"][-1]["content"])


# --- what happened


@dataclass(frozen=True, slots=True)
class Said:
    """One command of ours, and what it said. The exit status is negative where it was killed."""

    arguments: tuple[str, ...]
    exit_code: int
    stdout: str
    stderr: str

    @property
    def envelope(self) -> Row:
        """The last line of stdout, or nothing."""
        lines = self.stdout.splitlines()
        try:
            envelope = json.loads(lines[-1]) if lines else {}
        except ValueError:
            return {}
        return envelope if isinstance(envelope, dict) else {}

    @property
    def data(self) -> Row:
        """`data` of the envelope; of several dispatches the first."""
        data = self.envelope.get("data")
        if isinstance(data, dict) and isinstance(data.get("dispatches"), list):
            data = next(iter(data["dispatches"]), None)
        return data if isinstance(data, dict) else {}


@dataclass(frozen=True, slots=True)
class Sent:
    """One dispatch of the case: its name, the local session, and a word that only its prompt holds."""

    name: str
    session: str
    token: str


@dataclass(slots=True)
class Case:
    """Everything that the verdict rests on."""

    before: tuple[Picture, Picture]
    """The laptop and the host before the dispatch."""
    after: tuple[Picture, Picture]
    """And after the last command but `prune`."""
    sent: list[Sent]
    said: list[Said]
    secrets: tuple[str, ...]
    final: dict[str, Row]
    """By name: what `show` says at the end; nothing for a dispatch that was never recorded."""
    expected: frozenset[str]
    """The states that are right in the end; `none` stands for a dispatch that was never recorded."""
    changed: frozenset[str] = frozenset()
    """Local sessions that the case itself changed: they are not compared."""
    gone: frozenset[str] = frozenset()
    """Local sessions that the case itself deleted."""
    is_unreadable: bool = False
    """Whether something that was needed to bring the result home stays broken: then it may stay on the host."""
    asked: tuple[str, ...] | None = None
    """What `first_requests` returns, where a scripted model was asked at all: the stub asks none."""
    host_changes: Callable[[str], bool] = field(default=lambda path: path.startswith("task-"))
    """Which files of the host's project the task itself made."""

    @property
    def laptop(self) -> Picture:
        """The laptop afterwards."""
        return self.after[0]

    @property
    def host(self) -> Picture:
        """The host afterwards."""
        return self.after[1]


def judge(case: Case) -> list[Broken]:
    """Return every invariant that does not hold."""
    return [
        *_exits(case),
        *_nothing_lost(case),
        *_ran_once(case),
        *_no_false_success(case),
        *_no_false_failure(case),
        *_states(case),
        *_untouched(case),
        *_no_secrets(case),
    ]


# --- the invariants


def _exits(case: Case) -> Iterator[Broken]:
    for said in case.said:
        words = " ".join(said.arguments)
        if "Traceback (most recent" in said.stdout + said.stderr:
            yield Broken("I0 errors", f"a traceback from `{words}`: {said.stderr[-600:]}")
        elif said.exit_code >= 0 and said.exit_code not in DOCUMENTED_EXITS:
            yield Broken(
                "I0 errors", f"`{words}` ended with {said.exit_code}: {said.stdout[-300:]} {said.stderr[-600:]}"
            )
        elif said.exit_code >= 0 and "--json" in said.arguments and "schema" not in said.envelope:
            yield Broken("I0 errors", f"`{words}` printed no envelope: {said.stdout[-300:]}")


def _nothing_lost(case: Case) -> Iterator[Broken]:
    """I1: what was at home is at home, byte for byte; what was on the host is there or at home."""
    before, _ = case.before
    for session, messages in before.messages.items():
        if session not in case.gone:
            now = {message.id: message for message in case.laptop.messages.get(session, ())}
            for message in messages:
                if now.get(message.id) != message:
                    what = "changed" if message.id in now else "is gone"
                    yield Broken("I1 nothing lost", f"message {message.id} of the local session {session} {what}")
    for name, shown in case.final.items():
        if shown and not shown.get("host"):
            yield Broken("I1 nothing lost", f"nothing names the host of {name}")


def _ran_once(case: Case) -> Iterator[Broken]:
    """I2: one brief, one start of OpenCode for it."""
    runs = len(case.host.runs) - len(case.before[1].runs)
    if runs > len(case.sent):
        yield Broken("I2 nothing twice", f"{runs} runs for {len(case.sent)} dispatches: {case.host.runs}")
    for sent in case.sent:
        for place, picture in (("the host", case.host), ("the laptop", case.laptop)):
            found = [one for messages in picture.messages.values() for one in messages if _is_brief(one, sent.token)]
            if len(found) > 1:
                yield Broken("I2 nothing twice", f"the brief of {sent.name} stands {len(found)} times on {place}")
        if _count_first_requests(case, sent) > 1:
            yield Broken("I2 nothing twice", f"the model was first asked for {sent.name} more than once: {case.asked}")


def _count_first_requests(case: Case, sent: Sent) -> int:
    return sum(sent.token in text for text in case.asked or ())


def _is_brief(message: Message, token: str) -> bool:
    return message.info.get("role") == "user" and token in message.text


def turn_of(picture: Picture, token: str) -> tuple[Message, ...]:
    """Return the brief that holds this word, with all that follows it in its session."""
    for messages in picture.messages.values():
        for place, message in enumerate(messages):
            if _is_brief(message, token):
                return messages[place:]
    return ()


def _no_false_success(case: Case) -> Iterator[Broken]:
    """I3: `done` and `whole` mean that the local session holds what the host has."""
    for sent in case.sent:
        shown = case.final.get(sent.name) or {}
        if shown.get("collected") not in ("whole", "copy"):
            if shown.get("state") == "done":
                yield Broken("I3 no false success", f"{sent.name} is done, but {shown.get('collected')} is home")
            continue
        turn = turn_of(case.host, sent.token)
        yield from _differences("I3 no false success", case, shown, sent, turn)
        if shown.get("state") == "done" and not (turn and turn[-1].is_finished):
            yield Broken("I3 no false success", f"{sent.name} is done, but the host's last answer is not finished")
        if shown.get("state") == "done" and case.asked is not None and not _count_first_requests(case, sent):
            yield Broken("I3 no false success", f"{sent.name} is done, but the model was never asked")
    for said in case.said:
        if said.arguments[0] in ("collect", "wait", "resume", "send") and said.exit_code in (0, 3):
            state = said.data.get("state")
            if state in ("failed", "lost", "cancelled") and said.data.get("collected") in (None, "none"):
                yield Broken("I3 no false success", f"`{' '.join(said.arguments)}` ended well, but it is {state}")


def _no_false_failure(case: Case) -> Iterator[Broken]:
    """I4: all that the host has of a turn is at home in the end, in whatever state the dispatch is."""
    for sent in case.sent:
        turn = turn_of(case.host, sent.token)
        shown = case.final.get(sent.name) or {}
        if turn and not case.is_unreadable:
            if shown.get("collected") in (None, "none"):
                yield Broken("I4 no false failure", f"the host has the turn of {sent.name}, nothing is home: {shown}")
            elif shown.get("collected") == "partial":
                yield from _differences("I4 no false failure", case, shown, sent, turn)


def _differences(
    invariant: str, case: Case, shown: Mapping[str, Any], sent: Sent, turn: tuple[Message, ...]
) -> Iterator[Broken]:
    home = str(shown.get("copy_session_id") or shown.get("session_id"))
    if not turn:
        if any(_is_brief(one, sent.token) for found in case.laptop.messages.values() for one in found):
            yield Broken(invariant, f"{sent.name}: a turn is home that the host never had")
        return
    contents = [message.content for message in case.laptop.messages.get(home, ())]
    wanted = [message.content for message in turn]
    if not any(contents[at : at + len(wanted)] == wanted for at in range(len(contents))):
        missing = [one[:300] for one in wanted if one not in contents]
        yield Broken(invariant, f"session {home} at home does not hold the host's {len(wanted)} messages: {missing}")
    yield from _children(invariant, case, turn[0].session)


def _children(invariant: str, case: Case, session: str) -> Iterator[Broken]:
    """The sub-agents' sessions that the turn made are home too."""
    old = case.before[1].sessions
    home = [[message.content for message in messages] for messages in case.laptop.messages.values()]
    for child, row in case.host.sessions.items():
        if row["parent_id"] == session and child not in old:
            wanted = [message.content for message in case.host.messages.get(child, ())]
            # One that was killed while it was made has no messages, and needs none at home.
            if wanted and wanted not in home:
                yield Broken(invariant, f"the sub-agent's session {child} is not home")


def _states(case: Case) -> Iterator[Broken]:
    """I5: a documented state, and the right one."""
    for sent in case.sent:
        shown = case.final.get(sent.name) or {}
        state = str(shown.get("state", "none"))
        if state not in case.expected:
            words = f"{shown.get('kind')}: {shown.get('detail')}"
            yield Broken("I5 states", f"{sent.name} is {state} ({words}), not one of {sorted(case.expected)}")


def _untouched(case: Case) -> Iterator[Broken]:
    """I7: other sessions, working trees, index, HEAD and refs."""
    travellers = {sent.session for sent in case.sent}
    for place, before, after in (
        ("laptop", case.before[0], case.after[0]),
        ("host", case.before[1], case.after[1]),
    ):
        for session, row in before.sessions.items():
            if session in travellers or session in case.changed or session in case.gone:
                continue
            same = (
                after.sessions.get(session) == row
                and after.messages.get(session) == before.messages.get(session)
                and after.todos.get(session) == before.todos.get(session)
            )
            if not same:
                yield Broken("I7 untouched", f"session {session} on the {place} is not what it was")
    yield from _choices(case, travellers)
    yield from _trees(case)


def _choices(case: Case, travellers: set[str]) -> Iterator[Broken]:
    """The session that travelled keeps its agent, model, title and place at home."""
    for session in travellers - case.changed - case.gone:
        was, now = case.before[0].sessions.get(session), case.laptop.sessions.get(session)
        for key in ("agent", "model", "title", "directory", "path", "parent_id", "permission"):
            if was and now and was[key] != now[key]:
                yield Broken("I7 untouched", f"the local session's {key} changed from {was[key]} to {now[key]}")


def _trees(case: Case) -> Iterator[Broken]:
    for place, before, after in zip(("laptop", "host"), case.before, case.after, strict=True):
        for path in sorted(before.project.keys() | after.project.keys()):
            if before.project.get(path) != after.project.get(path) and not (
                place == "host" and case.host_changes(path)
            ):
                yield Broken("I7 untouched", f"{path} in the project on the {place} is not what it was")


def _no_secrets(case: Case) -> Iterator[Broken]:
    """I9: neither in what was said, nor in any message on either side."""
    texts = {" ".join(said.arguments): said.stdout + said.stderr for said in case.said}
    for place, picture in (("laptop", case.laptop), ("host", case.host)):
        texts[f"a message on the {place}"] = "\n".join(
            json.dumps([message.info, message.parts]) for found in picture.messages.values() for message in found
        )
    for secret in case.secrets:
        pattern = re.compile(rf"(?<![\w.]){re.escape(secret)}" + ("" if secret.endswith("@") else r"(?!\w)"))
        for where, text in texts.items():
            if pattern.search(text):
                yield Broken("I9 no address", f"a private string stands in the output of `{where}`")


# --- afterwards


def repeated(first: tuple[Picture, Picture], second: tuple[Picture, Picture], said: Iterable[Said]) -> Iterator[Broken]:
    """I8: commands that were given again changed nothing."""
    words = ", ".join(" ".join(one.arguments) for one in said)
    for place, before, after in zip(("laptop", "host"), first, second, strict=True):
        if before.rows != after.rows:
            yield Broken("I8 repeating", f"`{words}` changed the database of the {place}")
    if first[1].runs != second[1].runs:
        yield Broken("I8 repeating", f"`{words}` ran OpenCode again")


def leftovers(before: tuple[Picture, Picture], homes: tuple[Path, Path], open_names: Iterable[str]) -> Iterator[Broken]:
    """I6: after `prune` nothing of ours is left, on either side, but what belongs to a dispatch that is not home.

    `open_names` are the ids of those: their record and run directory may stay.
    """
    kept = tuple(open_names)
    for place, picture, home in zip(("laptop", "host"), before, homes, strict=True):
        for pid, arguments in living(home).items():
            yield Broken("I6 leftovers", f"process {pid} still runs on the {place}: {arguments}")
        for path in below(home):
            name = str(path.relative_to(home))
            if name not in picture.files and not _may_stay(name, kept):
                yield Broken("I6 leftovers", f"{name} is left on the {place}")


def _may_stay(name: str, kept: tuple[str, ...]) -> bool:
    """OpenCode's own files, our catalogue, and the rig's notes; of ours what belongs to an open dispatch."""
    if name.startswith((".local/share/opencode/", ".cache/remote-dispatch/catalogue-", "project/task-")):
        return not TEMPORARY.search(name.rpartition("/")[2])
    if name in ("calls", "variables", "gate") or name.startswith("tmp/"):
        return True
    is_ours = name.startswith((f"{STATE}/runs/", f"{STATE}/dispatches/"))
    return is_ours and any(f"/{one}/" in name for one in kept) and not TEMPORARY.search(name.rpartition("/")[2])

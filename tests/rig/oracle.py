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

from tests.rig.picture import below, blob, living

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from tests.rig.picture import Commit, Files, Message, Picture, Row

ENDS = frozenset({"done", "failed", "cancelled", "lost"})
DOCUMENTED_EXITS = frozenset({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 130})
STATE = ".local/state/remote-dispatch"
TEMPORARY = re.compile(
    r"(^\.|\.part$|\.tmp$|\.partial$|^scratch-|^planning$|^arrived\.git\.|^ignore-|^load-|^probe\.|^space\.probe$|^outcome\.reserve$)"
)

GIT_TEMPORARY = re.compile(r"(\.lock$|^tmp_|^\.part\.)")
CODE_COMES = ("project/.git/objects/", "project/.git/refs/heads/dispatch", "project/.git/logs/refs/heads/dispatch")
"""Where files appear in the user's repository when code comes home; none that was there changes."""
CODE_KEPT = frozenset({"snapshot.git", "arrived.git", "own.git", "back.bundle", "back.tar.gz", "back-code"})
"""What a dispatch keeps of its code once that is at home."""


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


@dataclass(frozen=True, slots=True)
class Work:
    """What a task does to the code that travelled with it."""

    subjects: tuple[str, ...]
    """Of the commits that it makes; behind them comes one of the rest."""
    committed: Mapping[str, bytes | None]
    """The files of the first of them: path to content, None for one that it removes."""
    final: Mapping[str, bytes | None]
    """All that is different in the end."""


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
    work: Work | None = None
    """What each task does to the code; None where none travelled."""

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
        *_code(case),
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
            if before.project.get(path) != after.project.get(path) and not _may_change(case, place, path):
                yield Broken("I7 untouched", f"{path} in the project on the {place} is not what it was")


def _may_change(case: Case, place: str, path: str) -> bool:
    if place == "host":
        return case.host_changes(path)
    is_new = path not in case.before[0].project
    return case.work is not None and is_new and f"project/{path}".startswith(CODE_COMES)


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


# --- code


def _code(case: Case) -> Iterator[Broken]:
    """I10: the branch is whole, or the tree there stands and a command names it."""
    if case.work is None:
        return
    if case.laptop.history.damage:
        yield Broken("I10 code", f"the repository at home is damaged: {case.laptop.history.damage}")
    shown = {sent.name: case.final.get(sent.name) or {} for sent in case.sent}
    named = {code["branch"] for one in shown.values() if (code := one.get("code") or {}).get("branch")}
    if named != case.laptop.history.branches.keys():
        yield Broken("I10 code", f"the branches are {sorted(case.laptop.history.branches)}, not {sorted(named)}")
    for sent in case.sent:
        if shown[sent.name]:
            yield from _code_of(case, case.work, sent, shown[sent.name])


def _code_of(case: Case, work: Work, sent: Sent, shown: Row) -> Iterator[Broken]:
    code = shown.get("code") or {}
    is_done = shown.get("state") == "done"
    commits = case.laptop.history.branches.get(str(code.get("branch")), ())
    if commits:
        yield from _chain(case, work, sent, commits, is_whole=is_done)
    if is_done and (code.get("home") != "home" or not commits):
        yield Broken("I10 code", f"{sent.name} is done, but its code is {code}")
    if code.get("home") in ("home", "unchanged"):
        yield from _scratch(case, shown)
    elif turn_of(case.host, sent.token):
        yield from _stands(case, sent, shown, code)


def _scratch(case: Case, shown: Row) -> Iterator[Broken]:
    place = f"{STATE}/dispatches/{shown.get('id')}/code/"
    kept = {name.removeprefix(place).partition("/")[0] for name in case.laptop.files if name.startswith(place)}
    if kept - CODE_KEPT:
        yield Broken("I10 code", f"{shown.get('name')} still has {sorted(kept - CODE_KEPT)} of its code")


def _stands(case: Case, sent: Sent, shown: Row, code: Row) -> Iterator[Broken]:
    place = f"{STATE}/work/{shown.get('id')}/"
    if not any(name.startswith(place) for name in case.host.files):
        yield Broken("I10 code", f"the code of {sent.name} is neither at home nor on the host: {code}")
    if not any(str(code.get("directory")) in said.stdout + said.stderr for said in case.said):
        yield Broken("I10 code", f"nothing names the place of the code of {sent.name}")


def _chain(case: Case, work: Work, sent: Sent, commits: tuple[Commit, ...], *, is_whole: bool) -> Iterator[Broken]:
    """HEAD's history, the snapshot, the commits of the task, and one of the rest, each on top of the other."""
    before = case.before[0].history
    depth = len(before.commits)
    subjects = [one.subject for one in commits]
    parents = [(), *((one.id,) for one in commits[:-1])]
    if [one.parents for one in commits] != parents or commits[:depth] != before.commits or len(commits) <= depth:
        yield Broken("I10 code", f"the branch of {sent.name} does not continue HEAD: {subjects}")
        return
    snapshot, *made = commits[depth:]
    if snapshot.files != before.working:
        yield Broken("I10 code", f"the snapshot of {sent.name} is not the working tree: {snapshot.files}")
    if is_whole:
        yield from _whole(work, sent, snapshot.files, made)
    else:
        yield from _cut_short(work, sent, snapshot.files, commits[-1].files)


def _whole(work: Work, sent: Sent, sent_files: Files, made: list[Commit]) -> Iterator[Broken]:
    subjects = [one.subject for one in made]
    if subjects[:-1] != [*work.subjects]:
        yield Broken("I10 code", f"the commits of {sent.name} are {subjects}")
    elif made[-1].files != _changed(sent_files, work.final):
        yield Broken("I10 code", f"the branch of {sent.name} holds {made[-1].files}")
    elif work.subjects and made[0].files != _changed(sent_files, work.committed):
        yield Broken("I10 code", f"the task's commit of {sent.name} holds {made[0].files}")


def _cut_short(work: Work, sent: Sent, sent_files: Files, files: Files) -> Iterator[Broken]:
    """Each file is as it was sent or as the task made it; none is missing that the task did not remove."""
    in_the_end = _changed(sent_files, work.final)
    for path in sent_files.keys() | in_the_end.keys() | files.keys():
        if files.get(path) not in (sent_files.get(path), in_the_end.get(path)):
            yield Broken("I10 code", f"{path} in the branch of {sent.name} is neither the old nor the new one")


def _changed(files: Files, changes: Mapping[str, bytes | None]) -> Files:
    new = {path: f"{files.get(path, '100644')[:6]} {blob(held)}" for path, held in changes.items() if held is not None}
    return {path: one for path, one in files.items() if path not in changes} | new


# --- afterwards


def repeated(first: tuple[Picture, Picture], second: tuple[Picture, Picture], said: Iterable[Said]) -> Iterator[Broken]:
    """I8: commands that were given again changed nothing."""
    words = ", ".join(" ".join(one.arguments) for one in said)
    for place, before, after in zip(("laptop", "host"), first, second, strict=True):
        if before.rows != after.rows:
            yield Broken("I8 repeating", f"`{words}` changed the database of the {place}")
        if before.project != after.project:
            yield Broken("I8 repeating", f"`{words}` changed the project on the {place}")
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
            if name not in picture.files and not (_may_stay(name, kept) or _is_code(name)):
                yield Broken("I6 leftovers", f"{name} is left on the {place}")
        for tree in home.glob(f"{STATE}/work/*"):
            if tree.name not in kept:
                yield Broken("I6 leftovers", f"work/{tree.name} is left on the {place}")


def _may_stay(name: str, kept: tuple[str, ...]) -> bool:
    """OpenCode's own files, our catalogue, and the rig's notes; of ours what belongs to an open dispatch."""
    if name.startswith((".local/share/opencode/", ".cache/remote-dispatch/catalogue-", "project/task-")):
        return not TEMPORARY.search(name.rpartition("/")[2])
    if name in ("calls", "variables", "gate") or name.startswith("tmp/"):
        return True
    for place in ("runs", "dispatches", "work"):
        for one in kept:
            _, is_ours, within = name.partition(f"{STATE}/{place}/{one}/")
            if is_ours:
                return place == "work" or not any(map(TEMPORARY.search, within.split("/")))
    return False


def _is_code(name: str) -> bool:
    """What came home to a repository, and what the host keeps of it for the next time."""
    return name.startswith((*CODE_COMES, f"{STATE}/projects/")) and not any(map(GIT_TEMPORARY.search, name.split("/")))

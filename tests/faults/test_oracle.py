"""The oracle sees what it is there for: each invariant, broken by hand in a world where everything went well."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.rig import oracle
from tests.rig.oracle import Case, Said, Sent, Work
from tests.rig.picture import Commit, History, Message, Picture, blob

if TYPE_CHECKING:
    from collections.abc import Callable

TOKEN = "token-1"
OLD, OTHER, CHILD = "ses_old", "ses_other", "ses_child"


def message(name: str, session: str, role: str, text: str, **info: Any) -> Message:
    """A message with one part."""
    times = {"created": 1, "completed": 2} if role == "assistant" else {"created": 1}
    parts = ({"id": f"prt_{name}", "type": "text", "text": text},)
    return Message(f"msg_{name}", session, {"role": role, "time": times, **info}, parts)


def row(parent: str | None = None) -> dict[str, Any]:
    names = ("agent", "model", "title", "directory", "path", "permission")
    return {**dict.fromkeys(names), "parent_id": parent}


BASE = (message("1", OLD, "user", "hello"), message("2", OLD, "assistant", "hi"))
TURN = (message("3", OLD, "user", f"see to {TOKEN}"), message("4", OLD, "assistant", "the answer"))
SUB = (message("5", CHILD, "user", "a part"),)
ELSE = (message("6", OTHER, "user", "something else"),)
EVERY = {OLD: (*BASE, *TURN), CHILD: SUB, OTHER: ELSE}
ROWS = {OLD: row(), CHILD: row(OLD), OTHER: row()}
TREE = {".git/HEAD": "main", "committed": "one"}
ONE, TWO, NEW = (f"100644 {blob(content)}" for content in (b"one", b"two", b"new"))
FIRST = Commit("1" * 40, (), "First", {"committed": ONE})
SNAPSHOT = Commit("2" * 40, (FIRST.id,), "what left", {"committed": ONE, "untracked": ONE})
FIX = Commit("3" * 40, (SNAPSHOT.id,), "Fix it", {"committed": TWO, "untracked": ONE})
REST = Commit("4" * 40, (FIX.id,), "the rest", {"committed": TWO, "untracked": ONE, "left": NEW})
BRANCH = (FIRST, SNAPSHOT, FIX, REST)
WORK = Work(("Fix it",), {"committed": b"two"}, {"committed": b"two", "left": b"new"})
ID = "20261121-000000-aaaaaaaa"


def a_case() -> Case:
    """A round trip that went well."""
    before = Picture(Path("/laptop"), {OLD: row(), OTHER: row()}, {OLD: BASE, OTHER: ELSE}, project=TREE)
    there = Picture(Path("/host"), {OTHER: row()}, {OTHER: ELSE}, project=TREE)
    shown = {"name": "kumo", "host": "pi", "state": "done", "collected": "whole", "session_id": OLD}
    envelope = json.dumps({"schema": 1, "data": shown})
    return Case(
        before=(before, there),
        after=(
            replace(before, sessions=ROWS, messages=EVERY),
            replace(there, sessions=ROWS, messages=EVERY, runs=(OLD,)),
        ),
        sent=[Sent("kumo", OLD, TOKEN)],
        said=[Said(("resume", "kumo", "--json"), 0, envelope, "")],
        secrets=("berry-lan",),
        final={"kumo": shown},
        expected=frozenset({"done"}),
    )


def broken(case: Case) -> set[str]:
    return {one.invariant.split()[0] for one in oracle.judge(case)}


def at_home(case: Case, **messages: Any) -> None:
    case.after = (replace(case.laptop, messages={**case.laptop.messages, **messages}), case.host)


def on_the_host(case: Case, **messages: Any) -> None:
    case.after = (case.laptop, replace(case.host, messages={**case.host.messages, **messages}))


def test_a_dispatch_that_went_well_breaks_nothing() -> None:
    assert oracle.judge(a_case()) == []


def lose_a_message(case: Case) -> None:
    at_home(case, ses_old=(BASE[0], *TURN))


def change_a_message(case: Case) -> None:
    at_home(case, ses_old=(BASE[0], message("2", OLD, "assistant", "hi!"), *TURN))


def run_twice(case: Case) -> None:
    case.after = (case.laptop, replace(case.host, runs=(OLD, OLD)))


def brief_twice(case: Case) -> None:
    on_the_host(case, ses_old=(*BASE, *TURN, message("7", OLD, "user", f"see to {TOKEN}")))


def ask_the_model_twice(case: Case) -> None:
    case.asked = (f"see to {TOKEN}", f"see to {TOKEN}")


def praise_what_the_model_never_saw(case: Case) -> None:
    case.asked = ("something else",)


def append_twice(case: Case) -> None:
    at_home(case, ses_copy=TURN)


def bring_another_answer(case: Case) -> None:
    at_home(case, ses_old=(*BASE, TURN[0], message("4", OLD, "assistant", "the answer, or not")))


def bring_no_child(case: Case) -> None:
    at_home(case, ses_child=())


def praise_half_an_answer(case: Case) -> None:
    half = replace(TURN[1], info={"role": "assistant", "time": {"created": 1}})
    on_the_host(case, ses_old=(*BASE, TURN[0], half))
    at_home(case, ses_old=(*BASE, TURN[0], half))


def praise_nothing(case: Case) -> None:
    case.final["kumo"]["collected"] = "none"


def leave_it_there(case: Case) -> None:
    case.final["kumo"] |= {"state": "failed", "collected": "none"}
    case.expected = frozenset({"failed"})
    case.said.clear()


def end_in_a_wrong_state(case: Case) -> None:
    case.final["kumo"]["state"] = "failed"


def never_end(case: Case) -> None:
    case.final["kumo"]["state"] = "running"


def touch_another_session(case: Case) -> None:
    at_home(case, ses_other=(*ELSE, message("8", OTHER, "user", "more")))


def touch_the_work_tree(case: Case) -> None:
    case.after = (replace(case.laptop, project={**TREE, "committed": "two"}), case.host)


def touch_a_ref_on_the_host(case: Case) -> None:
    case.after = (case.laptop, replace(case.host, project={**TREE, ".git/refs/heads/new": "1"}))


def change_the_agent(case: Case) -> None:
    case.after = (replace(case.laptop, sessions={**ROWS, OLD: {**row(), "agent": "plan"}}), case.host)


def say_the_address(case: Case) -> None:
    case.said.append(Said(("show", "kumo", "--json"), 0, case.said[0].stdout, "could not reach berry-lan"))


def write_the_address_into_a_message(case: Case) -> None:
    at_home(case, ses_new=(message("9", "ses_new", "user", "it is berry-lan"),))


def end_with_a_traceback(case: Case) -> None:
    case.said.append(Said(("show", "kumo"), 1, "", "Traceback (most recent call last):"))


def end_with_an_undocumented_status(case: Case) -> None:
    case.said.append(Said(("show", "kumo"), 70, "", ""))


def print_no_envelope(case: Case) -> None:
    case.said.append(Said(("show", "kumo", "--json"), 0, "", ""))


@pytest.mark.parametrize(
    ("change", "invariant"),
    [
        (lose_a_message, "I1"),
        (change_a_message, "I1"),
        (run_twice, "I2"),
        (brief_twice, "I2"),
        (ask_the_model_twice, "I2"),
        (praise_what_the_model_never_saw, "I3"),
        (append_twice, "I2"),
        (bring_another_answer, "I3"),
        (bring_no_child, "I3"),
        (praise_half_an_answer, "I3"),
        (praise_nothing, "I3"),
        (leave_it_there, "I4"),
        (end_in_a_wrong_state, "I5"),
        (never_end, "I5"),
        (touch_another_session, "I7"),
        (touch_the_work_tree, "I7"),
        (touch_a_ref_on_the_host, "I7"),
        (change_the_agent, "I7"),
        (say_the_address, "I9"),
        (write_the_address_into_a_message, "I9"),
        (end_with_a_traceback, "I0"),
        (end_with_an_undocumented_status, "I0"),
        (print_no_envelope, "I0"),
    ],
)
def test_each_breach_is_seen(change: Callable[[Case], None], invariant: str) -> None:
    case = a_case()
    change(case)
    assert invariant in broken(case)


def test_ids_and_times_are_no_content() -> None:
    one = message("1", OLD, "user", "see ses_abc", agent="plan")
    other = message("2", OTHER, "user", "see ses_xyz", agent="build")
    assert one.content == other.content
    assert one.content != message("1", OLD, "user", "see it", agent="plan").content


def test_a_turn_has_one_first_request_whatever_follows_it(tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    asked = [{"role": "user", "content": f"see to {TOKEN}"}]
    turns = [
        (False, asked),
        (True, [{"role": "user", "content": "a title, please"}]),
        (False, [*asked, {"role": "assistant", "content": ""}, {"role": "tool", "content": "worked"}]),
    ]
    log.write_text("".join(json.dumps({"is_title": one, "messages": messages}) + "\n" for one, messages in turns))
    assert list(oracle.first_requests(log)) == [f'"see to {TOKEN}"']
    case = a_case()
    case.asked = tuple(oracle.first_requests(log))
    assert oracle.judge(case) == []


def test_a_repeated_command_that_changes_something_is_seen() -> None:
    case = a_case()
    at_home(changed := a_case(), ses_old=(*BASE, *TURN, *TURN))
    assert list(oracle.repeated(case.after, case.after, case.said)) == []
    assert [one.invariant for one in oracle.repeated(case.after, changed.after, case.said)] == ["I8 repeating"]


@pytest.mark.parametrize(
    "name",
    [
        ".local/state/remote-dispatch/runs/20261121-000000-aaaaaaaa/back.json",
        ".local/state/remote-dispatch/dispatches/20261121-000000-aaaaaaaa/.record-x",
        ".local/state/remote-dispatch/locks/ses_old",
        ".cache/remote-dispatch/probe.77/path",
        ".local/share/opencode/tool-output/tool_a.part",
        "session.json",
    ],
)
def test_every_file_that_is_left_is_seen(tmp_path: Path, name: str) -> None:
    assert left(tmp_path) == []
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
    assert left(tmp_path) == [f"{name} is left on the laptop"]


def test_what_belongs_to_a_dispatch_that_is_not_home_may_stay(tmp_path: Path) -> None:
    run = tmp_path / oracle.STATE / "runs/20261121-000000-aaaaaaaa"
    run.mkdir(parents=True)
    (run / "events.jsonl").touch()
    assert left(tmp_path, "20261121-000000-aaaaaaaa") == []
    assert len(left(tmp_path)) == 1


def test_every_process_that_is_left_is_seen(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(argv, env={"HOME": str(tmp_path)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert str(process.pid) in left(tmp_path)[0]
        process.communicate(b"\n", timeout=10)
    assert left(tmp_path) == []


# --- code that travels


def a_case_with_code(home: str = "home", state: str = "done", branch: tuple[Commit, ...] = BRANCH) -> Case:
    """A round trip that went well, with code; or one of which this came home."""
    case = a_case()
    before = History(SNAPSHOT.files, (FIRST,))
    case.before = (replace(case.before[0], history=before), case.before[1])
    come = {".git/objects/44/4444": "new", ".git/refs/heads/dispatch/kumo": "new"} if branch else {}
    after = replace(before, branches={"dispatch/kumo": branch} if branch else {})
    case.after = (replace(case.laptop, history=after, project=TREE | come), case.host)
    code = {"home": home, "branch": "dispatch/kumo" if branch else None, "directory": "/there/work"}
    case.final["kumo"] |= {"id": ID, "state": state, "code": code}
    case.work, case.expected = WORK, frozenset({state})
    return case


def with_branch(case: Case, *branch: Commit) -> None:
    history = replace(case.laptop.history, branches={"dispatch/kumo": branch})
    case.after = (replace(case.laptop, history=history), case.host)


def with_files(case: Case, *files: str) -> None:
    place = f"{oracle.STATE}/dispatches/{ID}/code"
    case.after = (replace(case.laptop, files=frozenset(f"{place}/{file}" for file in files)), case.host)


def with_project(case: Case, **changes: str) -> None:
    case.after = (replace(case.laptop, project={**case.laptop.project, **changes}), case.host)


def test_code_that_came_home_whole_breaks_nothing() -> None:
    case = a_case_with_code()
    with_files(case, "arrived.git/HEAD", "back.bundle")
    assert oracle.judge(case) == []


@pytest.mark.parametrize(
    ("change", "invariant"),
    [
        (with_branch, "I10"),
        (lambda case: with_branch(case, *BRANCH[:3]), "I10"),
        (lambda case: with_branch(case, FIRST, SNAPSHOT, replace(REST, parents=(SNAPSHOT.id,))), "I10"),
        (lambda case: with_branch(case, SNAPSHOT, FIX, REST), "I10"),
        (lambda case: with_branch(case, *BRANCH[:3], replace(REST, files=FIX.files)), "I10"),
        (lambda case: with_branch(case, *BRANCH[:2], replace(FIX, files=SNAPSHOT.files), REST), "I10"),
        (lambda case: with_branch(case, FIRST, replace(SNAPSHOT, files=FIRST.files), FIX, REST), "I10"),
        (lambda case: with_files(case, "arrived.git.new/HEAD"), "I10"),
        (lambda case: with_project(case, **{".git/objects/11/1111": "new", "committed": "changed"}), "I7"),
        (lambda case: with_project(case, **{".git/HEAD": "refs/heads/dispatch/kumo"}), "I7"),
        (lambda case: with_project(case, **{".git/refs/heads/other": "new"}), "I7"),
    ],
)
def test_each_breach_of_code_is_seen(change: Callable[[Case], None], invariant: str) -> None:
    case = a_case_with_code()
    change(case)
    assert invariant in broken(case)


def test_a_run_that_was_cut_short_may_bring_some_of_its_changes_and_nothing_else() -> None:
    some = replace(REST, parents=(SNAPSHOT.id,), files={"committed": TWO, "untracked": ONE})
    assert "I10" not in broken(a_case_with_code(state="lost", branch=(FIRST, SNAPSHOT, some)))
    half = replace(some, files={"committed": TWO})
    assert "I10" in broken(a_case_with_code(state="lost", branch=(FIRST, SNAPSHOT, half)))


def test_code_that_is_not_home_stands_on_the_host_and_is_named() -> None:
    case = a_case_with_code(home="lost", state="lost", branch=())
    assert len([one for one in oracle.judge(case) if one.invariant == "I10 code"]) == 2
    standing = frozenset({f"{oracle.STATE}/work/{ID}/project/committed"})
    case.after = (case.laptop, replace(case.host, files=standing))
    case.said.append(Said(("show", "kumo"), 0, "it is in /there/work", ""))
    assert "I10" not in broken(case)


def test_the_tree_on_the_host_goes_once_its_work_is_home(tmp_path: Path) -> None:
    (tmp_path / oracle.STATE / "work" / ID / "project").mkdir(parents=True)
    assert left(tmp_path) == [f"work/{ID} is left on the laptop"]
    assert left(tmp_path, ID) == []


def test_a_lock_of_git_is_left_and_an_object_of_the_project_is_not(tmp_path: Path) -> None:
    store = tmp_path / oracle.STATE / "projects/abc.git"
    store.mkdir(parents=True)
    (store / "packed-refs").touch()
    assert left(tmp_path) == []
    (store / "packed-refs.lock").touch()
    assert len(left(tmp_path)) == 1


def left(home: Path, *open_names: str) -> list[str]:
    """What the oracle says of a home of which nothing was there before."""
    empty = Picture(home)
    found = oracle.leftovers((empty, Picture(home / "host")), (home, home / "host"), open_names)
    return [one.message for one in found]


def test_the_oracle_shares_no_code_with_the_product() -> None:
    assert "remote_dispatch" not in Path(oracle.__file__).read_text()

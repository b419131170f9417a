"""What the host prints, read as values; the files of a job; the brief; the events."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_dispatch.model import Mode, Model, Todo
from remote_dispatch.runner.brief import CONTINUE, CarriedTree, brief
from remote_dispatch.runner.directory import work_tree
from remote_dispatch.runner.events import EventReader, Progress, describe
from remote_dispatch.runner.job import Code, Job, Payload, SessionFile, files_for
from remote_dispatch.runner.scripts import ScriptName, script_as_written
from remote_dispatch.runner.status import (
    LaunchState,
    Partial,
    parse_clean,
    parse_launch,
    parse_outcome,
    parse_partial,
    parse_status,
    parse_sweep,
)
from tests.rig.stub import a_transcript, packed

DISPATCH = "20260102-030405-abcdefgh"
OUTCOME = f'{{"schema":1,"dispatch":"{DISPATCH}","session":"ses_x","problem":null,"run_status":0,"future":1}}'

# --- status


def printed(*lines: str) -> bytes:
    return "\n".join(["status begin", "exists yes", *lines, "status end", ""]).encode()


def test_the_talk_of_a_login_shell_before_the_status_is_skipped() -> None:
    noise = b"Welcome!\nexists no\nheld yes\n"
    assert parse_status(noise + printed("held dead", "started yes"), DISPATCH).is_lost


@pytest.mark.parametrize(
    ("lines", "is_lost"),
    [
        (("started yes", "held yes", "recovering no"), False),
        (("started yes", "held yes", "recovering yes", "opencode yes"), True),
        (("started yes", "held dead", "opencode yes"), True),
        (("started no", "held dead"), False),
        (("started yes", "held yes", "recovering yes", "outcome yes", f"outcome_json {OUTCOME}"), False),
    ],
)
def test_a_run_without_an_outcome_is_lost_unless_its_own_runner_lives(lines: tuple[str, ...], is_lost: bool) -> None:
    status = parse_status(printed(*lines), DISPATCH)
    assert status.is_lost is is_lost
    assert status.is_recovering is ("recovering yes" in lines)
    assert status.is_opencode_alive is ("opencode yes" in lines)


def test_a_cut_status_is_an_error_and_not_an_absent_run() -> None:
    with pytest.raises(ValueError, match="cut"):
        parse_status(printed("held yes")[:-12], DISPATCH)


def test_unknown_keys_and_bad_values_are_ignored() -> None:
    status = parse_status(printed("future 1", "events_bytes many", "directory_hex zz", "held maybe"), DISPATCH)
    assert (status.events_bytes, status.directory, status.held) == (0, None, "no")


def test_an_outcome_is_read_and_its_unknown_fields_are_ignored() -> None:
    status = parse_status(printed("outcome yes", f"outcome_json {OUTCOME}"), DISPATCH)
    assert status.outcome is not None
    assert status.outcome.run_status == 0


@pytest.mark.parametrize("text", [OUTCOME.replace("abcdefgh", "zzzzzzzz"), "{", "[]", ""])
def test_an_outcome_that_is_malformed_or_of_another_dispatch_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="outcome"):
        parse_outcome(text.encode(), DISPATCH)


@given(st.binary(max_size=400))
def test_no_answer_breaks_the_parser(answer: bytes) -> None:
    with suppress(ValueError):
        assert parse_status(b"status begin\nexists yes\n" + answer + b"\nstatus end\n", DISPATCH).events_bytes >= 0


def test_the_words_of_the_other_scripts_are_read() -> None:
    assert parse_launch(b"motd\nlaunched held\n") is LaunchState.HELD
    assert parse_clean(b"kept held\n") == "held"
    assert parse_clean(b"removed\n") is None
    assert parse_sweep(b"motd\nswept 3\n") == 3
    assert parse_partial(b"motd\npartial packed partial.17\n") == Partial("partial.17", None, is_there=True)
    assert parse_partial(b"partial failed no-space\n") == Partial(None, "no-space", is_there=True)
    assert parse_partial(b"partial none\n") == Partial(None, None, is_there=True)
    assert parse_partial(b"partial absent\n") == Partial(None, None, is_there=False)
    for odd in (b"partial packed ../x\n", b"partial packed partial.1/..\n", b"partial failed a b\n"):
        with pytest.raises(ValueError, match=r".+"):
            parse_partial(odd)
    for nonsense in (b"", b"launched away\n"):
        with pytest.raises(ValueError, match=r".+"):
            parse_launch(nonsense)


# --- job


def a_job(**changes: Any) -> Job:
    values: dict[str, Any] = {
        "dispatch_id": DISPATCH,
        "session": packed(a_transcript("hello")),
        "mode": Mode.ONE_WAY,
        "opencode": PurePosixPath("/opt/opencode"),
        "directory": PurePosixPath("/srv/app"),
        "model": Model("test", "model"),
        "agent": "build",
        "brief": "go on",
    }
    return Job(**(values | changes))


def test_the_manifest_lists_every_other_file_as_it_is_sent(tmp_path: Path) -> None:
    files = files_for(a_job(children=(packed(a_transcript("child")),), tool_output={"tool_1": Payload.of(b"long")}))
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        assert isinstance(content, bytes)
        (tmp_path / name).write_bytes(content)
    subprocess.run(["sha256sum", "-c", "manifest"], cwd=tmp_path, check=True, capture_output=True)
    listed = {line.split("  ", 1)[1] for line in (tmp_path / "manifest").read_text().splitlines()}
    assert listed == set(files) - {"manifest"}


def test_a_payload_may_be_a_local_file(tmp_path: Path) -> None:
    content = gzip.compress(b"{}")
    source = tmp_path / "session.json.gz"
    session = SessionFile("ses_" + "a" * 26, Payload(source, Payload.of(content).sha256), 0, 0)
    assert files_for(a_job(session=session))["session.json.gz"] == source


def test_values_are_files_without_anything_added() -> None:
    files = files_for(
        a_job(directory=PurePosixPath("/a b\n"), environment={"TOKEN": " x\n"}, permission={"bash": "deny"})
    )
    assert files["param/directory"] == b"/a b\n"
    assert files["param/env/TOKEN"] == b" x\n"
    assert json.loads(files["param/permission"]) == {"bash": "deny"}  # type: ignore[arg-type] # it is bytes
    assert not {"param/auto", "param/replace", "param/variant", "param/children"} & set(files)


@pytest.mark.parametrize(
    "changes",
    [
        {"dispatch_id": "../x"},
        {"tool_output": {"../tool_1": Payload.of(b"")}},
        {"environment": {"A-B": "x"}},
        {"children": (SessionFile("ses_../../x", Payload.of(b""), 0, 0),)},
    ],
)
def test_a_name_that_could_leave_the_run_directory_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="cannot be the name of a file"):
        files_for(a_job(**changes))


CODE = Code("bundle", Payload.of(b"objects"), "a" * 40, "b" * 40, None, "dispatch/kumo", "my app", PurePosixPath("."))


def test_code_is_a_file_and_its_values_are_files() -> None:
    files = files_for(a_job(code=replace(CODE, shallow=("c" * 40, "d" * 40))))
    values = {name.removeprefix("param/"): content for name, content in files.items() if name.startswith("param/code")}
    assert files["code.bundle"] == b"objects"
    assert values == {
        "code": b"bundle",
        "code-project": b"a" * 40,
        "code-snapshot": b"b" * 40,
        "code-base": b"",
        "code-branch": b"dispatch/kumo",
        "code-name": b"my app",
        "code-prefix": b".",
        "code-author": b"OpenCode",
        "code-shallow": b"c" * 40 + b"\n" + b"d" * 40 + b"\n",
    }


def test_an_archive_has_a_name_of_its_own_and_without_code_there_is_nothing_of_it() -> None:
    assert "code.tar.gz" in files_for(a_job(code=replace(CODE, kind="archive")))
    assert not [name for name in files_for(a_job()) if name.startswith(("code", "param/code"))]


def test_the_code_of_a_dispatch_lies_beside_the_run_directories() -> None:
    tree = work_tree(PurePosixPath("/s/remote-dispatch/runs"), DISPATCH, "my app")
    assert tree == PurePosixPath(f"/s/remote-dispatch/work/{DISPATCH}/my app")


def test_the_users_variables_are_in_no_repr_and_not_in_the_description() -> None:
    job = a_job(environment={"TOKEN": "secret"})
    assert "secret" not in repr(job)
    assert b"secret" not in files_for(job)["job.json"]  # type: ignore[operator] # it is bytes


@pytest.mark.thorough
@pytest.mark.parametrize("name", get_args(ScriptName))
def test_shellcheck_finds_nothing_in_a_whole_script(name: ScriptName) -> None:
    program = Path(sys.executable).with_name("shellcheck")
    argv = [str(program), "--shell=sh", "--exclude=SC2329", "-"]  # functions that only traps call
    done = subprocess.run(argv, input=script_as_written(name), text=True, capture_output=True, check=False)
    assert done.stdout == ""


# --- brief


CODE_THERE = CarriedTree(PurePosixPath("/home/me/app"), PurePosixPath("/state/work/1/app"), "dispatch/kumo")


def a_brief(**changes: Any) -> str:
    values: dict[str, Any] = {
        "host": "gpu-box",
        "system": "Linux",
        "machine": "x86_64",
        "directory": PurePosixPath("/srv/app"),
        "local_directory": PurePosixPath("/home/me/app"),
        "mode": Mode.ROUND_TRIP,
        "prompt": "fix the tests",
    }
    return brief(**(values | changes))


def test_the_brief_says_where_it_is_and_what_is_called_what() -> None:
    text = a_brief(tool_output={"/home/me/tool_1": "/root/tool_1"}, todos=(Todo("write\nit", "pending", "medium"),))
    for fact in (
        "`gpu-box`",
        "`/srv/app`",
        "`/home/me/app`",
        "- `/home/me/tool_1` is `/root/tool_1`",
        "- [pending] write it",
    ):
        assert fact in text


@pytest.mark.parametrize("prompt", ["/undo", "-v --help", 'say "hi"\n\n  twice  \n', "$(id)"])
def test_the_prompt_stands_verbatim_on_its_own_line_at_the_end(prompt: str) -> None:
    text = a_brief(prompt=prompt)
    assert text.endswith(f"\n{prompt}")
    assert text[0] not in "/-"


@pytest.mark.parametrize("prompt", [None, "", " \n"])
def test_without_a_prompt_the_work_continues(prompt: str | None) -> None:
    assert a_brief(prompt=prompt).endswith(CONTINUE)


def test_only_a_round_trip_is_told_that_it_goes_home() -> None:
    assert "goes home" in a_brief()
    assert "goes home" not in a_brief(mode=Mode.ONE_WAY)


def test_uncommitted_changes_are_promised_only_when_they_came_along() -> None:
    assert "uncommitted changes included" in a_brief(code=CODE_THERE)
    assert "uncommitted changes may be missing" in a_brief()


def test_the_brief_says_where_the_code_is_and_as_what_it_goes_home() -> None:
    text = a_brief(code=CODE_THERE)
    assert "all below `/home/me/app` there is below `/state/work/1/app` here" in text
    assert "goes home as the branch `dispatch/kumo`: commits are welcome" in text
    assert "What git ignores did not come" in text


def test_without_git_there_the_brief_speaks_of_no_branch_or_commit() -> None:
    text = a_brief(code=replace(CODE_THERE, branch=None))
    assert "no repository" in text
    assert "Every file that you leave below `/state/work/1/app` goes home" in text
    assert "commits" not in text


# --- events


@given(st.lists(st.dictionaries(st.text(), st.text() | st.integers())), st.lists(st.integers(1, 20)))
def test_events_arrive_whole_however_the_bytes_are_cut(events: list[dict[str, Any]], sizes: list[int]) -> None:
    data = b"".join(json.dumps(event).encode() + b"\n" for event in events)
    reader, read, position = EventReader(), [], 0
    for size in [*sizes, len(data)]:
        read += list(reader.feed(data[position : position + size]))
        position += size
    assert (read, reader.offset, reader.malformed) == (events, len(data), 0)


def test_reading_resumes_at_the_first_incomplete_line() -> None:
    reader = EventReader(offset=100)
    assert list(reader.feed(b'{"a": 1}\n{"b"')) == [{"a": 1}]
    assert reader.offset == 109


def test_malformed_and_endless_lines_are_counted_and_skipped() -> None:
    reader = EventReader(limit_bytes=20)
    data = b'no json\n[1]\n{"a": "' + b"x" * 30 + b'"}\n\n{"ok": 1}\n' + b"[" * 19 + b"\n"
    assert list(reader.feed(data)) == [{"ok": 1}]
    assert (reader.malformed, reader.offset) == (4, len(data))


def test_events_are_described_for_people() -> None:
    tool = {"tool": "bash", "state": {"status": "completed", "title": "make \x1b[31mtest\x1b[0m", "input": {}}}
    todos = [{"content": "a", "status": "completed"}, {"content": "b", "status": "in_progress"}]
    failed = {"tool": "read", "state": {"status": "error", "error": "rejected"}}
    error = {"type": "error", "error": {"name": "APIError", "data": {"message": "no credit"}}}
    assert describe({"type": "text", "part": {"text": "hi\x07"}}) == Progress("text", "hi")
    assert describe({"type": "tool_use", "part": tool}) == Progress("tool", "make test", tool="bash")
    assert describe(
        {"type": "tool_use", "part": {"tool": "todowrite", "state": {"input": {"todos": todos}}}}
    ) == Progress("todo", "b", tool="todowrite", done=1, total=2)
    assert describe({"type": "tool_use", "part": failed}) == Progress("tool", "rejected", tool="read", is_error=True)
    assert describe({"type": "step_finish", "part": {"reason": "stop", "tokens": {"total": 15}}}) == Progress(
        "tokens", "stop", tokens=15
    )
    assert describe(error) == Progress("error", "APIError: no credit", is_error=True)
    assert describe({"type": "step_start"}) is None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["part", "state", "input", "todos", "tokens"]), inner)
    ),
)


@pytest.mark.thorough
@given(st.sampled_from(["text", "tool_use", "step_finish", "error", "other"]), _JSON, _JSON)
def test_no_event_breaks_the_description(kind: str, part: object, error: object) -> None:
    progress = describe({"type": kind, "part": part, "error": error})
    assert progress is None or "\x1b" not in progress.text

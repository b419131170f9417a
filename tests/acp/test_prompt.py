"""`acp prompt` and `acp sessions` as they are typed: over a real sshd, mostly to the scripted agent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.acp.client import Listed
from remote_dispatch.acp.happening import read_asked
from remote_dispatch.cli.acp.prompt import choose_session, chosen_policy
from remote_dispatch.cli.acp.view import Policy, View
from remote_dispatch.demo.provider import ScriptedModel
from remote_dispatch.errors import AnswerNeededError
from tests.rig.scripted import install
from tests.rig.sshd import wait_until
from tests.rig.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from remote_dispatch.cli.session.asking import Ask
    from tests.rig.zygote import Zygote

Raw = dict[str, Any]
ONCE = {"optionId": "once", "kind": "allow_once", "name": "Allow once"}
ALWAYS = {"optionId": "always", "kind": "allow_always", "name": "Always allow"}
REJECT = {"optionId": "reject", "kind": "reject_once", "name": "Reject"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, zygote: Zygote | None) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("world"), starter=zygote) as world:
        install(world.host.bin)
        install(world.laptop.bin)
        yield world


@pytest.fixture(scope="module")
def session(world: World) -> str:
    """A session of the host."""
    return str(world.cli("acp", "prompt", "pi", "!say one", "--json").data["session_id"])


def typing(*lines: str | None) -> Ask:
    """A person who types these lines; None is Ctrl-D."""
    left = list(lines)

    async def ask(_: str) -> str | None:
        return left.pop(0)

    return ask


def permission(**fields: Any) -> Raw:
    call = {"toolCallId": "c", "title": "rm -r x", "kind": "execute", "rawInput": {"command": "rm -r x"}}
    return {"sessionId": "ses_1", "toolCall": call, "options": [ONCE, ALWAYS, REJECT], **fields}


# --- answers


def test_the_answer_is_on_stdout_and_the_rest_on_stderr(world: World) -> None:
    ran = world.cli("acp", "prompt", "pi", "!todo one;two\n!tool bash\n!say all done")
    assert (ran.exit_code, ran.stdout) == (0, "all done\n")
    assert "todo 0/2: one" in ran.stderr
    assert "bash: pwd" in ran.stderr


def test_json_streams_what_happens_and_ends_with_an_envelope(world: World) -> None:
    ran = world.cli("acp", "prompt", "pi", "!todo one;two\n!say all done", "--json")
    assert [one["type"] for one in ran.streams if one["type"] in ("session", "todos", "text")] == [
        "session",
        "todos",
        "text",
    ]
    assert ran.data["session_id"] == ran.streams[0]["session_id"]
    fields = ("host", "is_new", "opencode", "answer", "stop_reason", "failure", "is_settled", "refused")
    expected: tuple[Any, ...] = ("pi", True, "1.18.33", "all done", "end_turn", None, True, [])
    assert tuple(ran.data[one] for one in fields) == expected


def test_this_machine_is_the_host_local(world: World) -> None:
    ran = world.cli("acp", "prompt", "local", "--json", stdin=b"!say here\n")
    assert ran.data["answer"] == "here"
    assert ran.data["directory"] == str(world.laptop.project)


def test_a_session_is_gone_on_with_and_listed(world: World, session: str) -> None:
    ran = world.cli("acp", "prompt", "pi", "!say two", "--session", session, "--json")
    assert (ran.data["session_id"], ran.data["is_new"], ran.data["answer"]) == (session, False, "two")
    listed = world.cli("acp", "sessions", "pi", "--json").data["sessions"]
    assert {"session_id", "title", "directory", "updated"} == set(listed[0])
    assert session in [one["session_id"] for one in listed]


def test_every_session_of_the_host_is_listed_through_the_side_channel(world: World) -> None:
    session = world.cli("acp", "prompt", "pi", "!say one", "--directory", "~", "--json").data["session_id"]
    assert session not in world.cli("acp", "sessions", "pi").stdout
    assert session in world.cli("acp", "sessions", "pi", "--all").stdout


def test_which_session_is_resumed_must_be_named_without_a_terminal(world: World, session: str) -> None:
    ran = world.cli("acp", "prompt", "pi", "!say two", "--resume", "--json")
    assert ran.exit_code == 7
    assert session in ran.error["hint"]


def test_a_session_that_is_not_there_is_unknown(world: World) -> None:
    ran = world.cli("acp", "prompt", "pi", "x", "--session", "ses_000000000000aaaaaaaaaaaaaa", "--json")
    assert (ran.exit_code, ran.error["kind"]) == (10, "unknown-name")


# --- failures


def test_without_a_terminal_permissions_are_refused(world: World) -> None:
    ran = world.cli("acp", "prompt", "pi", "!permission rm -r x", "--json")
    assert (ran.exit_code, ran.data["failure"], ran.data["refused"]) == (3, "rejected", ["rm -r x"])
    assert "warning: not permitted: rm -r x" in ran.stderr
    asked = [one for one in ran.streams if one["type"] in ("asked", "answered")]
    assert [one.get("title") or one.get("choice") for one in asked] == ["rm -r x", "reject"]


def test_permissions_are_granted_where_that_was_said(world: World) -> None:
    ran = world.cli("acp", "prompt", "pi", "!permission pwd\n!child pwd", "--permissions", "auto")
    assert (ran.exit_code, ran.stdout) == (0, "the sub-agent was told once\n")


@pytest.mark.parametrize(
    ("word", "usual", "policy"), [(None, "auto", "auto"), (None, None, "deny"), ("deny", "auto", "deny")]
)
def test_without_a_terminal_the_hosts_entry_says_what_is_usual(
    word: str | None, usual: str | None, policy: str
) -> None:
    assert chosen_policy(word, usual).value == policy


def test_a_process_that_was_killed_fails_the_turn_and_keeps_the_session(world: World) -> None:
    ran = world.cli("acp", "prompt", "pi", "!kill", "--json")
    assert (ran.exit_code, ran.error["kind"]) == (1, "interrupted")
    assert f"--session {ran.data['session_id']}" in ran.error["hint"]


def test_ctrl_c_cancels_the_turn_and_the_session_stays(world: World) -> None:
    running = world.start("acp", "prompt", "pi", "!tool bash\n!hang", "--json")
    wait_until(lambda: '"completed"' in running.stdout(), "the turn did not begin", timeout_s=30)
    running.interrupt()
    ran = running.finish()
    assert (ran.exit_code, ran.error["kind"]) == (130, "interrupted")
    assert (ran.data["stop_reason"], ran.data["is_settled"]) == ("cancelled", True)


def test_a_second_ctrl_c_leaves_at_once(world: World) -> None:
    running = world.start("acp", "prompt", "pi", "!tool bash\n!deaf", "--json")
    wait_until(lambda: '"completed"' in running.stdout(), "the turn did not begin", timeout_s=30)
    running.interrupt()
    wait_until(lambda: "cancelling" in running.stderr(), "it was not cancelled", timeout_s=30)
    running.interrupt()
    ran = running.finish()
    assert (ran.exit_code, ran.error["kind"]) == (130, "interrupted")
    assert "its OpenCode was ended" in ran.error["message"]


def test_a_broken_connection_says_how_to_go_on(world: World) -> None:
    running = world.start("acp", "prompt", "pi", "!tool bash\n!hang", "--json")
    wait_until(lambda: '"completed"' in running.stdout(), "the turn did not begin", timeout_s=30)
    world.sshd.drop_connections()
    ran = running.finish()
    assert (ran.exit_code, ran.error["kind"]) == (5, "connection-lost")
    assert f"--session {ran.data['session_id']}" in ran.error["hint"]


def test_a_turn_without_a_sign_of_life_ends_with_a_deadline(world: World) -> None:
    ran = world.cli("acp", "prompt", "pi", "!hang", "--inactivity", "0.2s", "--json")
    assert (ran.exit_code, ran.error["kind"]) == (6, "timeout")


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (("--resume", "--session", "ses_1"), 2),
        (("--session", "ses_1", "--directory", "~"), 2),
        (("--permissions", "perhaps"), 2),
        (("--permissions", "ask"), 7),
        (("--model", "nothing"), 2),
        (("--inactivity", "soon"), 2),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_opened(
    world: World, arguments: tuple[str, ...], exit_code: int
) -> None:
    before = world.connections()
    assert world.cli("acp", "prompt", "pi", "x", *arguments, "--json").exit_code == exit_code
    assert world.connections() == before


def test_a_host_that_only_has_a_server_cannot_have_an_agent(world: World) -> None:
    world.write_hosts(pi={}, web={"host": None, "server": "https://opencode.example"})
    assert world.cli("acp", "prompt", "web", "x", "--json").exit_code == 11


def test_another_version_of_the_protocol_is_refused(world: World) -> None:
    install(world.laptop.bin, SCRIPTED_PROTOCOL=2)
    ran = world.cli("acp", "prompt", "local", "x", "--json")
    install(world.laptop.bin)
    assert (ran.exit_code, ran.error["kind"]) == (9, "host-not-ready")


# --- asked at a terminal


async def test_a_permission_is_shown_whole_and_asked_until_an_answer_fits(capsys: pytest.CaptureFixture[str]) -> None:
    view = View("pi", Policy.ASK, is_json=False, ask=typing("perhaps", "o"))
    assert await view.ask(read_asked(permission())) == "once"
    shown = capsys.readouterr().err
    assert "| rm -r x" in shown
    assert "that is none of the answers" in shown
    assert "permitted: rm -r x" in shown


async def test_the_end_of_the_input_refuses() -> None:
    view = View("pi", Policy.ASK, is_json=False, ask=typing(None))
    assert await view.ask(read_asked(permission())) == "reject"


async def test_what_an_agent_asks_cannot_paint_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    odd = {"toolCallId": "c", "title": "\x1b[2Kok", "rawInput": {"command": "rm x\n\x1b[1Aecho fine"}}
    view = View("pi", Policy.ASK, is_json=False, ask=typing("r"))
    await view.ask(read_asked(permission(toolCall=odd)))
    shown = capsys.readouterr().err
    assert "\x1b" not in shown
    assert "| rm x\n| echo fine\n" in shown


async def test_a_question_is_answered_by_its_number() -> None:
    options = [
        {"optionId": str(place), "kind": "allow_once", "name": name} for place, name in enumerate(("tea", "rum"))
    ]
    asked = read_asked(permission(options=[*options, REJECT], _meta={"kind": "question"}))
    view = View("pi", Policy.ASK, is_json=False, ask=typing("3", "2"))
    assert await view.ask(asked) == "1"


async def test_no_policy_answers_a_question(capsys: pytest.CaptureFixture[str]) -> None:
    asked = read_asked(permission(options=[{**ONCE, "name": "tea"}, REJECT], _meta={"kind": "question"}))
    assert await View("pi", Policy.AUTO, is_json=False).ask(asked) == "reject"


async def test_a_session_is_chosen_by_its_place_in_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    there = [Listed(f"ses_{one}", "/p", f"about \x1b[31m{one}", "2026-01-01T00:00:00Z") for one in "abc"]
    assert await choose_session(there, "pi", typing("9", "2")) == "ses_b"
    assert "about b" in capsys.readouterr().err


async def test_no_session_in_the_directory_is_no_choice() -> None:
    with pytest.raises(AnswerNeededError, match="there is no session in that directory"):
        await choose_session([], "pi", typing())


# --- the real one


@pytest.mark.real
def test_a_real_conversation_over_ssh(tmp_path: Path, real_opencode: Path, zygote: Zygote | None) -> None:
    with (
        ScriptedModel() as model,
        World(tmp_path, opencode=real_opencode, model_url=model.url, starter=zygote) as world,
    ):
        world.host.set(OPENCODE_PERMISSION='{"bash":"ask"}')
        text = "!todo one;two\n!bash echo by itself\n!task !bash echo by another\n!say all done"
        ran = world.cli("acp", "prompt", "pi", text, "--permissions", "auto", "--agent", "build", "--json")
        assert (ran.exit_code, ran.data["answer"]) == (0, "all done")
        asked = [one for one in ran.streams if one["type"] == "asked"]
        assert [(one["command"], bool(one["sub_agent"])) for one in asked] == [
            ("echo by itself", False),
            ("echo by another", True),
        ]
        outputs = [one["output"] for one in ran.streams if one["type"] == "tool" and one["status"] == "completed"]
        assert "by itself\n" in outputs
        session = ran.data["session_id"]
        again = world.cli("acp", "prompt", "pi", "/etc is a path\n!fail 401", "--session", session, "--json")
        assert (again.exit_code, again.error["kind"]) == (1, "auth_failed")
        assert again.data["session_id"] == session

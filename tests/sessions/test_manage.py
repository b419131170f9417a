"""`session new`, `adopt`, `fork`, `rename`, `forget`, `abort` and `delete` on the real server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.opencode.api import NoSuchSessionError
from remote_dispatch.opencode.served import ServedAgent
from remote_dispatch.sessions.manage import permission_rules
from tests.cli.terminal import Terminal, converse
from tests.rig.world import World
from tests.sessions.shell import Shell, begin, play, until_waiting

if TYPE_CHECKING:
    from pathlib import Path

    from tests.rig.served import Bench
    from tests.rig.zygote import Zygote

OUTSIDE = "!read /etc/hostname\n!say done"
"""OpenCode asks before it reads outside of the directory."""
pytestmark = pytest.mark.real


@pytest.fixture
def shell(tmp_path: Path, served: Bench, zygote: Zygote | None) -> Shell:
    return Shell(tmp_path / "home", served, zygote)


async def test_a_new_session_is_what_was_asked_for(shell: Shell, served: Bench) -> None:
    made = shell.data(
        "new", "box", "--name", "kumo", "--title", "The leak", "--agent", "plan", "--model", "scripted/small",
        "--works-on", "issue 4",
    )  # fmt: skip
    assert made["name"] == "kumo"
    assert (made["agent"], made["model"], made["permissions"]) == ("plan", "scripted/small", "ask")
    assert made["directory"] == served.directory
    assert not made["is_server_started"]
    async with served.api() as api:
        session = await api.session(made["session_id"])
    assert (session.title, session.agent, str(session.model)) == ("The leak", "plan", "scripted/small")
    assert session.permission == ()
    assert shell.store.load("kumo").works_on == "issue 4"


def test_a_new_session_says_what_was_chosen_and_the_next_command(shell: Shell) -> None:
    ran = shell("new", "box", "--name", "kumo")
    assert ran.exit_code == 0
    assert "agent build, model scripted/large, permissions ask" in ran.stdout
    assert 'remote-dispatch session send kumo "..."' in ran.stdout


def test_on_a_terminal_the_agents_are_offered_the_default_first(shell: Shell, served: Bench) -> None:
    (shell.home / "project").mkdir()
    terminal = Terminal(shell.home, {"OPENCODE_SERVER_PASSWORD": served.server.password, "NO_COLOR": "1"})
    answers = [("[build]: ", "7\n"), ("[build]: ", "2\n")]
    status, screen = converse(
        terminal, "session", "new", "box", answers=answers, program="from remote_dispatch.cli import main; main()"
    )
    assert status == 0
    assert screen.index("1  build") < screen.index("2  plan")
    assert "there is no agent `7` in this list" in screen
    assert "agent plan" in screen


@pytest.mark.parametrize(
    ("options", "exit_code", "hint"),
    [
        (["--agent", "buidl"], 9, "did you mean `build`?"),
        (["--agent", "general"], 9, "see what there is with `remote-dispatch session agents box`"),
        (["--model", "scripted/lrge"], 9, "did you mean `scripted/large` or `scripted/small`?"),
        (["--model", "large"], 2, "did you mean `scripted/large`?"),
        (["--directory", "/nowhere"], 9, "make it there, or name another one with `--directory`"),
        (["--name", "Kumo"], 2, "leave the name out, and one is made up"),
    ],
)
async def test_a_mistake_is_told_before_anything_is_made(
    shell: Shell, served: Bench, options: list[str], exit_code: int, hint: str
) -> None:
    async with served.api() as api:
        before = {one.id for one in await api.sessions()}
        ran = shell("new", "box", *options, "--json")
        assert (ran.exit_code, ran.error["hint"]) == (exit_code, hint)
        assert {one.id for one in await api.sessions()} == before
    assert shell.store.all() == []


def test_the_directory_may_begin_at_the_home_there(shell: Shell, served: Bench) -> None:
    assert shell.new("--directory", "~/project").directory == served.directory
    assert shell.new("--directory", "project").directory == served.directory


def test_the_entry_of_the_host_fills_what_was_left_open(shell: Shell, served: Bench) -> None:
    entry = {"server": served.server.url, "agent": "plan", "model": "scripted/small", "permissions": "deny"}
    shell.write_hosts(box=entry)
    made = shell.data("new", "box")
    assert (made["agent"], made["model"], made["permissions"]) == ("plan", "scripted/small", "deny")
    assert made["directory"] == str(served.server.home.directory)


def test_a_server_by_the_environment_needs_no_entry(shell: Shell, served: Bench) -> None:
    shell.write_hosts()
    shell.variables = {"OPENCODE_API_URL": served.server.url}
    made = shell.data("new", "server", "--directory", served.directory)
    assert made["host"] == "server"
    assert [one["state"] for one in shell.data("list")["sessions"]] == ["idle"]


async def test_what_would_ask_is_refused_or_granted(shell: Shell, served: Bench) -> None:
    denied, granted = shell.new("--permissions", "deny"), shell.new("--permissions", "auto")
    async with served.api() as api:
        for named, status in ((denied, "error"), (granted, "completed")):
            standing = await play(api, named, OUTSIDE)
            assert standing.end is not None
            assert standing.end.answer == "done"
            [tool] = [tool for one in shell.data("messages", named.name)["messages"] for tool in one["tools"]]
            assert tool["status"] == status


async def test_rules_of_a_file_are_added(shell: Shell, served: Bench) -> None:
    (shell.home / "rules.json").write_text(json.dumps({"bash": {"*": "deny", "git *": "allow"}}))
    named = shell.new("--permission-rules", "rules.json")
    async with served.api() as api:
        session = await api.session(named.session_id)
    assert [(rule["pattern"], rule["action"]) for rule in session.permission] == [("*", "deny"), ("git *", "allow")]


def test_a_file_that_holds_no_rules_is_refused(shell: Shell) -> None:
    (shell.home / "rules.json").write_text('{"bash": "perhaps"}')
    assert shell("new", "box", "--permission-rules", "rules.json").exit_code == 11
    assert shell("new", "box", "--permissions", "perhaps").exit_code == 2


def test_only_what_asks_is_decided() -> None:
    """Rules of a session win over every agent's: `plan` must go on denying edits."""
    rules = [("*", "*", "allow"), ("bash", "*", "ask"), ("bash", "git *", "allow"), ("edit", "*", "allow")]
    agent = ServedAgent(
        "build", "primary", permission=tuple({"permission": a, "pattern": b, "action": c} for a, b, c in rules)
    )
    granted = permission_rules("auto", None, agent)
    assert [(one["permission"], one["pattern"], one["action"]) for one in granted] == [
        ("bash", "*", "allow"),
        ("bash", "git *", "allow"),
    ]
    denied = permission_rules("deny", {"bash": {"ls": "allow"}}, agent)
    assert [(one["permission"], one["pattern"], one["action"]) for one in denied] == [
        ("bash", "*", "deny"),
        ("bash", "git *", "allow"),
        ("question", "*", "deny"),
        ("plan_enter", "*", "deny"),
        ("plan_exit", "*", "deny"),
        ("bash", "ls", "allow"),
    ]
    assert permission_rules("ask", None, agent) == ()


async def test_a_session_of_others_is_adopted_once(shell: Shell, served: Bench) -> None:
    async with served.api() as api:
        session = await api.create(served.directory, title="Made elsewhere")
    adopted = shell.data("adopt", "box", session.id, "--name", "kumo")
    assert (adopted["title"], adopted["directory"]) == ("Made elsewhere", served.directory)
    again = shell("adopt", "box", session.id, "--json")
    assert again.exit_code == 2
    assert again.error["message"] == "this session is called `kumo` already"


def test_what_is_not_there_cannot_be_adopted(shell: Shell) -> None:
    assert shell("adopt", "box", "ses_00000000000000000000").exit_code == 10
    assert shell("adopt", "box", "msg_1").exit_code == 2
    assert shell("adopt", "box").exit_code == 2
    assert shell("adopt", "nabi").exit_code == 10


async def test_a_fork_goes_its_own_way_under_the_same_rules(shell: Shell, served: Bench) -> None:
    named = shell.new("--permissions", "deny", "--works-on", "the leak")
    async with served.api() as api:
        await play(api, named, "!say one")
        await play(api, named, "!say two")
        first, _, third, _ = await api.messages(named.session_id)
        whole = shell.data("fork", named.name, "--name", "whole")
        half = shell.data("fork", named.name, "--at", third["info"]["id"])
        assert len(await api.messages(whole["session_id"])) == 4
        assert len(await api.messages(half["session_id"])) == 2
        assert (await api.session(whole["session_id"])).permission == (await api.session(named.session_id)).permission
    assert whole["works_on"] == "the leak"
    assert shell("fork", named.name, "--at", "msg_nowhere").exit_code == 10
    assert first["info"]["id"] != third["info"]["id"]


def test_names_are_changed_and_forgotten_here_alone(shell: Shell) -> None:
    named = shell.new("--name", "kumo")
    assert shell.data("rename", "kumo", "nabi")["session_id"] == named.session_id
    ran = shell("forget", "nabi")
    assert f"remote-dispatch session adopt box {named.session_id}" in ran.stdout
    assert shell.store.all() == []
    assert shell.data("adopt", "box", named.session_id)["session_id"] == named.session_id


async def test_an_abort_is_verified(shell: Shell, served: Bench) -> None:
    named = shell.new()
    async with served.api() as api:
        await begin(api, named, OUTSIDE)
        await until_waiting(api, named)
    aborted = shell.data("abort", named.name)
    assert aborted["was_at_work"]
    assert (aborted["state"], aborted["failure"], aborted["requests"]) == ("ended", "aborted", [])
    assert not shell.data("abort", named.name)["was_at_work"]


async def test_a_busy_session_is_aborted_and_deleted_once_that_is_agreed_to(shell: Shell, served: Bench) -> None:
    named = shell.new()
    async with served.api() as api:
        await begin(api, named, OUTSIDE)
        await until_waiting(api, named)
        refused = shell("delete", named.name)
        assert refused.exit_code == 7
        assert f"`remote-dispatch session delete {named.name} --yes`" in refused.stderr
        assert shell.data("delete", named.name, "--yes")["was_there"]
        with pytest.raises(NoSuchSessionError):
            await api.session(named.session_id)
        assert named.session_id not in await api.statuses(named.directory)
    assert shell.store.all() == []


async def test_a_name_whose_session_is_gone_can_be_deleted(shell: Shell, served: Bench) -> None:
    named = shell.new()
    async with served.api() as api:
        await api.delete(named.session_id)
    assert not shell.data("delete", named.name, "--yes")["was_there"]
    assert shell.store.all() == []


def test_a_wrong_password_is_said_so(shell: Shell) -> None:
    shell.variables = {"OPENCODE_SERVER_PASSWORD": "wrong"}
    assert shell("new", "box").exit_code == 4


def test_a_server_is_started_through_ssh_where_none_runs(tmp_path: Path, served: Bench, zygote: Zygote | None) -> None:
    with World(tmp_path / "world", served.server.opencode, served.model.url, starter=zygote) as world:
        assert "remote-dispatch session server start pi" in world.cli("session", "agents", "pi").stderr
        made = world.cli("session", "new", "pi", "--name", "kumo", "--json")
        assert made.exit_code == 0, made.stderr
        assert made.data["is_server_started"]
        assert made.data["directory"] == str(world.host.project)
        assert "starting an OpenCode server on pi" in made.stderr
        assert world.cli("session", "server", "stop", "pi").exit_code == 0
        [listed] = world.cli("session", "list", "--json").data["sessions"]
        assert listed["state"] == "server down"
        shown = world.cli("session", "show", "kumo")
        assert "remote-dispatch session server start pi" in shown.stdout

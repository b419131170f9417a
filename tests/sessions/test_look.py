"""`session list`, `show`, `messages`, `todo`, `diff`, `agents`, `models` and `open` on the real server."""

from __future__ import annotations

import base64
import signal
import subprocess
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import pytest

from tests.cli.terminal import Terminal, converse
from tests.rig.sshd import wait_until
from tests.sessions.shell import Shell, begin, play, until_waiting

if TYPE_CHECKING:
    from pathlib import Path

    from tests.rig.served import Bench
    from tests.rig.zygote import Zygote

pytestmark = pytest.mark.real


@pytest.fixture
def shell(tmp_path: Path, served: Bench, zygote: Zygote | None) -> Shell:
    return Shell(tmp_path / "home", served, zygote)


async def test_what_waits_for_somebody_stands_first_in_the_list(shell: Shell, served: Bench) -> None:
    fresh, ended, asking = shell.new(), shell.new(), shell.new("--works-on", "the hostname")
    async with served.api() as api:
        await begin(api, asking, "!read /etc/hostname")
        await until_waiting(api, asking)
        await play(api, ended, "!todo one;two\n!say fine")
    listed = shell.data("list")["sessions"]
    assert [one["name"] for one in listed] == [asking.name, ended.name, fresh.name]
    assert [one["state"] for one in listed] == ["waiting", "ended", "idle"]
    assert [one["failure"] for one in listed] == ["pending_permission", None, None]
    [request] = listed[0]["requests"]
    assert request["kind"] == "permission"
    assert listed[1]["todo"] == {"done": 0, "active": 1, "pending": 1, "total": 2, "task": "one"}
    assert listed[1]["tokens"] > 0
    table = shell("list").stdout.splitlines()
    assert table[1].split()[:4] == [asking.name, "box", "waiting", "(pending_permission)"]
    assert "the hostname" in table[1]
    shell("abort", asking.name)


def test_a_host_that_does_not_answer_is_a_remark_on_its_sessions_alone(shell: Shell) -> None:
    seen, away = shell.new(), shell.new()
    shell.store.update(away.name, lambda one: one.but(host="ghost"))
    ran = shell("list", "--json")
    assert ran.exit_code == 0
    assert {one["name"]: one["state"] for one in ran.data["sessions"]} == {seen.name: "idle", away.name: "unreachable"}
    assert len(ran.data["remarks"]) == 1
    assert ran.data["remarks"][0].startswith("ghost: ")
    shown = shell("show", away.name)
    assert shown.exit_code == 0
    assert away.session_id in shown.stdout
    assert "ghost: " in shown.stderr


async def test_a_session_that_was_deleted_there_is_gone(shell: Shell, served: Bench) -> None:
    named = shell.new()
    async with served.api() as api:
        await api.delete(named.session_id)
    [listed] = shell.data("list")["sessions"]
    assert (listed["state"], listed["todo"]) == ("gone", None)
    assert shell("messages", named.name).exit_code == 10


async def test_sessions_without_a_name_are_listed_when_asked_for(shell: Shell, served: Bench) -> None:
    named = shell.new()
    async with served.api() as api:
        other = await api.create(served.directory, title="Nobody's")
    assert shell.data("list", "--host", "box")["unnamed"] == []
    ids = [one["session_id"] for one in shell.data("list", "--host", "box", "--all")["unnamed"]]
    assert other.id in ids
    assert named.session_id not in ids


def test_a_record_that_cannot_be_read_is_a_warning(shell: Shell) -> None:
    shell.new("--name", "kumo")
    (shell.store.root / "nabi.json").write_text("{")
    ran = shell("list", "--json")
    assert ran.exit_code == 3
    assert [one["name"] for one in ran.data["sessions"]] == ["kumo"]
    assert "`nabi`" in ran.stderr


async def test_everything_of_a_session_is_shown(shell: Shell, served: Bench) -> None:
    named = shell.new("--title", "The leak")
    async with served.api() as api:
        await play(api, named, "!todo one;two\n!bash echo made > made.txt\n!think hm\n!say it leaks\\nhere")
        [prompt, *_] = await api.messages(named.session_id)
    shown = shell.data("show", named.name)
    assert (shown["title"], shown["verdict"], shown["agent"]) == ("The leak", "done", "build")
    assert shown["answer"] == "it leaks\nhere"
    messages = shell.data("messages", named.name)["messages"]
    assert [one["role"] for one in messages] == ["user", "assistant", "assistant", "assistant"]
    assert messages[0]["id"] == prompt["info"]["id"]
    assert [tool["tool"] for one in messages for tool in one["tools"]] == ["todowrite", "bash"]
    assert messages[-1]["text"] == "it leaks\nhere"
    assert [one["id"] for one in shell.data("messages", named.name, "-n", "1")["messages"]] == [messages[-1]["id"]]
    assert "  it leaks\n  here\n" in shell("messages", named.name).stdout
    todos = shell.data("todo", named.name)["todos"]
    assert [(one["content"], one["status"]) for one in todos] == [("one", "in_progress"), ("two", "pending")]


async def test_each_prompt_has_its_own_diff(shell: Shell, served: Bench) -> None:
    place = served.server.home.directory / "repository"
    place.mkdir(exist_ok=True)
    subprocess.run(["git", "init", "-q", str(place)], check=True, stdin=subprocess.DEVNULL, timeout=30)
    named = shell.new("--directory", str(place))
    async with served.api() as api:
        for name in ("one", "two"):
            await play(api, named, f"!bash echo {name} > {name}.txt\n!say written")
    turns = shell.data("diff", named.name)["turns"]
    assert [file["file"] for turn in turns for file in turn["files"]] == ["one.txt", "two.txt"]
    assert shell.data("diff", named.name, "--last")["turns"] == turns[1:]
    assert shell.data("diff", named.name, "--since", turns[1]["message_id"])["turns"] == turns[1:]
    assert "+++ two.txt" in shell("diff", named.name).stdout
    assert shell("diff", named.name, "--since", "msg_nowhere").exit_code == 10


def test_a_host_says_what_it_offers(shell: Shell) -> None:
    agents = shell.data("agents", "box")["agents"]
    assert '"build"' in (shell.home / ".local/state/remote-dispatch/offers/box.json").read_text()
    assert [one["name"] for one in agents] == ["build", "plan"]
    assert [one["is_default"] for one in agents] == [True, False]
    models = shell.data("models", "box")["models"]
    assert [one["model"] for one in models] == ["scripted/large", "scripted/small"]
    assert models[0]["is_default"]
    assert [one["model"] for one in shell.data("models", "box", "SMALL")["models"]] == ["scripted/small"]
    assert shell("models", "box", "sonnet").stderr == "none of its 2 models is called so\n"


def test_the_screen_of_opencode_gets_the_password_by_its_environment_alone(shell: Shell, served: Bench) -> None:
    named = shell.new()
    program = shell.home / "opencode"
    program.write_text(
        '#!/bin/sh\nprintf "%s\\n" "$@" >"$HOME/argv"\nprintf %s "$OPENCODE_SERVER_PASSWORD" >"$HOME/word"\n'
    )
    program.chmod(0o755)
    (shell.home / "project").mkdir()
    secrets = {"OPENCODE_SERVER_PASSWORD": served.server.password, "REMOTE_DISPATCH_OPENCODE": str(program)}
    terminal = Terminal(shell.home, {**secrets, "NO_COLOR": "1"})
    status, screen = converse(
        terminal, "session", "open", named.name, answers=[], program="from remote_dispatch.cli import main; main()"
    )
    assert (status, served.server.password in screen) == (0, False)
    argv = (shell.home / "argv").read_text().splitlines()
    assert argv == ["attach", served.server.url, "--dir", named.directory, "-s", named.session_id]
    assert (shell.home / "word").read_text() == served.server.password


def test_the_web_page_is_there_until_ctrl_c(shell: Shell, served: Bench) -> None:
    named = shell.new()
    process, output = shell.start("open", named.name, "--web", "--no-browser")
    wait_until(lambda: "Ctrl-C" in output.with_suffix(".err").read_text(), "the page was not opened")
    address = output.with_suffix(".out").read_text().splitlines()[0]
    login = ("opencode", served.server.password)
    assert httpx.get(address, trust_env=False).status_code == 401
    assert "<title>OpenCode" in httpx.get(address, auth=login, trust_env=False).text
    place = urlsplit(address).path.split("/")[1]
    assert base64.urlsafe_b64decode(place + "===").decode() == named.directory
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    said = output.with_suffix(".out").read_text() + output.with_suffix(".err").read_text()
    assert served.server.password not in said


def test_a_screen_needs_a_terminal_and_a_password_is_never_printed_elsewhere(shell: Shell) -> None:
    named = shell.new()
    screen = shell("open", named.name)
    assert screen.exit_code == 2
    assert "`--web`" in screen.stderr
    assert shell("open", named.name, "--web", "--show-password").exit_code == 2


async def test_a_session_that_is_gone_is_told_with_the_word_that_forgets_it(shell: Shell, served: Bench) -> None:
    named = shell.new()
    async with served.api() as api:
        await api.delete(named.session_id)
    assert f"session forget {named.name}" in shell("show", named.name).stdout
    assert shell("open", named.name, "--web", "--no-browser").exit_code == 10

"""Bad input is refused or harmless: never a traceback, never a command, never a changed session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.rig.world import Ran, World

REFUSED = (2, 9, 10)


def expect_harmless(world: World, ran: Ran, expected: Path | None) -> None:
    """Either it was refused and nothing ran, or it ran in exactly the directory that was meant."""
    assert not list(world.directory.rglob("canary"))
    if ran.exit_code in REFUSED:
        assert world.count_runs() == 0
    else:
        assert ran.exit_code == 0
        assert ran.data["remote_directory"] == str(expected)


@pytest.mark.parametrize(
    ("directory", "meant"),
    [
        ("'; touch canary; '", "'; touch canary; '"),
        ("$(touch canary)", "$(touch canary)"),
        ("~", ""),
        ("~root", "~root"),
        ("~/a b", "a b"),
        ("-rf", "-rf"),
        ("*", "*"),
        ("a\nb", None),
        ("\x1b[31m", None),
        ("x" * 5000, None),
        ("\udcff\udcfe", None),
        ("a-file", None),
        ("a-loop", None),
        ("to-project/..", ""),
    ],
)
def test_a_directory_is_only_a_directory(world: World, directory: str, meant: str | None) -> None:
    home = world.host.home
    (home / "a-file").write_text("a file")
    (home / "a-loop").symlink_to("a-loop")
    (home / "to-project").symlink_to("project")
    ran = world.send("!say done", "--session", world.local_session(), f"--directory={directory}")
    expect_harmless(world, ran, None if meant is None else home / meant)
    assert (meant is None) is (ran.exit_code in REFUSED)


def run_with(world: World, prompt: bytes) -> str:
    """Send a prompt by stdin and return the brief."""
    ran = world.cli("send", "pi", "-", "--session", world.local_session(), "--json", stdin=prompt)
    assert ran.exit_code == 0
    return world.brief()


def test_a_prompt_of_0_bytes_means_continue(world: World) -> None:
    assert "Continue the work of this conversation" in run_with(world, b"")


def test_a_prompt_of_5_megabytes_arrives_whole(world: World) -> None:
    prompt = "0123456789abcde\n" * (5 * 1024 * 1024 // 16)
    assert run_with(world, prompt.encode()).endswith(prompt)


@pytest.mark.parametrize("prompt", ["/init", "-x --help", "EOF\nEOF\n!say 'x'\n\"$(id)\"", "\n\n"])
def test_a_prompt_is_only_text(world: World, prompt: str) -> None:
    brief = run_with(world, prompt.encode())
    assert not brief.startswith(("/", "-", "!", "@"))
    assert not prompt.strip() or brief.endswith(prompt)


def test_a_prompt_that_is_no_text_is_refused(world: World) -> None:
    session = world.local_session()
    for prompt in (b"a\0b", b"a \xed\xa0\x80 b", b"\xff\xfe"):
        ran = world.cli("send", "pi", "-", "--session", session, "--json", stdin=prompt)
        assert (ran.exit_code, ran.error["kind"]) == (2, "usage"), prompt
    ran = world.send("a \udcff b", "--session", session)
    assert (ran.exit_code, ran.error["kind"]) == (2, "usage")
    assert (world.connections(), world.dispatch_folders()) == (0, [])


def test_what_is_no_model_is_refused(world: World) -> None:
    session = world.local_session()
    for model in ("/x", "x/", "x", "", "--help", '";touch canary;"', "a/b c", "a/b\nc", "\U0001f600"):
        ran = world.send("!say done", "--session", session, f"--model={model}")
        assert (ran.exit_code, world.connections()) == (2, 0), model


def test_a_model_that_the_host_does_not_have_is_refused(world: World) -> None:
    session = world.local_session()
    for model in ("a/b/c", "test/$(touch canary)", "a/\U0001f600"):
        ran = world.send("!say done", "--session", session, f"--model={model}")
        assert (ran.exit_code, world.count_runs()) == (2 if " " in model else 9, 0), model


def test_what_is_no_agent_of_the_host_is_refused(world: World) -> None:
    session = world.local_session()
    for agent in ("nobody", "-x", "';id;'", "build\n", "\u202ebuild", "a" * 10_000):
        ran = world.send("!say done", "--session", session, f"--agent={agent}")
        assert (ran.exit_code in REFUSED, world.count_runs()) == (True, 0), agent


def test_what_is_no_session_is_refused(world: World) -> None:
    world.local_session()
    for session in ("ses_../../x", "x", "-", "", "ses_", "ses_1' or '1'='1", "ses_" + "x" * 10_000, "*"):
        ran = world.send("!say done", f"--session={session}")
        assert (ran.exit_code, ran.error["kind"]) == (10, "unknown-name"), session
    assert world.connections() == 0


def test_a_sub_agents_session_goes_out_and_home_and_leaves_its_parent_alone(world: World) -> None:
    parent = world.local_session()
    child = world.local_session("a task", "done", parentID=parent)
    before = world.export_local(parent)
    ran = world.round_trip("!say more", "--session", child)
    assert ran.exit_code == 0
    assert world.export_local(parent) == before
    assert world.export_local(child)["info"]["parentID"] == parent


def test_an_option_with_a_bad_value_is_refused(world: World) -> None:
    session = world.local_session()
    modes = ("--mode=one-way\n", "--mode=both", "--mode=")
    for option in (*modes, "--permissions=ask", "--timeout=soon", "--timeout=0", "--timeout=-1"):
        ran = world.send("!say done", "--session", session, option)
        assert (ran.exit_code, world.connections()) == (2, 0), option


def test_permission_rules_that_make_no_sense_are_refused(world: World) -> None:
    session = world.local_session()
    rules = world.laptop.home / "rules.json"
    for text in ("{", "[1]", '{"bash": "maybe"}', "\0", '{"bash": {"*": 1}}', "[" * 100_000):
        rules.write_text(text)
        ran = world.send("!say done", "--session", session, "--permission-rules", str(rules))
        assert ran.exit_code in (2, 11), text
    assert world.connections() == 0


def test_what_is_no_host_name_is_refused(world: World) -> None:
    for host in ("", " ", "--", "a b", "a;id", "$(touch canary)", "../a", "PI", "\u202epi", "x" * 10_000, "p\u0456"):
        ran = world.cli("send", "--json", "--new", "--model=test/model", "--", host, "!say done")
        assert ran.exit_code in (2, 10), host
    assert world.connections() == 0
    assert not list(world.directory.rglob("canary"))

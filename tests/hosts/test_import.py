"""Hosts from ~/.ssh/config and from other hosts files: names come over, addresses are neither copied nor shown."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.cli import hosts_import
from remote_dispatch.cli.hosts_import import places_in
from remote_dispatch.hosts import Registry
from tests.cli.terminal import Terminal, converse, envelope

if TYPE_CHECKING:
    from pathlib import Path
    from subprocess import CompletedProcess

CONFIG = """\
Host gpu-box gpu
  HostName 203.0.113.7
  User me
  IdentityFile ~/.ssh/secret_key
Host pi
  HostName pi.lan
Host github.com
  User git
Host work-git
  HostName gitlab.example
  User git
Host mirror
  HostName gitlab.com
Host 10.9.8.7 me@gate.example full.example none "build box"
  Port 2222
Host *.lan !pi.lan
  User me
Host *
  ServerAliveInterval 5
"""
SECRETS = ("203.0.113.7", "me@", "secret_key", "pi.lan", "10.9.8.7", "gate.example", "full.example", "2222", "gitlab.")
PEER = """{ // a file of the npm plugin
  "hosts": {
    "dev": "user@10.0.0.5",
    "pi": { "host": "me@pi.lan", "port": 2222 },
    "win": { "host": "w@win.lan", "os": "windows", "agent": "build", "model": "provider/id", }, // PowerShell
  },
}
"""
assert hosts_import.import_hosts is not None  # importing it registers the command


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Somebody with a configuration of ssh, and no hosts yet."""
    home = tmp_path / "home"
    (home / "project").mkdir(parents=True)
    (home / ".ssh").mkdir(mode=0o700)
    (home / ".ssh" / "config").write_text(CONFIG)
    monkeypatch.chdir(home / "project")
    monkeypatch.setenv("HOME", str(home))
    return Terminal(home)


def import_hosts(terminal: Terminal, *words: str) -> CompletedProcess[str]:
    """Run `hosts import`; it says no address."""
    said = terminal("hosts", "import", *words)
    output = said.stdout + said.stderr
    assert "Traceback" not in output
    assert not [secret for secret in SECRETS if secret in output], output
    return said


def hosts(terminal: Terminal) -> dict[str, Any]:
    registry = Registry.load(environment=terminal.variables())
    assert registry.problems == ()
    return {name: registry[name].model_dump(exclude={"name"}, exclude_none=True) for name in registry.names}


def test_an_alias_becomes_a_host_whose_address_is_the_alias(terminal: Terminal) -> None:
    said = import_hosts(terminal, "gpu-box", "lab=pi")
    assert (said.returncode, said.stdout) == (0, "")
    assert said.stderr == (
        f"added `gpu-box`, `lab` to {terminal.file}\nnext: `remote-dispatch doctor` says whether they can be used\n"
    )
    assert hosts(terminal) == {"gpu-box": {"host": "gpu-box"}, "lab": {"host": "pi"}}


def test_nothing_that_ssh_knows_of_the_alias_is_copied(terminal: Terminal) -> None:
    import_hosts(terminal, "--all")
    text = terminal.file.read_text()
    assert not [secret for secret in SECRETS if secret in text]


def test_all_leaves_out_forges_what_is_there_and_names_that_are_addresses(terminal: Terminal) -> None:
    terminal.write('{"hosts": {"PI": "elsewhere", "card": "gpu"}}')
    said = import_hosts(terminal, "--all", "--json")
    data = envelope(said)["data"]
    assert data["hosts"] == ["gpu-box"]
    assert [one["name"] for one in data["left_out"]] == ["gpu", "pi", "github.com", "work-git", "mirror", *[None] * 4]
    assert "left out `mirror`: it looks like a code forge" in said.stderr
    assert "4 aliases cannot be names here" in said.stderr
    assert set(hosts(terminal)) == {"PI", "card", "gpu-box"}


def test_all_twice_adds_nothing_the_second_time(terminal: Terminal) -> None:
    import_hosts(terminal, "--all")
    before = terminal.file.read_bytes()
    said = import_hosts(terminal, "--all")
    assert said.returncode == 0
    assert "nothing new" in said.stderr
    assert terminal.file.read_bytes() == before


def test_a_forge_can_be_named(terminal: Terminal) -> None:
    assert import_hosts(terminal, "mirror").returncode == 0
    assert hosts(terminal) == {"mirror": {"host": "mirror"}}


@pytest.mark.parametrize("alias", ["10.9.8.7", "me@gate.example", "none"])
def test_an_alias_that_is_no_name_wants_one(terminal: Terminal, alias: str) -> None:
    said = import_hosts(terminal, alias)
    assert said.returncode == 2
    assert "`remote-dispatch hosts import NAME=ALIAS`" in said.stderr
    assert import_hosts(terminal, f"gate={alias}").returncode == 0
    assert hosts(terminal) == {"gate": {"host": alias}}


def test_a_word_that_only_a_pattern_covers_can_be_named(terminal: Terminal) -> None:
    assert import_hosts(terminal, "attic=box.lan").returncode == 0
    assert hosts(terminal) == {"attic": {"host": "box.lan"}}


def test_an_unknown_alias_gets_the_nearest_ones_suggested(terminal: Terminal) -> None:
    said = import_hosts(terminal, "gpu-bx", "--json")
    assert said.returncode == 10
    assert envelope(said)["error"]["message"] == "~/.ssh/config has no `gpu-bx`"
    assert "`gpu-box`" in envelope(said)["error"]["hint"]
    assert import_hosts(terminal, "x=203.0.113.7").returncode == 10


@pytest.mark.parametrize(
    "words",
    [
        ("gpu-box", "pi"),
        ("gpu-box", "gpu-box"),
        ("gpu-box", "a b=gpu"),
        ("gpu-box", "all=gpu"),
        ("gpu-box", "nix"),
        ("gpu-box", "--all"),
        ("gpu-box", "Gpu-Box=gpu"),
    ],
)
def test_what_is_named_comes_as_a_whole_or_not_at_all(terminal: Terminal, words: tuple[str, ...]) -> None:
    text = '// mine\n{"hosts": {"pi": "elsewhere"}} // end\n'
    terminal.write(text)
    assert import_hosts(terminal, *words).returncode in (2, 10)
    assert terminal.file.read_text() == text


def test_comments_and_formatting_stay(terminal: Terminal) -> None:
    text = '// mine\n{ "hosts": {\n    "old": "x", // the first\n} } // end\n'
    terminal.write(text)
    import_hosts(terminal, "gpu", "pi")
    lines = terminal.file.read_text().splitlines()
    assert [line for line in lines if re.search("gpu|pi", line) is None] == text.splitlines()
    assert len(lines) == 6


def test_a_dry_run_changes_nothing(terminal: Terminal) -> None:
    said = import_hosts(terminal, "--all", "--dry-run", "--json")
    assert envelope(said)["data"]["hosts"] == ["gpu-box", "gpu", "pi"]
    assert "would add" in said.stderr
    assert not terminal.file.exists()


def test_without_a_terminal_names_are_needed(terminal: Terminal) -> None:
    said = import_hosts(terminal, "--json")
    assert said.returncode == 7
    assert envelope(said)["error"]["hint"] == "name them (`gpu-box`, `gpu`, `pi` ...), or take all with `--all`"


def test_on_a_terminal_the_user_chooses_from_names(terminal: Terminal) -> None:
    terminal.write('{"hosts": {"pi": "elsewhere"}}')
    code, screen = converse(terminal, "hosts", "import", answers=[("Which?", "9\n"), ("Which?", "1 3\n")])
    assert code == 0, screen
    assert screen.replace("\r", "").splitlines()[:6] == [
        "  1  gpu-box",
        "  2  gpu",
        "  -  pi  (there already)",
        "  3  github.com  (looks like a code forge: not in `all`)",
        "  4  work-git  (looks like a code forge: not in `all`)",
        "  5  mirror  (looks like a code forge: not in `all`)",
    ]
    assert not [secret for secret in SECRETS if secret in screen]
    assert set(hosts(terminal)) == {"pi", "gpu-box", "github.com"}


def test_all_on_a_terminal_takes_no_forge_and_nothing_leaves_all_as_it_was(terminal: Terminal) -> None:
    assert converse(terminal, "hosts", "import", answers=[("Which?", "\n")])[0] == 2
    assert not terminal.file.exists()
    assert converse(terminal, "hosts", "import", answers=[("Which?", "all\n")])[0] == 0
    assert set(hosts(terminal)) == {"gpu-box", "gpu", "pi"}


@pytest.mark.parametrize(
    ("text", "places"), [("1", [0]), ("3 1,1", [0, 2]), ("2-4", [1, 2, 3]), ("4,1-2", [0, 1, 3]), (" 5 ", [4])]
)
def test_numbers_and_ranges_are_read(text: str, places: list[int]) -> None:
    assert places_in(text, 5) == places


@pytest.mark.parametrize("text", ["0", "6", "1-", "-1", "x", "1-9", "1 2 x", "1" * 5000, "²", "1-2-3"])
def test_other_answers_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="from 1 to 5"):
        places_in(text, 5)


def test_without_a_configuration_of_ssh_the_next_step_is_said(terminal: Terminal) -> None:
    (terminal.path / ".ssh" / "config").unlink()
    said = import_hosts(terminal)
    assert said.returncode == 2
    assert "hosts add NAME ADDRESS" in said.stderr
    assert import_hosts(terminal, "--all").returncode == 0


def test_a_configuration_that_ssh_refuses_can_be_imported_all_the_same(terminal: Terminal) -> None:
    (terminal.path / ".ssh" / "config").write_text("NoSuchKeyword yes\nHost lab\n")
    assert import_hosts(terminal, "--all").returncode == 0
    assert hosts(terminal) == {"lab": {"host": "lab"}}


def test_the_given_hosts_file_is_the_one_that_grows(terminal: Terminal) -> None:
    other = terminal.path / "other.json"
    assert import_hosts(terminal, "pi", "--hosts", str(other)).returncode == 0
    assert json.loads(other.read_text())["hosts"] == {"pi": "pi"}
    assert not terminal.file.exists()


# --- from a hosts file


@pytest.fixture
def peer(terminal: Terminal) -> Path:
    file = terminal.path / "peer.jsonc"
    file.write_text(PEER)
    return file


def test_a_file_of_the_npm_plugin_comes_with_all_its_fields(terminal: Terminal, peer: Path) -> None:
    said = import_hosts(terminal, "--from", str(peer), "--all")
    assert said.returncode == 0
    assert hosts(terminal) == {
        "dev": {"host": "user@10.0.0.5"},
        "pi": {"host": "me@pi.lan", "port": 2222},
        "win": {"host": "w@win.lan", "os": "windows", "agent": "build", "model": "provider/id"},
    }


def test_a_file_of_ours_comes_with_all_its_fields(terminal: Terminal) -> None:
    entry = {
        "host": "me@x.lan:2222",
        "variant": "v",
        "directory": "~/src",
        "permissions": "auto",
        "permission_rules": {"bash": {"*": "deny", "git *": "allow"}},
        "opencode": "~/o",
        "env": {"A": "b"},
        "code": "carry",
        "server": "http://x.lan:4096",
        "server_user": "ada",
        "server_password_env": "A",
        "server_password_command": ["pass", "show"],
    }
    file = terminal.path / "other.json"
    file.write_text(json.dumps({"hosts": {"x": entry, "s": {"server": "http://y.lan"}}}))
    assert import_hosts(terminal, "--from", str(file), "x", "t=s").returncode == 0
    assert hosts(terminal) == {"x": entry, "t": {"server": "http://y.lan"}}


def test_names_that_are_taken_are_left_out_and_named_or_come_under_another(terminal: Terminal, peer: Path) -> None:
    terminal.write('{"hosts": {"pi": "mine"}}')
    said = import_hosts(terminal, "--from", str(peer), "--all")
    assert "left out `pi`: there is a host of this name or address already" in said.stderr
    assert hosts(terminal)["pi"] == {"host": "mine"}
    assert import_hosts(terminal, "--from", str(peer), "pi").returncode == 2
    assert import_hosts(terminal, "--from", str(peer), "old-pi=pi").returncode == 0
    assert hosts(terminal)["old-pi"] == {"host": "me@pi.lan", "port": 2222}


def test_wrong_entries_are_named_and_the_others_come(terminal: Terminal, peer: Path) -> None:
    peer.write_text('{"hosts": {"ok": "x", "bad": {"host": "me@203.0.113.7", "port": "y"}, "10.9.8.7": "z"}}')
    said = import_hosts(terminal, "--from", str(peer), "--all")
    assert said.returncode == 3
    assert "host `bad`: `port`" in said.stderr
    assert set(hosts(terminal)) == {"ok"}
    assert import_hosts(terminal, "--from", str(peer), "bad").returncode == 11


@pytest.mark.parametrize(("text", "code"), [(None, 2), ("{", 11), ("[]", 11)])
def test_a_file_that_is_missing_or_broken_is_an_error(
    terminal: Terminal, peer: Path, text: str | None, code: int
) -> None:
    peer.unlink()
    if text is not None:
        peer.write_text(text)
    assert import_hosts(terminal, "--from", str(peer), "--all").returncode == code
    assert not terminal.file.exists()


def test_where_ssh_says_nothing_a_full_host_name_is_an_address(terminal: Terminal) -> None:
    with (terminal.path / ".ssh/config").open("a") as config:
        config.write("Host named.example\n  HostName 203.0.113.7\nNoSuchKeyword yes\n")
    said = import_hosts(terminal, "--all", "--json")
    assert "named.example" not in said.stdout + said.stderr
    assert "gpu-box" in envelope(said)["data"]["hosts"]


def test_a_full_host_name_that_only_a_pattern_covers_wants_a_name(terminal: Terminal) -> None:
    said = import_hosts(terminal, "attic.lan")
    assert (said.returncode, "`remote-dispatch hosts import NAME=ALIAS`" in said.stderr) == (2, True)
    assert not terminal.file.exists()

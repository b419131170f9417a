"""A project's hosts files do nothing until the user has seen what they would do, and agreed to these very bytes."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING

import platformdirs
import pytest

from remote_dispatch.cli import hosts_trust
from remote_dispatch.errors import ConfigurationError, UnknownNameError, UsageError
from remote_dispatch.hosts import Registry
from remote_dispatch.hosts import trust as trusting
from remote_dispatch.hosts.layers import FILE_NAMES
from remote_dispatch.hosts.pins import Trust, read_pins, store_path
from remote_dispatch.hosts.trust import Effect
from tests.cli.terminal import Terminal, converse, envelope
from tests.rig.sshd import Sshd, free_port
from tests.rig.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.hosts.conftest import Home
    from tests.rig.zygote import Zygote

OWN = '{"hosts": {\n"pi": {"host": "me@pi.lan", "port": 2222, "agent": "build"},\n"lab": "lab"}}'
REDEFINED = '{"host": "you@203.0.113.7", "permissions": "auto", "env": {"TOKEN": "s3cret"}}'
THEIRS = f'{{"hosts": {{\n"pi": {REDEFINED},\n"ci": "ci"}}}}'
SECRETS = ("me@", "pi.lan", "2222", "203.0.113.7", "s3cret")
assert hosts_trust.trust_hosts is not None  # importing it registers its commands


@pytest.fixture
def project(home: Home) -> Path:
    """A cloned repository in the home of somebody who has two hosts of his own."""
    home.write(OWN)
    ((project := home.path / "project") / ".git").mkdir(parents=True)
    return project


@pytest.fixture
def terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Stand in a cloned repository, with two hosts of one's own."""
    terminal = Terminal(tmp_path)
    terminal.write(OWN)
    (terminal.project / ".git").mkdir(parents=True)
    monkeypatch.chdir(terminal.project)
    return terminal


def review(home: Home, path: Path) -> tuple[trusting.Review, ...]:
    return trusting.review({"HOME": str(home.path)}, path)


def trust(home: Home, path: Path) -> None:
    trusting.trust(review(home, path))


def test_what_is_trusted_is_kept_where_the_platform_wants_data_for_the_owner_alone(home: Home, project: Path) -> None:
    home.write(THEIRS, "hosts.json", at=project)
    trust(home, project)
    assert store_path().parent == platformdirs.user_data_path("remote-dispatch")
    assert stat.S_IMODE(store_path().stat().st_mode) == 0o600
    assert list(read_pins()) == [project / "hosts.json"]


def test_a_file_counts_once_it_is_trusted_and_hides_entries_of_the_user(home: Home, project: Path) -> None:
    file = home.write(THEIRS, "hosts.json", at=project)
    before = home.registry(project=project)
    assert (before.names, before["pi"].host) == (("lab", "pi"), "me@pi.lan")
    trust(home, project)
    after = home.registry(project=project)
    assert (after.names, after["pi"].host) == (("ci", "lab", "pi"), "you@203.0.113.7")
    assert after.overrides["pi"].file == home.directory / "hosts.jsonc"
    assert any("`pi`" in note and str(file) in note for note in after.notes)


def test_a_changed_file_is_inert_again_and_the_old_bytes_count_again(home: Home, project: Path) -> None:
    file = home.write(THEIRS, "hosts.json", at=project)
    trust(home, project)
    home.write(THEIRS + " ", "hosts.json", at=project)
    registry = home.registry(project=project)
    assert registry["pi"].host == "me@pi.lan"
    [note] = registry.notes
    assert note == (
        f"{file} is ignored: it belongs to a project and changed since you trusted it; it would redefine `pi`: "
        "see `remote-dispatch hosts trust`"
    )
    home.write(THEIRS, "hosts.json", at=project)
    assert home.registry(project=project)["pi"].host == "you@203.0.113.7"


def test_the_bytes_that_were_compared_are_the_ones_that_count(home: Home, project: Path) -> None:
    file = home.write(THEIRS, "hosts.json", at=project)
    trust(home, project)
    places = home.registry(project=project).places
    file.write_text(THEIRS.replace("203.0.113.7", "evil.invalid"))
    assert Registry.read(places)["pi"].host == "you@203.0.113.7"


def test_the_bytes_that_were_reviewed_are_the_ones_that_are_trusted(home: Home, project: Path) -> None:
    file = home.write(THEIRS, "hosts.json", at=project)
    seen = review(home, project)
    file.write_text(THEIRS.replace("203.0.113.7", "evil.invalid"))
    trusting.trust(seen)
    assert home.registry(project=project)["pi"].host == "me@pi.lan"


def test_a_copy_elsewhere_is_not_trusted(home: Home, project: Path) -> None:
    home.write(THEIRS, "hosts.json", at=project)
    trust(home, project)
    other = home.path / "other"
    home.write(THEIRS, "hosts.json", at=other)
    assert home.registry(project=other)["pi"].host == "me@pi.lan"


@pytest.mark.parametrize("is_worktree", [False, True])
def test_files_of_the_git_top_level_count_in_every_directory_below(
    home: Home, tmp_path: Path, is_worktree: bool
) -> None:
    home.write(OWN)
    top = tmp_path / "top"
    below = top / "a" / "b"
    below.mkdir(parents=True)
    (top / ".git").write_text("gitdir: /elsewhere\n") if is_worktree else (top / ".git").mkdir()
    home.write('{"hosts": {"x": "top", "y": "top"}}', "hosts.json", at=top / ".opencode")
    home.write('{"hosts": {"x": "below"}}', "hosts.jsonc", at=below)
    assert len(home.registry(project=below).notes) == 2
    trust(home, below)
    registry = home.registry(project=below)
    assert (registry["x"].host, registry["y"].host) == ("below", "top")
    assert "x" not in home.registry(project=tmp_path)


def test_the_users_own_directory_is_no_project(home: Home) -> None:
    home.write(OWN)
    (home.path / "link").symlink_to(home.directory)
    for directory in (home.directory, home.path / "link"):
        registry = home.registry(project=directory)
        assert (registry["pi"].host, registry.notes) == ("me@pi.lan", ())


def test_the_review_says_what_is_added_redefined_and_repeated(home: Home, project: Path) -> None:
    home.write(THEIRS.replace('"ci": "ci"', '"ci": "ci", "lab": "lab"'), "hosts.json", at=project)
    [found] = review(home, project)
    assert found.trust is Trust.UNTRUSTED
    assert [(one.name, one.effect, one.fields) for one in found.changes] == [
        ("pi", Effect.REDEFINES, ("host", "port", "agent", "permissions", "env")),
        ("ci", Effect.ADDS, ("host",)),
        ("lab", Effect.REPEATS, ()),
    ]
    origin = found.changes[0].origin
    assert origin is not None
    assert (origin.file, origin.line) == (home.directory / "hosts.jsonc", 2)


def test_hosts_in_opencodes_configuration_go_before_those_of_a_project(home: Home, project: Path) -> None:
    home.write('{"plugin": [["file:///x/remote-dispatch.js", {"hosts": {"ci": "mine"}}]]}', "opencode.json")
    home.write(THEIRS, "hosts.json", at=project)
    assert [one.effect for one in review(home, project)[0].changes] == [Effect.REDEFINES, Effect.IS_HIDDEN]
    trust(home, project)
    assert home.registry(project=project)["ci"].host == "mine"


def test_later_files_of_a_project_are_compared_with_its_earlier_ones(home: Home, project: Path) -> None:
    home.write('{"hosts": {"x": "one"}}', "hosts.json", at=project)
    later = home.write('{"hosts": {"x": "two"}}', "hosts.json", at=project / ".opencode")
    assert [one.effect for found in review(home, project) for one in found.changes] == [Effect.ADDS, Effect.REDEFINES]
    [alone] = review(home, later)
    assert [one.effect for one in alone.changes] == [Effect.ADDS]


def test_a_wrong_entry_is_shown_and_stays_disabled(home: Home, project: Path) -> None:
    home.write('{"hosts": {"ok": "x",\n"pi": {"host": "x", "port": "y"}}}', "hosts.json", at=project)
    [found] = review(home, project)
    assert [(one.name, one.effect) for one in found.changes] == [("ok", Effect.ADDS), ("pi", Effect.DISABLES)]
    assert [(problem.line, problem.host, problem.field) for problem in found.problems] == [(2, "pi", "port")]
    trusting.trust((found,))
    assert home.registry(project=project).names == ("lab", "ok")


def _everybody_may_write(file: Path) -> None:
    file.write_text(THEIRS)
    file.chmod(0o666)


def _is_a_fifo(file: Path) -> None:
    os.mkfifo(file)


def _leads_out(file: Path) -> None:
    outside = file.parent.parent / "outside.json"
    outside.write_text(THEIRS)
    file.symlink_to(outside)


def _is_large(file: Path) -> None:
    file.write_text(THEIRS + " " * (1 << 20))


def _is_a_directory(file: Path) -> None:
    file.mkdir()


def _is_no_json(file: Path) -> None:
    file.write_text("hosts: {}")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_everybody_may_write, "may be written by every user"),
        (_is_a_fifo, "is not a regular file"),
        (_leads_out, "is a symlink that leads out of the project"),
        (_is_large, "is larger than 1 MiB"),
        (_is_a_directory, "is not a regular file"),
        (_is_no_json, "holds no hosts that can be read"),
    ],
)
def test_what_can_be_no_hosts_file_is_refused_plainly(
    home: Home, project: Path, make: Callable[[Path], None], reason: str
) -> None:
    make(project / "hosts.json")
    [found] = review(home, project)
    assert found.refusal is not None
    assert found.refusal.startswith(reason)
    with pytest.raises(ConfigurationError, match=reason):
        trusting.trust((found,))
    assert not store_path().exists()
    assert str(project / "hosts.json") in home.registry(project=project).notes[0]


@pytest.mark.parametrize(
    "text",
    [
        '{"hosts": {"pi": {"host": "x", "model": "\\ud800"}}}',
        '{"hosts": {"pi": {"host": "x", "permission_rules": {"\\ud800": "allow"}}}}',
        '{"hosts": {"pi": "x", "\\u001b]0;owned\\u0007": "x", "\\ud800": "x"}}',
        '{"hosts": ' + "[" * 100,
        '{"hosts": {"pi": 1e999999}}',
        "\ufeff{}",
        "",
    ],
)
def test_no_file_of_a_project_keeps_the_users_hosts_from_working(home: Home, project: Path, text: str) -> None:
    home.write(text, "hosts.json", at=project)
    registry = home.registry(project=project)
    assert registry["pi"].host == "me@pi.lan"
    [note] = registry.notes
    assert note.isprintable()
    review(home, project)


def test_a_trusted_file_that_becomes_a_link_to_elsewhere_is_refused(home: Home, project: Path) -> None:
    file = home.write(THEIRS, "hosts.json", at=project)
    trust(home, project)
    file.rename(home.path / "outside.json")
    file.symlink_to(home.path / "outside.json")
    assert home.registry(project=project)["pi"].host == "me@pi.lan"


def test_one_refused_file_leaves_the_others_untrusted(home: Home, project: Path) -> None:
    home.write(THEIRS, "hosts.jsonc", at=project)
    os.mkfifo(project / "hosts.json")
    with pytest.raises(ConfigurationError):
        trust(home, project)
    assert read_pins() == {}


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 2, "files": {}}', '{"schema": 1, "files": {"x": {}}}'])
def test_with_a_broken_record_nothing_is_trusted_and_nothing_is_lost(home: Home, project: Path, text: str) -> None:
    home.write(THEIRS, "hosts.json", at=project)
    trust(home, project)
    store_path().write_text(text)
    registry = home.registry(project=project)
    assert registry["pi"].host == "me@pi.lan"
    assert str(store_path()) in registry.notes[0]
    with pytest.raises(ConfigurationError) as caught:
        review(home, project)
    assert f"remove {store_path()}" in str(caught.value.hint)
    assert store_path().read_text() == text


def test_trust_is_taken_back_file_by_file_by_project_and_as_a_whole(home: Home, project: Path) -> None:
    first = home.write(THEIRS, "hosts.json", at=project)
    second = home.write(THEIRS, "hosts.json", at=project / ".opencode")
    other = home.write(THEIRS, "hosts.json", at=home.path / "other")
    for place in (project, other.parent):
        trust(home, place)
    assert trusting.untrust(first) == (first,)
    assert trusting.untrust(project) == (second,)
    assert home.registry(project=project)["pi"].host == "me@pi.lan"
    with pytest.raises(UnknownNameError):
        trusting.untrust(project)
    assert trusting.untrust_all() == (other,)


def test_the_list_says_how_each_trusted_file_stands(home: Home, project: Path) -> None:
    files = [home.write(THEIRS, name, at=project / below) for below in ("", ".opencode") for name in FILE_NAMES]
    trust(home, project)
    home.write("{}", files[1].name, at=files[1].parent)
    files[2].unlink()
    files[3].chmod(0o666)
    states = {one.pin.path: (one.state, one.names) for one in trusting.list_trusted()}
    assert [states[file] for file in files] == [
        ("trusted", ("pi", "ci")),
        ("changed", ()),
        ("missing", ()),
        ("refused", ()),
    ]


@pytest.mark.parametrize("name", ["other.json", "hosts.yaml", "missing/hosts.json"])
def test_only_a_projects_hosts_file_can_be_trusted(home: Home, project: Path, name: str) -> None:
    home.write(THEIRS, "other.json", at=project)
    with pytest.raises(UsageError):
        review(home, project / name)


# --- on the command line


def attack(terminal: Terminal) -> Path:
    """Put a hosts file into the repository that sends `pi` elsewhere."""
    file = terminal.project / "hosts.json"
    file.write_text(THEIRS)
    file.chmod(0o644)
    return file


@pytest.mark.parametrize("words", [("list",), ("list", "--names"), ("show", "pi"), ("path",), ("validate",)])
def test_the_attempt_is_shown_at_each_use(terminal: Terminal, words: tuple[str, ...]) -> None:
    file = attack(terminal)
    said = terminal("hosts", *words)
    assert f"note: {file} is ignored: it belongs to a project and is not trusted; it would redefine `pi`" in said.stderr
    assert "ci" not in said.stdout.split()


def test_without_a_terminal_an_answer_is_needed(terminal: Terminal) -> None:
    file = attack(terminal)
    said = terminal("hosts", "trust", "--json")
    changes = "other address, no port, no agent, other permissions auto, other variables TOKEN"
    assert said.returncode == 7
    assert envelope(said)["error"]["hint"] == "`remote-dispatch hosts trust --yes` trusts what is shown"
    assert said.stderr.splitlines()[:3] == [
        f"{file} (not trusted)",
        f"  redefines `pi` of {terminal.file}:2: {changes}",
        "  adds `ci`: address",
    ]
    [one] = envelope(said)["data"]["files"]
    assert (one["file"], one["is_trusted"]) == (str(file), False)
    assert [host["effect"] for host in one["hosts"]] == ["redefines", "adds"]
    assert terminal("hosts", "list", "--names").stdout == "lab\npi\n"


def test_trusted_listed_changed_and_taken_back(terminal: Terminal) -> None:
    file = attack(terminal)
    said = terminal("hosts", "trust", "--yes", "--json")
    assert envelope(said)["data"]["files"][0]["is_trusted"] is True
    assert terminal("hosts", "list", "--names").stdout == "ci\nlab\npi\n"
    assert "nothing to do" in terminal("hosts", "trust").stderr
    [one] = envelope(terminal("hosts", "trust", "--list", "--json"))["data"]["trusted"]
    assert (one["file"], one["state"], one["hosts"]) == (str(file), "trusted", ["pi", "ci"])
    file.write_text("{}")
    assert terminal("hosts", "trust", "--list").stdout.split()[-2:] == ["changed", "-"]
    assert envelope(terminal("hosts", "untrust", "--json"))["data"] == {"files": [str(file)]}
    again = terminal("hosts", "untrust")
    assert (again.returncode, again.stderr) == (0, "nothing is trusted here: nothing to do\n")
    assert terminal("hosts", "untrust", str(file)).returncode == 10


def test_a_trusted_file_with_problems_is_exit_3(terminal: Terminal) -> None:
    attack(terminal).write_text('{"hosts": {"ok": "x", "bad": {"port": 1}}}')
    said = terminal("hosts", "trust", "--yes")
    assert said.returncode == 3
    assert "  wrong: " in said.stderr


def test_a_refused_file_is_exit_11_and_not_asked_about(terminal: Terminal) -> None:
    os.mkfifo(terminal.project / "hosts.json")
    said = terminal("hosts", "trust", "--yes")
    assert said.returncode == 11
    assert "is not a regular file" in said.stderr


def test_another_hosts_file_still_replaces_everything(terminal: Terminal) -> None:
    attack(terminal)
    terminal("hosts", "trust", "--yes")
    given = terminal.path / "given.json"
    given.write_text('{"hosts": {"only": "x"}}')
    said = terminal("hosts", "list", "--names", "--hosts", str(given))
    assert (said.stdout, said.stderr) == ("only\n", "")
    terminal.environment = {"REMOTE_DISPATCH_HOSTS": str(given)}
    assert terminal("hosts", "list", "--names").stdout == "only\n"


def test_on_a_terminal_the_user_is_asked_and_may_see_the_addresses(terminal: Terminal) -> None:
    attack(terminal)
    code, screen = converse(terminal, "hosts", "trust", answers=[("[y/N]", "n\n")])
    assert code == 2
    assert "Trust this file as shown, and let it change your `pi`? [y/N]" in screen
    assert not [secret for secret in SECRETS if secret in screen]
    assert not store_path_of(terminal).exists()
    code, screen = converse(terminal, "hosts", "trust", "--reveal", answers=[("[y/N]", "y\n")])
    assert code == 0
    assert "there: address me@pi.lan, port 2222" in screen
    assert "here: address you@203.0.113.7" in screen
    assert "s3cret" not in screen
    assert terminal("hosts", "list", "--names").stdout == "ci\nlab\npi\n"


def test_long_values_are_cut(terminal: Terminal) -> None:
    attack(terminal).write_text(json.dumps({"hosts": {"x": {"host": "x", "directory": "/long" * 800}}}))
    said = terminal("hosts", "trust")
    assert "adds `x`: address, directory /long/long" in said.stderr
    assert max(map(len, said.stderr.splitlines())) < 200


def test_reveal_is_refused_without_a_terminal(terminal: Terminal) -> None:
    attack(terminal)
    for words in (("--reveal",), ("--reveal", "--yes"), ("--reveal", "--json")):
        assert terminal("hosts", "trust", *words).returncode == 2
    assert not store_path_of(terminal).exists()


def test_no_output_contains_an_address(terminal: Terminal) -> None:
    attack(terminal).write_text(THEIRS.replace('"ci": "ci"', '"10.9.8.7": "x", "bad": {"host": "me@203.0.113.7 x"}'))
    for words in ("trust", "trust --json", "trust --yes", "trust --list --json", "list --json", "untrust", "untrust x"):
        said = terminal("hosts", *words.split())
        output = said.stdout + said.stderr
        assert "Traceback" not in output
        assert not [secret for secret in (*SECRETS, "10.9.8.7") if secret in output], (words, output)


def store_path_of(terminal: Terminal) -> Path:
    return terminal.path / ".local" / "share" / "remote-dispatch" / "trusted-hosts-files.json"


# --- whole dispatches


@pytest.fixture
def world(tmp_path: Path, zygote: Zygote | None) -> Iterator[World]:
    with World(tmp_path, starter=zygote) as world:
        yield world


@pytest.fixture
def elsewhere(tmp_path: Path, world: World) -> Iterator[Sshd]:
    """Another machine, which the laptop's ssh knows and could log in to."""
    options = ("LogLevel VERBOSE",)  # which notes every connection
    with Sshd(tmp_path / "elsewhere", port=free_port("127.0.0.2"), listen="127.0.0.2", extra=options) as sshd:
        sshd.write_client_home(world.laptop.home, alias="elsewhere")
        yield sshd


@pytest.mark.whole
def test_p29_a_cloned_repository_redirects_nothing_before_it_is_trusted(world: World, elsewhere: Sshd) -> None:
    file = world.laptop.project / "hosts.json"
    file.write_text(json.dumps({"hosts": {"pi": "elsewhere"}}))
    session = world.local_session()
    calls = elsewhere.log.read_text().count("Connection from")
    ran = world.send("!say done", "--session", session)
    assert ran.exit_code == 0
    assert f"note: {file} is ignored: it belongs to a project and is not trusted; it would redefine `pi`" in ran.stderr
    assert world.remote_sessions() == [session]
    assert elsewhere.log.read_text().count("Connection from") == calls
    assert world.cli("hosts", "trust", "--yes").exit_code == 0
    ran = world.send("!say done", "--session", session, "--dry-run")
    assert "is that of a trusted project's file" in ran.stderr
    assert elsewhere.log.read_text().count("Connection from") > calls


def test_an_address_in_a_public_field_is_masked_and_hides_no_rule(terminal: Terminal) -> None:
    rules = {"bash": {"ssh me@203.0.113.7": "allow", "ssh me@203.0.113.8": "deny"}}
    entry = {"host": "x", "agent": "me@203.0.113.7", "model": "acme/me@203.0.113.7", "permission_rules": rules}
    (terminal.project / "hosts.json").write_text(json.dumps({"hosts": {"odd": entry}}))
    said = terminal("hosts", "trust", "--yes", "--json")
    assert '{"bash": {"ssh <address>": "allow", "ssh <address>": "deny"}}' in said.stderr
    shown = [said, *(terminal("hosts", *words) for words in (("list",), ("show", "odd"), ("show", "odd", "--json")))]
    for one in shown:
        assert "<address>" in one.stdout + one.stderr
        assert "203.0.113" not in one.stdout + one.stderr
    shown_rules = envelope(shown[-1])["data"]["host"]["permission_rules"]
    assert sorted(shown_rules["bash"].values()) == ["allow", "deny"]


def test_a_command_that_a_projects_file_would_have_run_here_is_announced_and_not_shown(terminal: Terminal) -> None:
    entry = {"server": "http://x.lan", "server_user": "ada", "server_password_command": ["curl", "s3cret"]}
    (terminal.project / "hosts.json").write_text(json.dumps({"hosts": {"odd": entry}}))
    said = terminal("hosts", "trust", "--yes")
    assert "server, user name, command that runs here for the server's password" in said.stderr
    for shown in (said, terminal("hosts", "show", "odd"), terminal("hosts", "show", "odd", "--json")):
        assert not [word for word in ("curl", "s3cret", "ada", "x.lan") if word in shown.stdout + shown.stderr]


def test_in_a_directory_that_is_gone_there_is_no_project(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = terminal.path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    for word in ("trust", "untrust"):
        said = terminal("hosts", word)
        assert (said.returncode, "is not there any more" in said.stderr) == (2, True)

"""`remote-dispatch plugin`: what lies where afterwards, and that it is all gone again."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from remote_dispatch.cli.app import app
from remote_dispatch.plugin import seed
from remote_dispatch.plugin.places import shipped
from tests.rig.calls import call

GLOBAL = Path(".config/opencode")
CONFIGURATION = GLOBAL / "opencode.jsonc"
PLUGIN = Path(".local/share/remote-dispatch/plugin/remote-dispatch.js")
PROJECT_PLUGIN = Path("project/.opencode/plugin/remote-dispatch.js")
STYLES = (
    None,
    "{}",
    '{\n  "$schema": "https://opencode.ai/config.json"\n}',
    '{ "plugin": [] }',
    '{\r\n  // mine\r\n  "plugin": [ // these\r\n    "x", /* last */\r\n  ],\r\n}\r\n',
    '\ufeff{"plugin": ["x"]}\n',
)


@dataclass
class Desk:
    """A home with a project in it, the program on PATH, and the command line in this process."""

    home: Path

    def __call__(self, *words: str) -> tuple[int, dict[str, Any], str]:
        """Run `plugin WORDS --json`; return exit code, envelope and stderr."""
        result = call(app, ["plugin", *words, "--json"])
        return result.exit_code, json.loads(result.stdout.splitlines()[-1]), result.stderr

    def write(self, path: Path | str, text: str) -> Path:
        file = self.home / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode())
        return file

    def tree(self) -> dict[str, bytes | None]:
        """Everything below the home: files with their bytes, directories without."""
        return {
            str(path.relative_to(self.home)): path.read_bytes() if path.is_file() else None
            for path in self.home.rglob("*")
        }

    def entry(self) -> list[Any]:
        """Our entry, where it is the last of the user's list."""
        (entry,) = json.loads((self.home / CONFIGURATION).read_text())["plugin"][-1:]
        assert isinstance(entry, list)
        return entry


@pytest.fixture
def desk(private_home: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    program = private_home / "bin" / "remote-dispatch"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 0.0.7\n")
    program.chmod(0o755)
    (private_home / "project" / ".git").mkdir(parents=True)
    (private_home / "project" / "deep").mkdir()
    monkeypatch.chdir(private_home / "project" / "deep")
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setattr(sys, "argv", [str(program)])
    return Desk(private_home)


def test_the_entry_names_file_and_command(desk: Desk) -> None:
    code, envelope, _ = desk("install")
    assert code == 0
    assert str(desk.home / PLUGIN) in envelope["data"]["changed"]
    assert desk.entry() == [(desk.home / PLUGIN).as_uri(), {"command": [str(desk.home / "bin/remote-dispatch")]}]
    assert (desk.home / PLUGIN).read_text() == shipped()
    assert [oct(path.stat().st_mode & 0o777) for path in (desk.home / PLUGIN, desk.home / CONFIGURATION)] == [
        "0o644"
    ] * 2


@pytest.mark.parametrize("text", STYLES)
def test_after_uninstall_everything_is_as_before(desk: Desk, text: str | None) -> None:
    if text is not None:
        desk.write(CONFIGURATION, text)
    before = desk.tree()
    assert desk("install")[0] == 0
    assert desk("install")[1]["data"] == {"changed": [], "restored": [], "removed": [], "kept": []}
    assert desk("install", "--project")[0] == 0
    assert desk("uninstall", "--project")[0] == 0
    assert desk("uninstall")[0] == 0
    assert desk.tree() == before
    assert desk("uninstall")[1]["data"]["removed"] == []
    assert desk.tree() == before


def test_a_project_gets_the_file_and_no_path_of_this_machine(desk: Desk) -> None:
    before = desk.tree()
    assert desk("install", "--project")[0] == 0
    assert (desk.home / PROJECT_PLUGIN).read_text() == shipped()
    assert not (desk.home / CONFIGURATION).exists()
    ignored = (desk.home / "project/.opencode/.gitignore").read_text().splitlines()
    new = {path for path in desk.tree() if path.startswith("project/.opencode/")} - set(before)
    top = {path.split("/")[2] for path in new}
    assert top - set(ignored) == {"plugin"}
    assert str(desk.home) not in (desk.home / PROJECT_PLUGIN).read_text()
    assert desk("uninstall", "--project")[0] == 0
    assert desk.tree() == before


def test_of_several_files_the_one_whose_list_counts_is_edited(desk: Desk) -> None:
    """OpenCode 1.18: a list in `opencode.jsonc` hides that of `opencode.json`."""
    older = desk.write(GLOBAL / "opencode.json", '{"plugin": ["x"]}')
    newer = desk.write(CONFIGURATION, '{"model": "a/b"}')
    desk("install")
    assert PLUGIN.name in older.read_text()
    assert newer.read_text() == '{"model": "a/b"}'
    newer.write_text('{"plugin": ["y"]}')
    assert desk("status")[0] == 11
    desk("install")
    assert older.read_text() == '{"plugin": ["x"]}'
    assert PLUGIN.name in newer.read_text()
    desk("uninstall")
    assert newer.read_text() == '{"plugin": ["y"]}'


def test_opencode_config_dir_is_followed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENCODE_CONFIG_DIR", str(desk.home / "mine"))
    monkeypatch.setenv("XDG_DATA_HOME", str(desk.home / "data"))
    desk("install")
    assert "data/remote-dispatch/plugin/remote-dispatch.js" in (desk.home / "mine/opencode.jsonc").read_text()
    assert seed.is_seeded(desk.home / "mine")
    assert seed.is_seeded(desk.home / GLOBAL)
    assert desk("status")[0] == 0


def test_mode_and_symlink_stay(desk: Desk) -> None:
    target = desk.write("dotfiles/opencode.jsonc", '{"plugin": []}')
    target.chmod(0o640)
    (desk.home / GLOBAL).mkdir(parents=True)
    (desk.home / CONFIGURATION).symlink_to(target)
    desk("install")
    assert (desk.home / CONFIGURATION).is_symlink()
    assert PLUGIN.name in target.read_text()
    assert target.stat().st_mode & 0o777 == 0o640
    desk("uninstall")
    assert target.read_text() == '{"plugin": []}'


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('{"a": 1,\n"plugin": [}', ":2: "),
        ('{\n"plugin": "x"}', ":2: `plugin` is not a list"),
        ("[]", "expected an object"),
    ],
)
def test_a_broken_configuration_is_named_and_nothing_changes(desk: Desk, text: str, word: str) -> None:
    desk.write(CONFIGURATION, text)
    before = desk.tree()
    code, envelope, _ = desk("install")
    assert code == 11
    assert word in envelope["error"]["message"]
    assert str(desk.home / CONFIGURATION) in envelope["error"]["message"]
    assert desk.tree() == before


def test_another_plugin_or_tool_takes_the_seed_away(desk: Desk) -> None:
    desk("install")
    assert seed.is_seeded(desk.home / GLOBAL)
    tool = desk.write(GLOBAL / "tool" / "mine.ts", "")
    _, envelope, said = desk("status")
    assert "OpenCode installs its packages" in said
    assert envelope["data"]["packages"][0]["kind"] == "missing"
    assert not (desk.home / GLOBAL / "node_modules").exists()
    tool.unlink()
    desk("install")
    assert seed.is_seeded(desk.home / GLOBAL)
    desk.write(CONFIGURATION, (desk.home / CONFIGURATION).read_text().replace('"plugin": [', '"plugin": ["x", '))
    desk("install")
    assert not seed.is_seeded(desk.home / GLOBAL)


@pytest.mark.parametrize("path", ["node_modules/x/package.json", "package-lock.json", "package.json"])
def test_a_directory_with_packages_is_left_alone(desk: Desk, path: str) -> None:
    desk.write(GLOBAL / path, "{}")
    desk("install")
    assert desk("status")[1]["data"]["packages"][0]["kind"] == "own"
    desk("uninstall")
    assert (desk.home / GLOBAL / path).read_text() == "{}"


def test_a_tool_of_a_project_does_not_concern_the_users_seed(desk: Desk) -> None:
    desk("install")
    desk.write("project/.opencode/tool/mine.ts", "")
    desk("install", "--project")
    kinds = [one["kind"] for one in desk("status")[1]["data"]["packages"]]
    assert kinds == ["seeded", "missing"]


def test_a_changed_plugin_is_not_current_and_stays_at_uninstall(desk: Desk) -> None:
    desk("install")
    file = desk.write(PLUGIN, shipped() + "// mine\n")
    code, envelope, _ = desk("status")
    assert (code, envelope["data"]["user"]["is_current"]) == (11, False)
    assert "plugin install" in envelope["error"]["hint"]
    code, envelope, _ = desk("uninstall")
    assert code == 3
    assert str(file) in envelope["data"]["kept"][0]
    assert file.exists()
    desk("install")
    assert file.read_text() == shipped()


def test_options_of_the_user_are_kept_at_uninstall(desk: Desk) -> None:
    desk("install")
    text = (desk.home / CONFIGURATION).read_text()
    desk.write(CONFIGURATION, text.replace('{"command"', '{"hosts": {"lab": "me@10.0.0.5"}, "command"'))
    code, envelope, said = desk("uninstall")
    assert code == 3
    kept = desk.home / PLUGIN.parent / "options.json"
    assert json.loads(kept.read_text())["hosts"] == {"lab": "me@10.0.0.5"}
    assert "10.0.0.5" not in said + json.dumps(envelope)


def test_status_of_a_home_without_it_says_what_to_type(desk: Desk) -> None:
    code, envelope, _ = desk("status")
    assert code == 11
    assert envelope["error"]["hint"] == "run `remote-dispatch plugin install`"
    assert envelope["data"]["tool"]["hosts"] == []
    assert "none yet" in envelope["data"]["tool"]["description"]


def test_status_tells_the_command_and_what_a_model_sees(desk: Desk) -> None:
    desk.write(GLOBAL / "hosts.json", '{"hosts": {"lab": "me@10.0.0.5"}}')
    desk("install")
    code, envelope, said = desk("status")
    data = envelope["data"]
    assert (code, said) == (0, "")
    assert data["user"]["version"] == "0.0.7"
    assert data["tool"]["name"] == "remote_dispatch"
    assert "Hosts: `lab`." in data["tool"]["description"]
    assert "10.0.0.5" not in json.dumps(envelope)


def test_a_command_that_is_gone_is_an_error_of_status(desk: Desk) -> None:
    desk("install")
    (desk.home / "bin/remote-dispatch").unlink()
    code, envelope, _ = desk("status")
    assert code == 11
    assert "cannot start" in envelope["error"]["message"]


def test_status_names_other_copies_and_the_npm_plugin(desk: Desk) -> None:
    desk.write(CONFIGURATION, '{"plugin": ["opencode-remote-login@0.2.1", ["/elsewhere/remote-dispatch.js", {}]]}')
    desk.write(GLOBAL / "plugins" / "remote-dispatch.js", "")
    desk("install")
    said = desk("status")[2]
    assert "remove that entry" in said
    assert "names another copy" in said
    assert "plugins/remote-dispatch.js is another copy" in said


def test_inline_hosts_are_hosts_of_the_user_alone(desk: Desk) -> None:
    desk.write(CONFIGURATION, '{"plugin": [["remote-dispatch", {"hosts": {"lab": "me@10.0.0.5"}}]]}')
    theirs = desk.write(
        "project/opencode.json", '{"plugin": [["remote-dispatch", {"hosts": {"evil": "x@203.0.113.7"}}]]}'
    )
    _, envelope, said = desk("status")
    assert envelope["data"]["tool"]["hosts"] == ["lab"]
    assert envelope["data"]["inline_hosts"] == [{"file": str(desk.home / CONFIGURATION), "names": ["lab"]}]
    assert f"the hosts in {theirs} are ignored" in said
    assert "looks for in a package registry" in said
    desk("install")
    assert desk.entry()[1]["hosts"] == {"lab": "me@10.0.0.5"}
    assert desk("status")[1]["data"]["tool"]["hosts"] == ["lab"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file to another user")
def test_the_owner_of_the_configuration_stays(desk: Desk) -> None:
    file = desk.write(CONFIGURATION, "{}")
    os.chown(file, 1234, 1234)
    desk("install")
    assert (file.stat().st_uid, file.stat().st_gid) == (1234, 1234)

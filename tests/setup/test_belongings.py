from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.errors import ConfigurationError, UsageError
from remote_dispatch.setup import Belongings, collect_config, collect_credentials
from remote_dispatch.setup.belongings import FILE_LIMIT_BYTES
from remote_dispatch.setup.secrets import secret_in

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def config(private_home: Path) -> Path:
    directory = private_home / ".config/opencode"
    directory.mkdir(parents=True)
    return directory


def collected(config: Path, *, may_hold_secrets: bool = False) -> Belongings:
    return collect_config({"HOME": str(config.parents[1])}, may_hold_secrets=may_hold_secrets)


def left_out(belongings: Belongings) -> dict[str, str]:
    return {one.name: one.why for one in belongings.left_out}


def test_configuration_instructions_agents_and_commands_go(config: Path) -> None:
    (config / "opencode.jsonc").write_text('{\n  // mine\n  "model": "a/b",\n}\n')
    (config / "AGENTS.md").write_text("be kind")
    for name in ("agents/deep/one.md", "command/two.md", "skills/three/SKILL.md"):
        (config / name).parent.mkdir(parents=True)
        (config / name).write_text(name)

    found = collected(config)

    assert found.files == {
        "opencode.jsonc": b'{\n  // mine\n  "model": "a/b",\n}\n',
        "AGENTS.md": b"be kind",
        "agents/deep/one.md": b"agents/deep/one.md",
        "command/two.md": b"command/two.md",
        "skills/three/SKILL.md": b"skills/three/SKILL.md",
    }
    assert found.left_out == ()


def test_the_hosts_file_and_whatever_is_not_known_never_goes(config: Path) -> None:
    for name in ("hosts.json", "hosts.jsonc", "package.json", "notes.txt", ".env", "auth.json"):
        (config / name).write_text("{}")
    (config / "agents").mkdir()
    (config / "agents/.env").write_text("KEY=1")

    assert collected(config, may_hold_secrets=True).files == {}


def test_plugins_that_are_files_and_our_own_stay_and_are_named(config: Path) -> None:
    plugins = ["file:///home/me/mine.js", "a-package@1.2", ["remote-dispatch", {"command": ["x"]}], "./near.ts"]
    (config / "opencode.json").write_text(json.dumps({"plugin": plugins, "theme": "x"}))
    (config / "plugins").mkdir()
    (config / "plugins/code.js").write_text("export default 1")

    found = collected(config)

    assert json.loads(found.files["opencode.json"]) == {"plugin": ["a-package@1.2"], "theme": "x"}
    assert set(left_out(found)) == {
        "opencode.json: plugin `mine.js`",
        "opencode.json: plugin `remote-dispatch`",
        "opencode.json: plugin `near.ts`",
        "plugins/",
    }


def test_a_file_with_a_secret_goes_only_when_credentials_may(config: Path) -> None:
    text = json.dumps({"provider": {"x": {"options": {"apiKey": "abc"}}}})
    (config / "opencode.json").write_text(text)

    kept, sent = collected(config), collected(config, may_hold_secrets=True)

    assert kept.files == {}
    assert "`provider.x.options.apiKey`" in left_out(kept)["opencode.json"]
    assert "`--with-credentials`" in left_out(kept)["opencode.json"]
    assert (sent.files, sent.with_secrets) == ({"opencode.json": text.encode()}, ("opencode.json",))


@pytest.mark.parametrize("text", ['{ "x": 1, // sk-abcdefghijklmnop1234\n}', '{ "x": ["ghp_abcdefghijklmnop1234"] }'])
def test_what_looks_like_a_key_is_a_secret_wherever_it_stands(config: Path, text: str) -> None:
    (config / "opencode.jsonc").write_text(text)
    (config / "AGENTS.md").write_text("use sk-abcdefghijklmnop1234")

    assert collected(config).files == {}


def test_links_that_lead_out_of_the_directory_stay(config: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("outside")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/a.md").write_text("outside")
    (config / "agents").mkdir()
    (config / "agents/inside.md").write_text("inside")
    (config / "agents/near.md").symlink_to("inside.md")
    (config / "agents/far.md").symlink_to(tmp_path / "secret")
    (config / "agents/folder").symlink_to(tmp_path / "folder")
    (config / "commands").symlink_to(tmp_path / "folder")
    (config / "AGENTS.md").symlink_to(tmp_path / "secret")

    found = collected(config)

    assert found.files == {"agents/inside.md": b"inside", "agents/near.md": b"inside"}
    assert set(left_out(found)) == {"agents/far.md", "agents/folder/", "commands/", "AGENTS.md"}


def test_what_is_too_large_or_broken_stays_and_is_named(config: Path) -> None:
    (config / "AGENTS.md").write_bytes(b"x" * (FILE_LIMIT_BYTES + 1))
    (config / "opencode.json").write_text("{ not json")
    (config / "tui.json").write_bytes(b'{"x": "\xff"}')

    found = collected(config)

    assert found.files == {}
    assert left_out(found)["opencode.json"] == "it is not valid JSON"
    assert set(left_out(found)) == {"AGENTS.md", "opencode.json", "tui.json"}


@pytest.mark.parametrize(
    "value",
    [
        {"provider": {"x": {"options": {"apiKey": "{env:X_KEY}"}}}},
        {"mcp": {"x": {"headers": {"Authorization": "Bearer {env:TOKEN}"}}}},
        {"provider": {"x": {"models": {"y": {"limit": {"maxTokens": 5}}}}}},
        {"provider": {"x": {"options": {"apiKey": ""}}}},
        {"keybinds": {"leader": "ctrl+x"}, "model": "a/b"},
        {"server": "https://example.org/path"},
    ],
)
def test_references_and_ordinary_settings_are_no_secrets(value: object) -> None:
    assert secret_in(value) is None


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"provider": {"x": {"options": {"apiKey": "abc"}}}}, "provider.x.options.apiKey"),
        ({"provider": {"x": {"options": {"api_key": "abc{env:X}"}}}}, "provider.x.options.api_key"),
        ({"mcp": {"x": {"headers": {"X-Mine": "abc"}}}}, "mcp.x.headers.X-Mine"),
        ({"mcp": {"x": {"environment": {"GITHUB_TOKEN": "abc"}}}}, "mcp.x.environment.GITHUB_TOKEN"),
        ({"mcp": {"x": {"command": ["run", "--url", "https://me:pw@example.org"]}}}, "mcp.x.command"),
    ],
)
def test_secrets_are_found_with_their_place(value: object, place: str) -> None:
    assert secret_in(value) == place


def test_credentials_are_named_by_provider_and_shown_by_no_repr(private_home: Path) -> None:
    path = private_home / ".local/share/opencode/auth.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"anthropic": {"type": "api", "key": "hidden"}, "openai": {}}')

    found = collect_credentials({"HOME": str(private_home)})

    assert found.providers == ("anthropic", "openai")
    assert "hidden" not in repr(found)


@pytest.mark.parametrize(("content", "error"), [(None, UsageError), ("{}", UsageError), ("{", ConfigurationError)])
def test_credentials_that_are_not_there_are_an_error(
    private_home: Path, content: str | None, error: type[Exception]
) -> None:
    path = private_home / "data/opencode/auth.json"
    path.parent.mkdir(parents=True)
    if content is not None:
        path.write_text(content)

    with pytest.raises(error):
        collect_credentials({"HOME": str(private_home), "XDG_DATA_HOME": str(private_home / "data")})

"""The quick way to the names: it says what the registry says, or nothing at all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remote_dispatch.hosts import Registry, quick
from tests.hosts.conftest import Home

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "hosts.example.json"
LIGHT = """
import sys
from remote_dispatch.hosts import quick
assert quick.names_here() == ("lab",), quick.names_here()
print(*sys.modules)
"""
HEAVY = {"pydantic", "typer", "rich", "lark", "asyncio", "asyncssh", "httpx", "platformdirs"}


def both(home: Home, **options: Any) -> tuple[tuple[str, ...] | None, Registry]:
    """What the quick way says, and the registry to which it is held."""
    environment = {"HOME": str(home.path), **home.environment}
    given = {"project": None, "platform": "linux", **options}
    return quick.names(environment=environment, **given), Registry.load(environment=environment, **given)


def assert_quick(home: Home, **options: Any) -> tuple[str, ...]:
    found, registry = both(home, **options)
    assert found is not None
    assert (found, registry.problems, registry.notes) == (registry.names, (), ())
    return found


def assert_declined(home: Home, **options: Any) -> None:
    assert both(home, **options)[0] is None


def test_usual_files_are_answered(home: Home) -> None:
    home.write('{ // mine\n "hosts": {"pi": "me@10.0.0.5:22", "lab": {"host": "lab", "port": 2222,}, } }')
    home.write('{"hosts": {"box": "box", "lab": "other"}}', "hosts.json")
    assert assert_quick(home) == ("box", "lab", "pi")


def test_without_any_file_there_are_no_names(home: Home) -> None:
    assert assert_quick(home) == ()


def test_the_example_is_answered() -> None:
    assert_quick(Home(Path("/nonexistent")), hosts_file=EXAMPLE)


@pytest.mark.parametrize("variable", ["OPENCODE_CONFIG_DIR", "XDG_CONFIG_HOME"])
def test_the_directories_of_the_environment_count(home: Home, tmp_path: Path, variable: str) -> None:
    home.environment[variable] = str(tmp_path)
    home.write('{"hosts": {"pi": "x"}}', at=tmp_path / ("opencode" if variable.startswith("XDG") else ""))
    assert assert_quick(home) == ("pi",)


def test_on_macos_both_directories_count(home: Home) -> None:
    home.write('{"hosts": {"pi": "x"}}', at=home.path / "Library/Application Support/opencode")
    home.write('{"hosts": {"lab": "x"}}')
    assert assert_quick(home, platform="darwin") == ("lab", "pi")


def test_a_named_file_counts_alone(home: Home, tmp_path: Path) -> None:
    home.write('{"hosts": {"pi": "x"}}')
    file = home.write('{"hosts": {"lab": "x"}}', at=tmp_path)
    assert assert_quick(home, hosts_file=file) == ("lab",)
    home.environment["REMOTE_DISPATCH_HOSTS"] = str(file)
    assert assert_quick(home) == ("lab",)


def test_hosts_among_the_plugins_options_count(home: Home) -> None:
    home.write('{"plugin": [["file:///x/remote-dispatch.js", {"hosts": {"pi": "x"}}], "other"]}', "opencode.json")
    assert assert_quick(home) == ("pi",)


def test_a_projects_own_file_is_for_the_registry(home: Home, tmp_path: Path) -> None:
    home.write('{"hosts": {"pi": "x"}}')
    project = tmp_path / "project"
    project.mkdir()
    assert assert_quick(home, project=project) == ("pi",)
    home.write('{"hosts": {"pi": "evil"}}', at=project / ".opencode")
    assert_declined(home, project=project)


def test_a_missing_named_file_is_for_the_registry(home: Home, tmp_path: Path) -> None:
    assert_declined(home, hosts_file=tmp_path / "none.json")


def test_it_loads_nothing_heavy(home: Home) -> None:
    home.write('{"hosts": {"lab": {"host": "lab", "env": {"A": "b"}, "server": "http://x:1"}}}')
    done = subprocess.run(
        [sys.executable, "-c", LIGHT],
        cwd=home.path,
        env={"HOME": str(home.path), "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not HEAVY & {name.partition(".")[0] for name in done.stdout.split()}


FINE: dict[str, Any] = {
    "host": "me@pi.lan",
    "port": 2222,
    "agent": "build",
    "model": "anthropic/claude-sonnet-4-5",
    "variant": "high",
    "directory": "~/src/app",
    "permissions": "auto",
    "permission_rules": {"bash": {"*": "deny"}, "edit": "allow"},
    "opencode": "/opt/opencode",
    "env": {"A_1": "b c"},
    "code": "carry",
    "server": "https://opencode.example:4096/base",
    "server_user": "ada",
    "server_password_env": "A_1",
    "server_password_command": ["pass", "show", "a b"],
    "os": "linux",
}


@pytest.mark.parametrize("field", FINE)
def test_every_field_is_known(home: Home, field: str) -> None:
    home.write(json.dumps({"hosts": {"lab": {"host": "x", field: FINE[field]}}}))
    assert assert_quick(home) == ("lab",)


ODD: list[Any] = [
    *(None, True, False, 0, 1, -1, 1.0, 22, 65535, 65536, "", " ", "x", "-x"),
    *("a/b", "-a/b", "a/", "/b", "a b/c", "a/b c", "deny", "auto", "none", "carry", "linux"),
    *("u@h", "u@h:22", "u@@h", "[::1]:22", "::1", "fe80::1%eth0", "x\ny", "x\x7f", "x" * 5000),
    *("\ud800", "caf\u00e9", "a\u202eb", "http://x", "http://x:0", "http://x:99999", "http://u@x"),
    *("https://[::1]:1", "http://-x", "ftp://x", [], ["x"], {}, {"*": "deny"}, {"bash": {"*": "ask"}}),
    *({"bash": {"*": 1}}, {"A": "b"}, {"A": 1}, {"1": "b"}, {"A": ""}, {"A": "\u202e"}),
]
NAMES = st.sampled_from(
    ["lab", "LAB", "pi", "a.b", "9", "x" * 65, "-x", "all", "Auto", "10.0.0.5", "::1", "", "caf\u00e9"]
)
FIELDS = st.sampled_from([*FINE, "prot", "name", "$schema", "Host"])
GOOD_ENTRIES = st.sets(st.sampled_from(list(FINE))).map(lambda chosen: {name: FINE[name] for name in {"host", *chosen}})
ENTRIES = st.one_of(
    st.sampled_from(ODD),
    GOOD_ENTRIES,
    st.tuples(GOOD_ENTRIES, FIELDS, st.sampled_from(ODD)).map(lambda drawn: {**drawn[0], drawn[1]: drawn[2]}),
    st.dictionaries(FIELDS, st.sampled_from(ODD), max_size=3),
)
PAIRS = st.lists(st.tuples(NAMES, ENTRIES), max_size=4)
TOPS = st.sampled_from([[], [("$schema", "x")], [("$schema", 1)], [("host", {})], [("hosts", {})], [("hosts", None)]])
FILES = st.tuples(PAIRS, TOPS, st.booleans())


def written(pairs: list[tuple[str, Any]], tops: list[tuple[str, Any]], *, is_inline: bool) -> str:
    """Write members as they come, duplicates too."""
    hosts = "{" + ", ".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in pairs) + "}"
    beside = "".join(f", {json.dumps(name)}: {json.dumps(value)}" for name, value in tops)
    if is_inline:
        return f'{{"plugin": [["remote-dispatch", {{"hosts": {hosts}{beside}}}]]}}'
    return f'{{"hosts": {hosts}{beside}}}'


def test_no_value_of_a_field_is_taken_that_the_registry_refuses(home: Home) -> None:
    answered = 0
    for field in FINE:
        for value in ODD:
            home.write(json.dumps({"hosts": {"lab": {"host": "x", field: value}}}))
            found, registry = both(home)
            answered += found is not None
            assert found is None or (found, registry.problems) == (registry.names, ()), (field, value)
    assert answered > len(FINE)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=st.lists(FILES, min_size=1, max_size=2))
def test_it_declines_or_says_what_the_registry_says(
    home: Home, files: list[tuple[list[tuple[str, Any]], list[tuple[str, Any]], bool]]
) -> None:
    for number, (pairs, tops, is_inline) in enumerate(files):
        name = f"{'opencode' if is_inline else 'hosts'}.json{'c' * number}"
        home.write(written(pairs, tops, is_inline=is_inline), name)
    found, registry = both(home)
    for file in home.directory.iterdir():
        file.unlink()
    if found is not None:
        assert (found, registry.problems, registry.notes) == (registry.names, (), ())


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{", "\ufeff{}", '{"hosts": {"a": "x"}} x'),
        *('{"hosts": {"a": "x", "a": "y"}}', '{"hosts": {"a": {"host": "x", "host": "x"}}}'),
    ],
)
def test_odd_files_never_lead_to_another_answer(home: Home, text: str) -> None:
    home.write(text)
    found, registry = both(home)
    assert found is None or (found, registry.problems) == (registry.names, ())

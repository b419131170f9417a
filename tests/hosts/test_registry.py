"""The registry: layers, good and bad entries, and what its errors say and do not say."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.errors import ConfigurationError, RemoteDispatchError, UnknownNameError
from remote_dispatch.hosts import LayerKind, Places, Registry
from remote_dispatch.hosts.remarks import remarks_on

if TYPE_CHECKING:
    from tests.hosts.conftest import Home

REPOSITORY = Path(__file__).parents[2]
THREE_FORMS = """// mine
{ "$schema": "https://example/hosts.json", "hosts": {
    "dev": "user@10.0.0.5",                      // short form: address only
    "pi":  { "host": "me@pi.lan", "port": 2222, "agent": "build", "model": "provider/id" },
    "lab": { "host": "lab",
             "directory": "~/src/app", "permissions": "auto", "opencode": "~/.opencode/bin/opencode" } } }
"""


def hosts(**entries: object) -> str:
    return json.dumps({"hosts": entries})


def error_of(registry: Registry, name: str) -> RemoteDispatchError:
    with pytest.raises(RemoteDispatchError) as caught:
        registry[name]
    return caught.value


def test_all_three_forms_of_an_entry_are_hosts(home: Home) -> None:
    home.write(THREE_FORMS)
    registry = home.registry()
    assert registry.names == ("dev", "lab", "pi")
    assert registry.problems == ()
    assert registry["dev"].host == "user@10.0.0.5"
    assert (registry["pi"].port, registry["pi"].agent, registry["pi"].model) == (2222, "build", "provider/id")
    assert registry["lab"].permissions == "auto"
    assert registry.origin("pi").line == 4


def test_the_example_of_the_repository_is_valid(home: Home) -> None:
    home.write((REPOSITORY / "hosts.example.json").read_bytes())
    registry = home.registry()
    assert registry.problems == ()
    assert {"dev", "lab", "pi"} <= set(registry.names)


def test_a_file_of_the_npm_plugin_loads_unchanged(home: Home) -> None:
    home.write(
        '{"hosts": {"a": "me@box", "w": {"host": "me@win", "os": "windows", "agent": "build", "model": "p/m/x"},}}'
    )
    registry = home.registry()
    assert registry.problems == ()
    assert (registry["w"].os, registry["w"].model) == ("windows", "p/m/x")


def test_a_byte_order_mark_is_no_fault(home: Home) -> None:
    home.write(b"\xef\xbb\xbf" + hosts(a="box").encode())
    assert home.registry().names == ("a",)


def test_a_hundred_hosts_are_read(home: Home) -> None:
    home.write(hosts(**{f"h{number}": {"host": f"me@h{number}.lan", "port": 22} for number in range(100)}))
    assert len(home.registry().names) == 100


def test_the_later_file_replaces_a_whole_entry(home: Home) -> None:
    home.write(hosts(a={"host": "first", "agent": "plan"}, b="kept"), "hosts.jsonc")
    home.write(hosts(a={"host": "second"}), "hosts.json")
    registry = home.registry()
    assert (registry["a"].host, registry["a"].agent, registry["b"].host) == ("second", None, "kept")
    assert registry.origin("a").file.name == "hosts.json"


def test_a_bad_later_entry_never_lets_the_earlier_one_through(home: Home) -> None:
    home.write(hosts(a="first"), "hosts.jsonc")
    home.write(hosts(a={"host": "second", "port": "x"}), "hosts.json")
    assert isinstance(error_of(home.registry(), "a"), ConfigurationError)


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({}, ".config/opencode"),
        ({"XDG_CONFIG_HOME": "{home}/xdg"}, "xdg/opencode"),
        ({"XDG_CONFIG_HOME": ""}, ".config/opencode"),
        ({"XDG_CONFIG_HOME": "relative"}, ".config/opencode"),
        ({"XDG_CONFIG_HOME": "{home}/xdg", "OPENCODE_CONFIG_DIR": "{home}/own"}, "own"),
        ({"OPENCODE_CONFIG_DIR": "~/own"}, "own"),
    ],
)
def test_the_directory_follows_the_environment(home: Home, environment: dict[str, str], folder: str) -> None:
    home.environment = {key: value.format(home=home.path) for key, value in environment.items()}
    home.write(hosts(a="box"), at=home.path / folder)
    assert home.registry().names == ("a",)


def test_on_macos_the_library_is_read_before_the_configuration(home: Home) -> None:
    library = home.path / "Library" / "Application Support" / "opencode"
    home.write(hosts(a="library", b="library"), at=library)
    home.write(hosts(a="config"))
    registry = Registry.load(environment={"HOME": str(home.path)}, platform="darwin")
    assert (registry["a"].host, registry["b"].host) == ("config", "library")
    assert home.registry().names == ("a",)


@pytest.mark.parametrize("way", ["option", "variable", "both", "tilde"])
def test_a_named_file_replaces_all_layers(home: Home, way: str) -> None:
    home.write(hosts(a="layer"))
    given = home.write(hosts(b="given"), "other.json", at=home.path)
    other = home.write(hosts(c="other"), "third.json", at=home.path)
    home.environment = {
        "option": {},
        "variable": {"REMOTE_DISPATCH_HOSTS": str(given)},
        "both": {"REMOTE_DISPATCH_HOSTS": str(other)},
        "tilde": {"REMOTE_DISPATCH_HOSTS": "~/other.json"},
    }[way]
    registry = home.registry(hosts_file=given if way in ("option", "both") else None)
    assert registry.names == ("b",)
    assert {layer.kind for layer in registry.places.layers if layer.ignored is None} == {LayerKind.GIVEN}


def test_a_named_file_that_is_missing_is_an_error_when_used(home: Home) -> None:
    error = error_of(home.registry(hosts_file=home.path / "gone.json"), "a")
    assert isinstance(error, ConfigurationError)
    assert "gone.json" in error.message


@pytest.mark.parametrize("name", ["hosts.json", "hosts.jsonc", ".opencode/hosts.json", ".opencode/hosts.jsonc"])
def test_p29_a_project_file_is_inert(home: Home, tmp_path: Path, name: str) -> None:
    home.write(hosts(a="mine"))
    project = tmp_path / "cloned"
    file = project / name
    file.parent.mkdir(parents=True)
    file.write_text(hosts(a="theirs", b="theirs"))
    before = home.registry()
    registry = home.registry(project=project)
    assert (registry.names, registry["a"].host) == (before.names, "mine")
    assert isinstance(error_of(registry, "b"), UnknownNameError)
    assert registry.problems == ()
    (note,) = registry.notes
    assert note.startswith(f"{file} is ignored: it belongs to a project and is not trusted; it would redefine `a`")


def test_p29_a_project_file_is_never_opened(home: Home, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "hosts.json")
    (tmp_path / "hosts.jsonc").symlink_to("hosts.jsonc")
    registry = home.registry(project=tmp_path)
    assert len(registry.notes) == 2
    assert registry.problems == ()


def test_the_users_own_directory_is_no_project(home: Home) -> None:
    home.write(hosts(a="mine"))
    registry = home.registry(project=home.directory)
    assert (registry.names, registry.notes) == (("a",), ())


def test_p37_an_edit_counts_at_the_next_use(home: Home) -> None:
    home.write(hosts(a="first"))
    assert home.registry()["a"].host == "first"
    home.write(hosts(a="second", b="new"))
    assert (home.registry()["a"].host, home.registry().names) == ("second", ("a", "b"))


P35_ENTRIES = [
    ('{"host": "u@h",\n"prot": 22}', 3, "prot", "did you mean `port`"),
    ('{"host": "u@h",\n"port": "22"}', 3, "port", "from 1 to 65535"),
    ('{"host": "u@h",\n"port": 0}', 3, "port", "from 1 to 65535"),
    ('{"host": "u@h",\n"port": -1}', 3, "port", "from 1 to 65535"),
    ('{"host": "u@h",\n"port": 65536}', 3, "port", "from 1 to 65535"),
    ('{"host": "u@h",\n"port": 22.5}', 3, "port", "from 1 to 65535"),
    ('{"host": "u@h",\n"port": true}', 3, "port", "from 1 to 65535"),
    ('{"host": "u@h:2",\n"port": 3}', 3, "port", "another port"),
    ('{"host": "u@h",\n"model": "noslash"}', 3, "model", "provider/id"),
    ('{"host": "u@h",\n"agent": "--help"}', 3, "agent", "name of an agent"),
    ('{"host": "u@h",\n"agent": ""}', 3, "agent", "name of an agent"),
    ('{"host": "u@h",\n"directory": "a\\nb"}', 3, "directory", "without control characters"),
    ('{"host": "u@h",\n"permissions": "ask"}', 3, "permissions", "`deny` or `auto`"),
    ('{"host": "u@h",\n"permission_rules": {"bash": "maybe"}}', 3, "permission_rules.bash", "`allow`, `ask` or `deny`"),
    ('{"host": "u@h",\n"env": {\n"A": 1}}', 4, "env.A", "variable names and texts"),
    ('{"host": "u@h",\n"code": 1}', 3, "code", "`carry`"),
    ('{"host": "u@h",\n"os": "beos"}', 3, "os", "`linux`"),
    ('{"host": "u@h",\n"server_password_env": "s3cret word"}', 3, "server_password_env", "name of a variable"),
    ('{"host": "u@h",\n"server_password_command": "pass show x"}', 3, "server_password_command", "list of texts"),
    ('{"server":\n"ftp://x"}', 2, "server", "URL"),
    ('{"server":\n"http://me:secret@x"}', 2, "server", "URL"),
    ('{"server":\n"http://x:99999"}', 2, "server", "URL"),
    ('{"host": "u@h",\n"name": "x"}', 3, "name", "unknown field"),
    ('{"host": "u@h",\n"host": "u@i"}', 3, "host", "twice"),
    ('{\n"agent": "build"}', 2, None, "`host` is missing"),
    ('{"host": 7}', 2, "host", "address as text"),
    ('"-oProxyCommand=x"', 2, "host", "address"),
    ('{"host": "u@h",\n"model": "p/\\ud800"}', 3, "model", "provider/id"),
    ('{"host": "u@h",\n"env": {"A": "\\ud800"}}', 3, "env", "variable names"),
    ("7", 2, None, "or an object"),
    ("null", 2, None, "or an object"),
    ("[]", 2, None, "or an object"),
]


@pytest.mark.parametrize(("entry", "line", "field", "word"), P35_ENTRIES)
def test_p35_a_bad_entry_is_an_error_with_file_line_and_field(
    home: Home, entry: str, line: int, field: str | None, word: str
) -> None:
    file = home.write(f'{{"hosts": {{"good": "x",\n"bad": {entry}, "fine": "y"}}}}')
    registry = home.registry()
    assert registry.names == ("fine", "good")
    (problem,) = registry.problems
    line = 2 if field is None else line
    assert (problem.file, problem.line, problem.host, problem.field) == (file, line, "bad", field)
    error = error_of(registry, "bad")
    assert (error.exit_code, word in error.message) == (11, True), error.message
    assert error.message.startswith(f"{file}:{line}: host `bad`: ")


def test_a_name_that_is_there_twice_is_no_host(home: Home) -> None:
    home.write('{"hosts": {\n"a": "one",\n"b": "x",\n"a": "two"}}')
    registry = home.registry()
    assert registry.names == ("b",)
    assert error_of(registry, "a").message.endswith(":4: host `a`: this name is there already in line 2")


P35_FILES: list[tuple[str | bytes, str]] = [
    ("", ":1: the file is empty"),
    ('{"hosts": {\n"a": "b"\n"c": "d"}}', ":3: a comma is missing"),
    ('{"hosts": {"a": NaN}}', ":1: this is not JSON"),
    ("[]", ":1: expected an object"),
    ('{\n"hosts": []}', ":2: `hosts`: expected an object"),
    ('{\n"host": {"a": "b"}}', ":2: `host`: unknown field"),
    ('{"hosts": {},\n"hosts": {"a": "b"}}', ":2: `hosts`: there twice"),
    ("[" * 100_000, "nested"),
    ('{"hosts": {"a": ' + "[" * 100_000 + "]" * 100_000 + "}}", "nested"),
    ('{"hosts": {}}'.encode("utf-16"), "UTF-16"),
    ('{"hosts": {}}'.encode("utf-16-le"), "UTF-16"),
    (b'{"hosts":\n{"a\xff": "b"}}', "not UTF-8 text (line 2)"),
    (b" " * ((1 << 20) + 1), "larger than 1 MiB"),
]


@pytest.mark.parametrize(("content", "word"), P35_FILES)
def test_p35_a_broken_file_is_an_error_when_one_of_its_hosts_could_be_meant(
    home: Home, content: str | bytes, word: str
) -> None:
    home.write(content, "hosts.jsonc")
    home.write(hosts(good="x"), "hosts.json")
    registry = home.registry()
    assert registry["good"].host == "x"
    assert len(registry.problems) == 1
    error = error_of(registry, "missing")
    assert (error.exit_code, word in error.message) == (11, True), error.message


def test_a_file_that_is_no_regular_file_is_an_error_and_never_a_hang(home: Home) -> None:
    home.directory.mkdir(parents=True)
    os.mkfifo(home.directory / "hosts.jsonc")
    (home.directory / "hosts.json").mkdir()
    texts = [str(problem) for problem in home.registry().problems]
    assert [text.endswith(": is not a regular file") for text in texts] == [True, True]


def test_a_symlink_is_followed_and_a_loop_is_an_error(home: Home, tmp_path: Path) -> None:
    real = home.write(hosts(a="x"), "real.json", at=tmp_path)
    home.directory.mkdir(parents=True)
    (home.directory / "hosts.jsonc").symlink_to(real)
    (home.directory / "hosts.json").symlink_to("hosts.json")
    registry = home.registry()
    assert registry.names == ("a",)
    assert len(registry.problems) == 1


def test_a_file_that_everybody_may_write_to_is_refused(home: Home) -> None:
    home.write(hosts(a="x")).chmod(0o666)
    assert "chmod o-w" in error_of(home.registry(), "a").message


BAD_NAMES = [
    "-oProxyCommand=touch x",
    "-Fevil.conf",
    "-V",
    "--",
    "",
    "  ",
    "a b",
    "a;id",
    "a$(id)",
    "a`id`",
    "a|id",
    "a&b",
    "a>b",
    "a\nb",
    "a\0b",
    "../a",
    "a/b",
    "a" * 10_000,
    "a\u202eb",
    "l\u0430b",
    "cafe\u0301",
    "caf\u00e9",
    "__proto__",
    "constructor",
    "all",
    "ALL",
    "auto",
    "local",
    "\x1b[31mred",
    "\x1b]8;;http://x\x07y",
    "\x1b]52;c;eA==\x07",
    "\ud800",
    "10.0.0.5",
    "user@10.0.0.5",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_bad_host_name_is_refused_and_harms_no_other(home: Home, name: str) -> None:
    home.write(json.dumps({"hosts": {name: "u@h", "lab": "x"}}))
    registry = home.registry()
    assert registry.names == ("lab",)
    assert len(registry.problems) == 1
    message = error_of(registry, name).message
    assert message.isprintable()
    assert len(message) < 600


@pytest.mark.parametrize("name", BAD_NAMES)
def test_asking_for_a_bad_host_name_finds_nothing(home: Home, name: str) -> None:
    home.write(hosts(lab="x"))
    error = error_of(home.registry(), name)
    assert (error.exit_code, error.message.isprintable()) == (10, True)
    assert "10.0.0.5" not in f"{error.message} {error.hint}"


BAD_ADDRESSES = [
    "user@-oX",
    "-oProxyCommand=x",
    "-Fevil.conf",
    "$USER@h",
    "u\\\\@h",
    "u@h:22:22",
    "ssh://u@h:22/x",
    "u@@h",
    "u@",
    "@h",
    "",
    " ",
    "u@h x",
    "u@h;id",
    "u@$(id)",
    "u@`id`",
    "u@h\n",
    "u@h\0",
    "u@h:0",
    "u@h:65536",
    "u@h:x",
    "u@h:",
    "u@h/",
    "a,b",
    "u@\u0445ost",
    "u@h\u202e",
    "u@[::1",
    "x" * 10_000,
]


@pytest.mark.parametrize("address", BAD_ADDRESSES)
def test_a_bad_address_is_refused_and_not_repeated(home: Home, address: str) -> None:
    home.write(hosts(bad=address, lab="x"))
    registry = home.registry()
    assert registry.names == ("lab",)
    error = error_of(registry, "bad")
    assert error.exit_code == 11
    assert len(address) < 3 or address not in error.message
    assert error.message.isprintable()


@pytest.mark.parametrize(
    "address", ["lab", "u@h", "u@h:22", "h:22", "[::1]:22", "::1", "u@[fe80::1%eth0]:22", "xn--bcher-kva.example"]
)
def test_a_good_address_is_taken(home: Home, address: str) -> None:
    home.write(hosts(lab=address))
    assert home.registry()["lab"].host == address


def test_an_unknown_name_lists_names_only_and_guesses(home: Home) -> None:
    home.write(hosts(lab="me@10.0.0.5", pi="me@pi.lan", bad=7))
    error = error_of(home.registry(), "Lbb")
    assert error.message == "no host is named `Lbb`; known: `lab`, `pi`"
    assert error.hint == "did you mean `lab`?"


def test_an_alias_of_ssh_is_offered_as_a_host(home: Home) -> None:
    hint = error_of(home.registry(is_alias={"gpu"}.__contains__), "gpu").hint
    assert hint is not None
    assert "`remote-dispatch hosts add gpu gpu`" in hint


def test_an_alias_of_ssh_is_offered_before_a_similar_name_and_that_one_too(home: Home) -> None:
    home.write(hosts(lab2="me@10.0.0.5"))
    error = error_of(home.registry(is_alias={"lab"}.__contains__), "lab")
    assert error.message == "no host is named `lab`; known: `lab2`"
    assert error.hint == (
        "it is an alias of ~/.ssh/config: `remote-dispatch hosts add lab lab` makes it a host, or did you mean `lab2`?"
    )


def test_without_hosts_the_hint_says_how_to_add_one(home: Home) -> None:
    error = error_of(home.registry(), "lab")
    assert error.message == "no host is named `lab`; no hosts are configured"
    assert error.hint == "add it with `remote-dispatch hosts add NAME ADDRESS`"


def test_p30_neither_the_registry_nor_a_host_shows_an_address_in_its_repr(home: Home) -> None:
    home.write(hosts(lab={"host": "me@10.0.0.5", "port": 2222}))
    registry = home.registry()
    for text in (repr(registry), repr(registry["lab"])):
        assert "10.0.0.5" not in text
        assert "2222" not in text


def test_p30_an_address_in_the_place_of_a_name_is_never_repeated(home: Home) -> None:
    home.write('{"hosts": {"me@10.0.0.5": "x", "me@10.0.0.5": "y", "10.0.0.6": "x", "lab": {"me@10.0.0.7": 1}}}')
    problems = home.registry().problems
    assert [problem.host for problem in problems] == [None, None, "lab"]
    assert not [problem for problem in problems if "10.0.0" in str(problem)]


def test_every_problem_of_an_entry_is_named(home: Home) -> None:
    home.write('{"hosts": {"a": {"host": "u@@h",\n"port": 0,\n"prot": 1,\n"env": {"A": 1, "B": 2}}}}')
    found = [(problem.line, problem.field) for problem in home.registry().problems]
    assert sorted(found) == [(1, "host"), (2, "port"), (3, "prot"), (4, "env.A"), (4, "env.B")]


def test_a_misspelt_address_field_is_one_problem(home: Home) -> None:
    home.write('{"hosts": {"a": {"hots": "u@h"}}}')
    (problem,) = home.registry().problems
    assert (problem.field, problem.message) == ("hots", "unknown field; did you mean `host` or `os`?")


@pytest.mark.parametrize(("field", "guess"), [("address", "host"), ("url", "server"), ("permision", "permissions")])
def test_a_field_by_another_word_is_guessed(home: Home, field: str, guess: str) -> None:
    home.write(hosts(a={"host": "x", field: "y"}))
    assert f"did you mean `{guess}`" in home.registry().problems[0].message


def test_up_to_three_near_names_are_suggested_disabled_ones_too(home: Home) -> None:
    home.write(hosts(**{"gpu-a": "x", "gpu-b": 7, "gpu-c": "x", "gpu-d": "x", "other": "x"}))
    hint = error_of(home.registry(), "gpu").hint
    assert hint is not None
    assert hint.count("`gpu-") == 3
    assert "other" not in hint


def test_an_entry_that_a_later_file_hides_is_known(home: Home) -> None:
    first = home.write(hosts(a="x"), "hosts.jsonc")
    second = home.write(hosts(a="y", b="z"), "hosts.json")
    registry = home.registry()
    assert [str(origin) for origin in registry.hidden("a")] == [f"{first}:1"]
    assert registry.hidden("b") == ()
    assert registry.overrides == {}
    assert remarks_on(registry) == (f"host `a` in {first}:1 is hidden by the later one in {second}:1",)


def test_names_that_differ_only_in_case_are_remarked(home: Home) -> None:
    home.write(hosts(Lab="x"), "hosts.jsonc")
    home.write(hosts(lab="y"), "hosts.json")
    assert remarks_on(home.registry()) == ("hosts `Lab` and `lab` differ only in case",)


def trusted(places: Places) -> Places:
    """The places as they are once the user trusts the project's files."""
    layers = tuple(
        replace(layer, ignored=None) if layer.kind is LayerKind.PROJECT else layer for layer in places.layers
    )
    return replace(places, layers=layers)


def test_a_trusted_override_of_the_users_own_host_is_always_told(home: Home, tmp_path: Path) -> None:
    own = home.write(hosts(a="mine", b="mine"))
    theirs = home.write(hosts(a="theirs", c="theirs"), "hosts.json", at=tmp_path / "project")
    registry = Registry.read(trusted(home.registry(project=tmp_path / "project").places))
    assert (registry["a"].host, registry["b"].host, registry["c"].host) == ("theirs", "mine", "theirs")
    assert {name: str(origin) for name, origin in registry.overrides.items()} == {"a": f"{own}:1"}
    assert registry.notes == (f"host `a` is that of a trusted project's file ({theirs}:1), not your own ({own}:1)",)


def test_what_was_compared_with_the_trusted_text_is_what_is_read(home: Home, tmp_path: Path) -> None:
    theirs = home.write(hosts(a="first"), "hosts.json", at=tmp_path / "project")
    places = trusted(home.registry(project=tmp_path / "project").places)
    theirs.write_text(hosts(a="second"))
    assert Registry.read(places)["a"].host == "first"

"""The JSON Schema of hosts files: current, shipped, and of one mind with the registry."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import jsonschema
import pytest

from remote_dispatch.hosts import Registry, schema
from remote_dispatch.hosts.entries import FIELDS
from remote_dispatch.hosts.jsonc import parse, plain
from remote_dispatch.hosts.names import RESERVED

if TYPE_CHECKING:
    from tests.hosts.conftest import Home

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "hosts.example.json"
SHIPPED = json.loads(schema.shipped())
VALIDATOR = jsonschema.Draft7Validator(SHIPPED)
ENTRY = SHIPPED["properties"]["hosts"]["additionalProperties"]["anyOf"][1]


def test_the_shipped_schema_is_that_of_the_model() -> None:
    assert schema.document() == SHIPPED, "run `python -m remote_dispatch.hosts.schema`"


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft7Validator.check_schema(SHIPPED)


def test_it_has_every_field_with_a_description_and_an_example_that_fits() -> None:
    assert tuple(ENTRY["properties"]) == FIELDS
    for name, field in ENTRY["properties"].items():
        assert field["description"].endswith(".")
        for example in field["examples"]:
            assert not _errors({"lab": {"host": "x", name: example}})


def test_the_example_shows_every_field_fits_the_schema_and_loads() -> None:
    content = plain(parse(EXAMPLE.read_text(encoding="utf-8")))
    entries = [entry for entry in content["hosts"].values() if isinstance(entry, dict)]
    used = [name for entry in entries for name in entry]
    assert sorted({*used}) == sorted(FIELDS)
    assert {name for name in used if used.count(name) > 1} == {"host", "server"}
    assert not list(VALIDATOR.iter_errors(content))
    registry = Registry.load(environment={"HOME": "/nonexistent"}, hosts_file=EXAMPLE)
    assert (registry.names, registry.problems) == (tuple(sorted(content["hosts"])), ())


def test_the_example_names_the_shipped_schema() -> None:
    content = plain(parse(EXAMPLE.read_text(encoding="utf-8")))
    assert (EXAMPLE.parent / content["$schema"]).read_text(encoding="utf-8") == schema.shipped()


GOOD: list[dict[str, Any]] = [
    {"lab": "x"},
    {"lab": "me@10.0.0.5:22"},
    {"lab": "[::1]:22"},
    {"lab": "corp@me@x"},
    {"a" * 64: "x", "0.b_c-d": "x"},
    {"lab": {"server": "http://127.0.0.1:4096/base"}},
    {
        "lab": {
            "server": "http://x",
            "server_user": "u",
            "server_password_env": "A",
            "server_password_command": ["p", "x"],
        }
    },
    {"lab": {"host": "x", "env": {}, "permission_rules": {"*": "ask"}}},
    {"lab": {"host": "x", "model": "a/b/c:free"}},
]
BAD: list[dict[str, Any]] = [
    {"": "x"},
    {"10.0.0.5": "x"},
    {"a b": "x"},
    {"a" * 65: "x"},
    *({word.upper(): "x"} for word in sorted(RESERVED)),
    {"lab": ""},
    {"lab": "-oProxyCommand=x"},
    {"lab": "ssh://x"},
    {"lab": 1},
    {"lab": ["x"]},
    {"lab": {}},
    {"lab": {"port": 22}},
    {"lab": {"host": "x", "prot": 22}},
    {"lab": {"host": "x", "port": "22"}},
    {"lab": {"host": "x", "port": 0}},
    {"lab": {"host": "x", "port": 65536}},
    {"lab": {"host": "x", "agent": "-x"}},
    {"lab": {"host": "x", "model": "sonnet"}},
    {"lab": {"host": "x", "model": "a/ b"}},
    {"lab": {"host": "x", "directory": ""}},
    {"lab": {"host": "x", "directory": "a\nb"}},
    {"lab": {"host": "x", "permissions": "ask"}},
    {"lab": {"host": "x", "permission_rules": {"bash": "never"}}},
    {"lab": {"host": "x", "permission_rules": {"bash": {"*": {"*": "deny"}}}}},
    {"lab": {"host": "x", "env": {"1A": "x"}}},
    {"lab": {"host": "x", "env": {"A": 1}}},
    {"lab": {"host": "x", "code": "all"}},
    {"lab": {"host": "x", "os": "plan9"}},
    {"lab": {"server": "https://me:secret@x"}},
    {"lab": {"server": "ftp://x"}},
    {"lab": {"server": "http://x", "server_password_env": "a b"}},
    {"lab": {"server": "http://x", "server_password_command": []}},
    {"lab": {"server": "http://x", "server_password_command": "pass"}},
]


@pytest.mark.parametrize("hosts", GOOD, ids=json.dumps)
def test_what_the_registry_takes_the_schema_takes(home: Home, hosts: dict[str, Any]) -> None:
    home.write(json.dumps({"hosts": hosts}))
    assert home.registry().problems == ()
    assert not _errors(hosts)


@pytest.mark.parametrize("hosts", BAD, ids=json.dumps)
def test_what_the_registry_refuses_the_schema_refuses(home: Home, hosts: dict[str, Any]) -> None:
    home.write(json.dumps({"hosts": hosts}))
    assert home.registry().problems
    assert _errors(hosts)


def test_nothing_but_hosts_and_the_schema_stands_at_the_top() -> None:
    assert not list(VALIDATOR.iter_errors({"$schema": "x", "hosts": {}}))
    assert list(VALIDATOR.iter_errors({"hosts": {}, "host": {}}))


def test_the_users_copy_is_written_once_and_brought_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data 1"))
    copy = _installed()
    assert copy.is_relative_to(tmp_path / "data 1")
    assert copy.read_text(encoding="utf-8") == schema.shipped()
    before = copy.stat()
    assert _installed() == copy
    assert copy.stat() == before
    copy.write_text("{}")
    assert _installed().read_text(encoding="utf-8") == schema.shipped()
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]


def test_without_a_place_for_the_copy_there_is_no_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    assert schema.installed_reference() is None


def test_the_fields_are_told_from_what_is_shipped() -> None:
    assert tuple(schema.described_fields()) == FIELDS


def _errors(hosts: dict[str, Any]) -> list[Any]:
    return list(VALIDATOR.iter_errors({"hosts": hosts}))


def _installed() -> Path:
    reference = schema.installed_reference()
    assert reference is not None
    assert reference.startswith("file:///")
    return Path(os.fsdecode(unquote(urlsplit(reference).path)))

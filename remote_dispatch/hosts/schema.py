"""The JSON Schema of a hosts file, for editors: made of the model, shipped as `hosts.schema.json`.

`python -m remote_dispatch.hosts.schema` writes that file anew. What the schema takes the registry takes, but for what a
schema cannot say: the grammar of addresses in full, and names that are IP addresses of the less usual kinds.
"""

from __future__ import annotations

import contextlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from remote_dispatch.errors import ConfigurationError
from remote_dispatch.hosts.files import replace_text
from remote_dispatch.hosts.names import HOST_NAME, RESERVED

FILE_NAME = "hosts.schema.json"
_DIALECT = "http://json-schema.org/draft-07/schema#"
"""The newest that the usual editors know."""

# The model checks these in Python, which leaves no trace in what pydantic makes of it.
_PATTERNS = {
    "host": r"^[^\s/@,;$`&|<>-][^\s/,;$`&|<>]{0,399}$",
    "agent": r"^[^\x00-\x1f\x7f-][^\x00-\x1f\x7f]*$",
    "model": r"^[^\s/-][^\s/]*/\S+$",
    "server": r"^https?://[^\s/@?#:]+(:[1-9][0-9]{0,4})?([/?#]\S*)?$",
}
_UNTOLD = frozenset({"name"})
"""The fields of the model that are no fields of an entry."""


def text() -> str:
    """Return the schema as it is shipped: JSON, indented, with a newline at its end."""
    return json.dumps(document(), indent=2) + "\n"


def document() -> dict[str, Any]:
    """Make the schema of the model of today."""
    return {
        "$schema": _DIALECT,
        "title": "Hosts of remote-dispatch",
        "description": "Public names for private addresses. Comments and trailing commas are allowed.",
        "type": "object",
        "properties": {
            "$schema": {"description": "Where this schema is, for editors.", "type": "string"},
            "hosts": {
                "description": "The hosts by their public names.",
                "type": "object",
                "propertyNames": _names(),
                "additionalProperties": {"anyOf": [_short_form(), _entry()]},
                "examples": [{"dev": "user@10.0.0.5", "lab": {"host": "lab", "directory": "~/src/app"}}],
            },
        },
        "additionalProperties": False,
        "allowComments": True,
        "allowTrailingCommas": True,
    }


def shipped() -> str:
    """Return the schema that came with this program."""
    return files("remote_dispatch.hosts").joinpath(FILE_NAME).read_text(encoding="utf-8")


def described_fields() -> dict[str, str]:
    """Return the fields of an entry, each with its description; read from what is shipped, for that is quick."""
    hosts = json.loads(shipped())["properties"]["hosts"]
    entry = hosts["additionalProperties"]["anyOf"][1]
    return {name: field["description"] for name, field in entry["properties"].items()}


def installed_reference() -> str | None:
    """Return the `file://` URL of this user's copy of the schema, for `$schema`; it is written when missing or old.

    The copy lies in the data directory (`~/.local/share/remote-dispatch`, XDG_DATA_HOME): the program's own place may
    change with each version. None when it cannot be written; raises nothing.
    """
    import platformdirs  # noqa: PLC0415 - commands that change no hosts file do not pay for it

    try:
        copy = platformdirs.user_data_path("remote-dispatch") / FILE_NAME
        _keep(copy, shipped())
        return copy.as_uri()
    except (
        ConfigurationError,
        OSError,
        RuntimeError,
        ValueError,
    ):  # no home, no space, not ours to write to, a relative place
        return None


def _keep(copy: Path, content: str) -> None:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if copy.read_text(encoding="utf-8") == content:
            return
    copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_text(copy, content)


def _names() -> dict[str, Any]:
    reserved = "|".join("".join(f"[{letter.upper()}{letter}]" for letter in word) for word in sorted(RESERVED))
    return {
        "description": "1 to 64 letters, digits, `.`, `_` or `-`, a letter or digit first; public, so no IP address.",
        "pattern": f"^{HOST_NAME.pattern}$",
        "not": {"anyOf": [{"pattern": f"^({reserved})$"}, {"pattern": r"^[0-9]{1,3}(\.[0-9]{1,3}){3}$"}]},
    }


def _short_form() -> dict[str, Any]:
    return {
        "description": "The address alone: `user@host`, `host:port`, `[IPv6]:port`, or an alias of ~/.ssh/config.",
        "type": "string",
        "pattern": _PATTERNS["host"],
        "examples": ["user@10.0.0.5"],
    }


def _entry() -> dict[str, Any]:
    from remote_dispatch.model import Host  # noqa: PLC0415 - what only reads the shipped schema needs no pydantic

    made = Host.model_json_schema()["properties"]
    return {
        "type": "object",
        "properties": {name: _field(name, field) for name, field in made.items() if name not in _UNTOLD},
        "additionalProperties": False,
        "anyOf": [{"required": ["host"]}, {"required": ["server"]}],
    }


def _field(name: str, made: dict[str, Any]) -> dict[str, Any]:
    """One field as pydantic describes it, without null: a field that is not wanted is left out."""
    (value,) = (one for one in made["anyOf"] if one.get("type") != "null")
    strict = {"additionalProperties": False} if "patternProperties" in value else {}
    pattern = {"pattern": _PATTERNS[name]} if name in _PATTERNS else {}
    return {"description": made["description"], **value, **strict, **pattern, "examples": made["examples"]}


if __name__ == "__main__":
    Path(__file__).with_name(FILE_NAME).write_text(text(), encoding="utf-8")

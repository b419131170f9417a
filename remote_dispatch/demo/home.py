"""A separate OpenCode home in a directory, with the scripted model as its only provider.

Nothing in it touches the user's own OpenCode, the network or a package registry.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
MODELS = ("small", "large")
QUICK_START = {
    "OPENCODE_DISABLE_AUTOUPDATE": "1",
    "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1",
    "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
    "OPENCODE_DISABLE_MODELS_FETCH": "1",
    "OPENCODE_DISABLE_SHARE": "1",
    "npm_config_offline": "true",
}
"""What keeps OpenCode from the network (OpenCode 1.18)."""

LOCK_FILE = {"packages": {"": {"dependencies": {"@opencode-ai/plugin": "*"}}}}
"""With an empty `node_modules/` beside it OpenCode installs nothing there (OpenCode 1.18)."""


@dataclass(frozen=True, slots=True)
class OpencodeHome:
    """One home: where everything of one OpenCode lives, and the environment that makes OpenCode use it."""

    directory: Path
    """Absolute; it is the HOME."""
    opencode: Path
    """The binary."""
    provider: str = "scripted"
    variables: Mapping[str, str] = field(default_factory=dict)
    """What the environment holds besides."""

    @property
    def model(self) -> str:
        """The default model, as OpenCode names it: `provider/id`."""
        return f"{self.provider}/large"

    @property
    def configuration(self) -> Path:
        """OpenCode's configuration directory."""
        return self.directory / ".config/opencode"

    @property
    def data(self) -> Path:
        """OpenCode's data directory: the database, the log, snapshots."""
        return self.directory / ".local/share/opencode"

    @property
    def bin(self) -> Path:
        """A directory at the head of PATH where `opencode` is found, whatever the binary is called."""
        return self.directory / ".local/bin"

    @property
    def environment(self) -> dict[str, str]:
        """The whole environment of every process of this home."""
        home = self.directory
        return {
            "HOME": str(home),
            "PATH": f"{self.bin}:{SYSTEM_PATH}",
            "LANG": "C.UTF-8",
            "SHELL": "/bin/sh",
            "TMPDIR": str(home / "tmp"),
            "XDG_CACHE_HOME": str(home / ".cache"),
            "XDG_CONFIG_HOME": str(home / ".config"),
            "XDG_DATA_HOME": str(home / ".local/share"),
            "XDG_STATE_HOME": str(home / ".local/state"),
            **QUICK_START,
            **self.variables,
        }

    def make(self, model_url: str) -> None:
        """Create the directories and the configuration; `model_url` is the scripted model's. Repeating it is fine."""
        for directory in (self.configuration / "node_modules", self.data, self.bin, self.directory / "tmp"):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._write("opencode.json", _configuration(self.provider, model_url))
        self._write("package-lock.json", LOCK_FILE)
        launcher = self.bin / "opencode"
        if not launcher.is_symlink():
            launcher.symlink_to(self.opencode.resolve())

    def _write(self, name: str, value: Mapping[str, Any]) -> None:
        (self.configuration / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _configuration(provider: str, model_url: str) -> dict[str, Any]:
    return {
        "$schema": "https://opencode.ai/config.json",
        "model": f"{provider}/large",
        "small_model": f"{provider}/small",
        "enabled_providers": [provider],
        "autoupdate": False,
        "share": "disabled",
        "provider": {
            provider: {
                "npm": "@ai-sdk/openai-compatible",
                "name": "Scripted",
                "options": {"baseURL": model_url, "apiKey": "none"},
                "models": {name: _model(name) for name in MODELS},
            }
        },
    }


def _model(name: str) -> dict[str, Any]:
    limit = {"context": 200_000, "output": 8_000}
    return {"name": name.title(), "tool_call": True, "reasoning": True, "limit": limit}

"""A home directory of its own for each test, and short ways to write and read hosts files in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.hosts import Registry

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Home:
    path: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def directory(self) -> Path:
        return self.path / ".config" / "opencode"

    def write(self, text: str | bytes, name: str = "hosts.jsonc", *, at: Path | None = None) -> Path:
        file = (at or self.directory) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        file.chmod(0o600)
        return file

    def registry(self, **options: Any) -> Registry:
        return Registry.load(environment={"HOME": str(self.path), **self.environment}, platform="linux", **options)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "home").mkdir()
    return Home(tmp_path / "home")

"""Editing by hand: the file changes only into one without problems, and never over somebody else's change."""

from __future__ import annotations

import stat
import tempfile
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.errors import ConfigurationError
from remote_dispatch.hosts.draft import draft_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.hosts.conftest import Home

TEXT = '{"hosts": {"a": "me@10.0.0.5"}} // mine\n'


@pytest.fixture(autouse=True)
def temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python looks for the place of temporary files once; the copies that stay are to go with the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_a_right_copy_takes_the_files_place(home: Home) -> None:
    file = home.write(TEXT)
    file.chmod(0o640)
    draft = draft_of(home.registry().places)
    assert stat.S_IMODE(draft.copy.stat().st_mode) == 0o600
    assert stat.S_IMODE(draft.copy.parent.stat().st_mode) == 0o700
    draft.copy.write_text(TEXT.replace("a", "b", 1))
    draft.copy.with_name(".hosts.jsonc.swp").touch()
    assert draft.is_changed
    draft.keep()
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == (TEXT.replace("a", "b", 1), 0o640)
    assert not draft.copy.parent.exists()


@pytest.mark.parametrize(
    "text", ["{", '{"hosts": {"a": {"host": "me@10.0.0.5", "port": 0}}}', "", '{"hosts": {"me@10.0.0.5": ""}}']
)
def test_a_wrong_copy_is_not_kept_and_stays(home: Home, text: str) -> None:
    file = home.write(TEXT)
    draft = draft_of(home.registry().places)
    draft.copy.write_text(text)
    assert draft.problems()
    with pytest.raises(ConfigurationError) as caught:
        draft.keep()
    assert "10.0.0.5" not in caught.value.message
    assert str(draft.copy) in (caught.value.hint or "")
    assert (file.read_text(), draft.copy.read_text()) == (TEXT, text)


@pytest.mark.parametrize("other", [TEXT + "// theirs", None])
def test_a_file_that_somebody_else_changed_is_not_overwritten(home: Home, other: str | None) -> None:
    file = home.write(TEXT)
    draft = draft_of(home.registry().places)
    draft.copy.write_text('{"hosts": {}}')
    if other is None:
        file.unlink()
    else:
        file.write_text(other)
    with pytest.raises(ConfigurationError, match="changed by somebody else"):
        draft.keep()
    assert draft.copy.read_text() == '{"hosts": {}}'
    assert file.exists() == (other is not None)


def test_a_broken_file_can_be_edited(home: Home) -> None:
    file = home.write("{")
    draft = draft_of(home.registry().places)
    assert (draft.copy.read_text(), draft.is_changed) == ("{", False)
    draft.copy.write_text(TEXT)
    draft.keep()
    assert file.read_text() == TEXT


def test_without_a_file_there_is_a_beginning(home: Home) -> None:
    draft = draft_of(home.registry().places)
    assert (draft.problems(), draft.is_changed) == ((), False)
    draft.copy.write_text(TEXT)
    draft.keep()
    assert home.registry().names == ("a",)
    assert stat.S_IMODE(draft.file.stat().st_mode) == 0o600

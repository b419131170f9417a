"""Conversations that OpenCode held itself, with all kinds of parts: read as they are exported."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.reader import DONE, reader_text

if TYPE_CHECKING:
    from pathlib import Path

    from tests.real.conftest import Machines

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(300)]

TURNS = (
    "!think hm\n!bash echo hällo; seq 3000\n!todo a;b;c\n!write f.txt some\n!read f.txt\n!say ok \u2028 ✓",
    "!task !bash echo below\n!say done",
    '!tool nosuch {"a":1}\n!say so what',
    "!read /etc/hostname\n!say refused",
)


def test_a_conversation_of_all_kinds_is_read_as_it_is_exported(machines: Machines, tmp_path: Path) -> None:
    session = machines.talk(TURNS[0])
    for turn in TURNS[1:]:
        machines.talk(turn, session)
    with pytest.raises(AssertionError):
        machines.talk("!fail 400", session)
    children = machines.laptop.query("select id from session where parent_id = ?", session)
    sessions = [session, *(row["id"] for row in children)]
    assert len(sessions) > 1
    words = [word for one in sessions for word in (one, str(tmp_path / one), "")]
    done = subprocess.run(
        [str(machines.laptop.bin / "opencode"), "-e", reader_text(), "export", *words],
        cwd="/",
        env=machines.laptop.opencode.environment | {"BUN_BE_BUN": "1"},
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    assert done.returncode == DONE
    for one in sessions:
        assert _read(tmp_path / one) == machines.laptop.export(one)


def _read(path: Path) -> Any:
    return json.loads(path.read_bytes())

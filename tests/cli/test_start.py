"""What a start costs, counted in modules: nothing is imported that the answer does not need."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.cli.app import GROUPS

if TYPE_CHECKING:
    from collections.abc import Mapping

REPOSITORY = Path(__file__).resolve().parents[2]
_OURS = "remote_dispatch"
_WHAT_IS_LOADED = """
import json, sys
before = set(sys.modules)
from remote_dispatch.cli import main
try:
    main()
finally:
    print(json.dumps(sorted(set(sys.modules) - before)), file=sys.stderr)
"""
NETWORK = frozenset({"asyncssh", "cryptography", "httpx", "httpcore", "acp", "ssl", "asyncio", "lark", "platformdirs"})
PARSERS = frozenset({"typer", "rich", "pydantic"})


@dataclass(frozen=True, slots=True)
class Start:
    """A call, and what it may import: rooms of ours, and how many modules, each a few above what it is today."""

    arguments: tuple[str, ...]
    rooms: frozenset[str]
    most_of_ours: int
    most_in_all: int
    without: frozenset[str] = NETWORK
    environment: Mapping[str, str] | None = None


_COMMAND_LINE = frozenset({"cli", "errors", "text"})
_NAMES = frozenset({"cli", "errors", "hosts", "remote"})
STARTS = {
    "--help": Start(("--help",), _COMMAND_LINE, 20, 320, NETWORK | {"pydantic"}),
    "--version": Start(("--version",), _COMMAND_LINE, 20, 200, NETWORK | {"pydantic", "rich"}),
    "send --help": Start(("send", "--help"), _COMMAND_LINE, 15, 420),
    "session forget --help": Start(("session", "forget", "--help"), _COMMAND_LINE, 15, 420),
    "hosts list --names": Start(("hosts", "list", "--names"), _NAMES, 16, 90, NETWORK | PARSERS),
    "hosts list": Start(("hosts", "list"), _NAMES | {"model", "text"}, 32, 290, NETWORK | {"rich"}),
    "hosts add": Start(("hosts", "add", "x", "y"), _NAMES | {"model", "text"}, 34, 300, NETWORK - {"platformdirs"}),
    "list": Start(("list",), _COMMAND_LINE | {"dispatch", "model", "reader", "runner"}, 30, 290, NETWORK | {"rich"}),
    "completion of a host": Start(
        (),
        _NAMES | {"text"},
        32,
        290,
        NETWORK | {"rich"},
        {"_REMOTE_DISPATCH_COMPLETE": "complete_bash", "COMP_WORDS": "remote-dispatch send ", "COMP_CWORD": "2"},
    ),
}


def _loaded(start: Start, home: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", _WHAT_IS_LOADED, *start.arguments],
        cwd=REPOSITORY,
        env={"HOME": str(home), "REMOTE_DISPATCH_STATE": str(home / "state"), **(start.environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    modules: list[str] = json.loads(done.stderr.splitlines()[-1])
    return modules


@pytest.mark.parametrize("name", STARTS)
def test_a_start_imports_only_what_its_answer_needs(name: str, private_home: Path) -> None:
    start, loaded = STARTS[name], _loaded(STARTS[name], private_home)
    ours = [module for module in loaded if module.partition(".")[0] == _OURS]
    packages = {module.partition(".")[0] for module in loaded}
    assert packages & start.without == set()
    assert {room for module in ours if (room := module.partition(".")[2].partition(".")[0])} <= start.rooms
    assert len(ours) <= start.most_of_ours, f"too many modules of ours: {ours}"
    foreign = packages - set(sys.stdlib_module_names)
    assert len(loaded) <= start.most_in_all, f"too many modules, of {sorted(foreign)} and of Python: {loaded}"


def test_each_module_of_a_group_has_the_commands_that_are_looked_for_in_it() -> None:
    for group in GROUPS.values():
        application = group.load()
        found = {
            (command.name, command.callback.__module__)
            for command in application.registered_commands
            if command.callback is not None
        }
        expected = {
            (word, f"{_OURS}.cli.{module}") for module, words in group.modules.items() for word in words.split()
        }
        assert found == {
            one for one in expected if one[0] not in {below.name for below in application.registered_groups}
        }


_BEFORE_A_RUN_IS_WAITED_FOR = """
import sys
from remote_dispatch.dispatch.carry_on import Goal, next_step
from remote_dispatch.model import State
from tests.dispatch.values import a_record
assert next_step(a_record(State.STAGING, State.RUNNING), Goal[sys.argv[1]]).__name__ == "follow"
print("remote_dispatch.dispatch.finish" in sys.modules)
"""


@pytest.mark.parametrize(("goal", "is_imported"), [("HOME", True), ("ENDED", False)])
def test_a_wait_of_days_is_not_followed_by_modules_of_another_version(goal: str, *, is_imported: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _BEFORE_A_RUN_IS_WAITED_FOR, goal],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout == f"{is_imported}\n"

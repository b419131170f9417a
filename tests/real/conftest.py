"""Two machines for whole dispatches: the real OpenCode on both sides, the real sshd between them, one scripted model.

They are made once for each worker and hold many sessions, as people's machines do; every test has its own session.
The laptop's provider is called `here`, the host's `there`: no model of one exists on the other.

A round trip starts OpenCode a dozen times, which costs twenty seconds of a core: in `make test` each one shows several
things at once, and what the stub shows as well is left to `make slow`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.demo.provider import ScriptedModel
from tests.rig.stub import a_transcript
from tests.rig.world import REPOSITORY, Machine, Ran, Transcript, World

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from remote_dispatch.demo.provider import ModelCall
    from tests.rig.world import Starter
    from tests.rig.zygote import Zygote

LAPTOP_MODEL = {"providerID": "here", "modelID": "large"}
OUTSIDE = "/etc/hostname"
"""A file that OpenCode asks for permission to read: it is outside of every project."""
DISPATCH_S = 120


class Machines:
    """A world with the real OpenCode, and the model of both its machines."""

    def __init__(self, world: World, model: ScriptedModel) -> None:
        self.world = world
        self.model = model
        self.laptop = world.laptop
        self.host = world.host

    def session(self, *texts: str) -> str:
        """Make a session on the laptop, as if these had been said by user and model in turn; return its id."""
        return self.bring_in(a_transcript(*(texts or ("hello", "at home"))))

    def bring_in(self, transcript: Transcript) -> str:
        """Make this session on the laptop; its messages name the laptop's model. Return its id."""
        for message in transcript["messages"]:
            info = message["info"]
            info.update({"model": LAPTOP_MODEL} if info["role"] == "user" else LAPTOP_MODEL)
        return self.laptop.bring_in(transcript)

    def talk(self, prompt: str, session: str | None = None, *, timeout_s: float = DISPATCH_S) -> str:
        """Have one turn on the laptop, in a new session or a known one; return the session's id."""
        chosen = ("--session", session) if session else ()
        flags = ("--format", "json", "--dir", str(self.laptop.project), *chosen)
        events = self.laptop.run("run", *flags, "--", prompt, timeout_s=timeout_s).stdout.splitlines()
        return str(json.loads(events[0])["sessionID"])

    def send(self, prompt: str, *arguments: str, session: str | None = None, **options: Any) -> Ran:
        """Send a session, or without one a new one, and see it home."""
        which = ("--session", session) if session else ("--new",)
        return self.world.round_trip(prompt, *which, *arguments, **{"timeout_s": DISPATCH_S, **options})

    def command(self, *arguments: str) -> Ran:
        """Run `remote-dispatch ARGUMENTS --json` on the laptop."""
        return self.world.cli(*arguments, "--json", timeout_s=DISPATCH_S)

    def calls(self, session: str) -> tuple[ModelCall, ...]:
        """What the model was asked in one session, on either machine."""
        return tuple(call for call in self.model.calls if call.session_id == session)


@contextmanager
def two_machines(
    directory: Path, opencode: Path, *, starter: Starter | None = None, host_variables: Mapping[str, str] | None = None
) -> Iterator[Machines]:
    """Make two machines and run them; every process of theirs is ended at last."""
    with (
        ScriptedModel() as model,
        # By another name than the host's address: OpenCode stores the URL of a provider that fails.
        World(
            directory,
            opencode,
            model.url.replace("127.0.0.1", "localhost"),
            providers=("here", "there"),
            host_variables=host_variables or {},
            starter=starter,
        ) as world,
    ):
        program = f'#!/bin/sh\nPYTHONPATH="{REPOSITORY}" exec "{sys.executable}" -m remote_dispatch "$@"\n'
        world.laptop.put_program("remote-dispatch", program)
        world.write_hosts(pi={"directory": "~/project"})
        for machine in (world.laptop, world.host):
            _make_repository(machine)
        yield Machines(world, model)


@pytest.fixture(scope="session")
def machines(
    tmp_path_factory: pytest.TempPathFactory, real_opencode: Path, zygote: Zygote | None
) -> Iterator[Machines]:
    """The machines of this worker."""
    with two_machines(tmp_path_factory.mktemp("machines"), real_opencode, starter=zygote) as made:
        yield made


def _make_repository(machine: Machine) -> None:
    """Projects are git repositories: OpenCode then keeps snapshots, and a project id of its own."""
    (machine.project / "README").write_text("a small project\n")
    author = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")
    for arguments in (("init", "-q"), ("add", "."), (*author, "commit", "-q", "-m", "begin")):
        subprocess.run(
            ["git", *arguments],
            cwd=machine.project,
            env=machine.opencode.environment,
            stdin=subprocess.DEVNULL,
            check=True,
            timeout=20,
        )


def stored(machine: Machine, session: str) -> Transcript:
    """Return a session as it lies in OpenCode's database: an export in a hundredth of its time."""
    (row,) = machine.query("select * from session where id = ?", session)
    parts: dict[str, list[dict[str, Any]]] = {}
    for part in machine.query("select id, message_id, data from part where session_id = ? order by id", session):
        parts.setdefault(part["message_id"], []).append({"id": part["id"], **json.loads(part["data"])})
    messages = machine.query("select id, data from message where session_id = ? order by time_created, id", session)
    return {
        "info": row,
        "messages": [
            {"info": {"id": one["id"], **json.loads(one["data"])}, "parts": parts.get(one["id"], [])}
            for one in messages
        ],
    }


def answers(transcript: Transcript) -> list[str]:
    """Return what the model said, the answer of each message that has one."""
    said = (spoken({"messages": [one]}) for one in transcript["messages"] if one["info"]["role"] == "assistant")
    return ["".join(texts) for texts in said if texts]


def spoken(transcript: Transcript) -> list[str]:
    """Return the text of every text part, in order."""
    parts = (part for message in transcript["messages"] for part in message["parts"])
    return [part["text"] for part in parts if part["type"] == "text"]


def tool_parts(transcript: Transcript, tool: str) -> list[dict[str, Any]]:
    """Return every part of one tool, in order."""
    parts = (part for message in transcript["messages"] for part in message["parts"])
    return [part for part in parts if part["type"] == "tool" and part["tool"] == tool]


def heard(call: ModelCall) -> str:
    """Return everything that the model was shown in one request, as one text."""
    return json.dumps(call.messages, ensure_ascii=False)

"""The same dispatch as somebody does it who knows OpenCode and SSH well: two small scripts of ssh and scp."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from benchmarks.measure import await_exit, elapsed_s
from tests.rig.sshd import USER

if TYPE_CHECKING:
    from tests.rig.world import World

DEADLINE_S = 180
MODEL = "scripted/large"
ALIAS = "by-hand"

ONE_WAY = f"""set -eu
opencode export "$SESSION" >~/out.json
scp -q ~/out.json ~/brief.txt {ALIAS}:$THERE
ssh {ALIAS} "cd $THERE/project && opencode import ../out.json"
ssh {ALIAS} "cd $THERE/project && (nohup sh -c '
  opencode run --session $SESSION --format json --model {MODEL} <../brief.txt
  opencode export $SESSION >../part.json && mv ../part.json ../back-$SESSION.json' >../log 2>&1 </dev/null &)"
"""
BACK_HOME = f"""set -eu
until ssh {ALIAS} "test -f $THERE/back-$SESSION.json"; do sleep 1; done
scp -q {ALIAS}:$THERE/back-$SESSION.json ~/back.json
opencode import ~/back.json
ssh {ALIAS} "rm $THERE/back-$SESSION.json"
"""


class ByHand:
    """Somebody at the laptop; a context manager. `is_shared`: all commands use one connection (ControlMaster).

    The clean-up of the other machine, at the end, belongs to it; nothing is checked on the way.
    """

    def __init__(self, world: World, port: int, prompt: str, *, is_shared: bool) -> None:
        self._world = world
        self._port = port
        self._is_shared = is_shared
        # Sockets have short paths.
        self._place = Path(tempfile.mkdtemp(prefix="rd-", dir="/tmp"))
        self._config = self._place / "config"
        self._prompt = prompt

    def __enter__(self) -> Self:
        world = self._world
        lines = [
            f"HostName {world.sshd.listen}",
            f"Port {self._port}",
            f"User {USER}",
            f"IdentityFile {world.sshd.client_key}",
            f"UserKnownHostsFile {self._known_hosts()}",
            "IdentitiesOnly yes",
            "BatchMode yes",
        ]
        if self._is_shared:
            lines += ["ControlMaster auto", f"ControlPath {self._place}/s", "ControlPersist 120"]
        self._config.write_text("\n  ".join([f"Host {ALIAS}", *lines]) + "\n")
        for name in ("ssh", "scp"):
            program = self._place / name
            program.write_text(f'#!/bin/sh\nexec {shutil.which(name)} -F {self._config} "$@"\n')
            program.chmod(0o755)
        (world.laptop.home / "brief.txt").write_text(self._prompt)
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up()
        shutil.rmtree(self._place, ignore_errors=True)

    def times_s(self, session: str) -> tuple[float, float]:
        """Return the seconds until the work runs there, and until its result is here: of one round trip."""
        self.hang_up()
        one_way = elapsed_s(lambda: self._run(ONE_WAY, session))
        return one_way, one_way + elapsed_s(lambda: self._run(BACK_HOME, session))

    def hang_up(self) -> None:
        """End the shared connection: every dispatch begins without one."""
        if self._is_shared:
            argv = [str(self._place / "ssh"), "-O", "exit", ALIAS]
            subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=DEADLINE_S, check=False)

    def _known_hosts(self) -> Path:
        """The server under the port of the link, which is not its own."""
        text = self._world.sshd.known_hosts.read_text()
        (target := self._place / "known_hosts").write_text(
            text.replace(f"]:{self._world.sshd.port} ", f"]:{self._port} ")
        )
        return target

    def _run(self, script: str, session: str) -> None:
        """The files are the descriptors: a shared connection keeps those of the command that opened it."""
        laptop = self._world.laptop
        there = str(self._world.host.home)
        environment = {**laptop.opencode.environment, "SESSION": session, "THERE": there}
        environment["PATH"] = os.pathsep.join([str(self._place), environment["PATH"]])
        with (self._place / "said").open("a+b") as said:
            process = subprocess.Popen(
                ["/bin/sh", "-c", script],
                cwd=laptop.project,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
            if await_exit(process, DEADLINE_S) != 0:
                said.seek(0)
                raise RuntimeError(f"the sequence by hand failed: {said.read().decode(errors='replace')[-2000:]}")

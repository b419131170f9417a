"""The table of broken hosts: each has one fault, and the doctor names that one and its cure, and blames nothing else.

All are looked at in one call: that hosts are examined side by side is part of what is tested.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import re
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.dispatch.store import Store
from remote_dispatch.model import Collected, Dispatch, DispatchRequest, Moment, State
from tests.rig.broken import Clinic
from tests.rig.sshd import USER
from tests.rig.stub import new_id

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

pytestmark = pytest.mark.whole

ERROR, WARNING, NOTE, OK = "error", "warning", "note", "ok"
RISC_V = b"\xf3\x00"
"""`e_machine` of an ELF header."""
RUN = "20260101-000000-{}"
BUSCTL = '#!/bin/sh\nprintf "%s\\n" "b true" "as 0" "as 1 \\"nobody\\""\n'
DATE = "#!/bin/sh\nexec /bin/date -d '-3 hours' \"$@\"\n"
THROUGH_FISH = 'ForceCommand SHELL={fish} exec {fish} -c "$SSH_ORIGINAL_COMMAND"'


@dataclass(frozen=True, slots=True)
class Row:
    """A fault, how it is made (the entry of the hosts file is returned), and what the doctor is to say."""

    fault: str
    make: Callable[[Clinic, str], object]
    check: str
    severity: str
    words: str
    """A pattern of what was seen."""
    command: str | None = None
    """A pattern of the whole command that cures it; None where no command does."""
    is_there: bool = False


@dataclass(frozen=True, slots=True)
class Looked:
    """What one call said of all hosts."""

    reports: dict[str, Any]
    """By host."""
    unmade: dict[str, str]
    """Hosts that cannot be made here, and why."""
    printed: str
    secrets: list[str]


# --- how faults are made


def healthy(clinic: Clinic, name: str, **fields: object) -> dict[str, object]:
    """The host that all faults of an entry share."""
    if "healthy" not in clinic.shared:
        machine = clinic.machine("healthy")
        put_programs(machine.home)
        (machine.home / "file").write_text("")
        clinic.shared["healthy"] = clinic.serve("healthy", machine)
    return {"host": clinic.alias(name, clinic.shared["healthy"].port), **fields}


def put_programs(home: Path) -> None:
    """Programs that an entry's `opencode` may name."""
    texts = {
        "old": "#!/bin/sh\necho 1.4.2\n",
        "sad": '#!/bin/sh\n[ "$1" = --version ] && echo 1.18.33\n',
    }
    own = Path(sys.executable).resolve().read_bytes()[:4096]
    (home / "foreign").write_bytes(own[:18] + RISC_V + own[20:])
    for name, text in texts.items():
        (home / name).write_text(text)
    for name in ("foreign", *texts):
        (home / name).chmod(0o755)


def entry(**fields: object) -> Callable[[Clinic, str], object]:
    """A fault of the entry alone."""
    return lambda clinic, name: healthy(clinic, name, **fields)


def own(
    programs: Mapping[str, str] | None = None, files: Mapping[str, str] | None = None, **server: Any
) -> Callable[[Clinic, str], object]:
    """A host of its own, with these programs and files in its home."""

    def make(clinic: Clinic, name: str) -> object:
        machine = clinic.machine(name)
        for program, text in (programs or {}).items():
            machine.put_program(program, text)
        for file, text in (files or {}).items():
            (machine.home / file).write_text(text)
        return {"host": clinic.alias(name, clinic.serve(name, machine, **server).port)}

    return make


def at(*lines: str, **how: Any) -> Callable[[Clinic, str], object]:
    """The healthy host behind an alias of its own."""

    def make(clinic: Clinic, name: str) -> object:
        healthy(clinic, f"{name}-unused")
        return {"host": clinic.alias(name, clinic.shared["healthy"].port, *lines, **how)}

    return make


def port(choose: Callable[[Clinic], int], *lines: str) -> Callable[[Clinic, str], object]:
    return lambda clinic, name: {"host": clinic.alias(name, choose(clinic), *lines)}


def fish(clinic: Clinic, name: str) -> object:
    program = shutil.which("fish") or pytest.skip("fish is not installed")
    return own(extra=(THROUGH_FISH.format(fish=program),), sftp="off")(clinic, name)


def start_up_file(text: str) -> Callable[[Clinic, str], object]:
    def make(clinic: Clinic, name: str) -> object:
        if not pwd.getpwuid(os.getuid()).pw_shell.endswith("/bash"):
            pytest.skip("the login shell of this user is not bash")
        return own(files={".bashrc": text})(clinic, name)

    return make


def dead_name(clinic: Clinic, name: str) -> object:
    return {"host": clinic.alias(name, 22, host="nowhere.invalid")}


def jump_host_down(clinic: Clinic, name: str) -> object:
    jump = clinic.alias(f"{name}-jump", clinic.refused_port())
    return at(f"ProxyJump {jump}")(clinic, name)


def unknown_host_key(clinic: Clinic, name: str) -> object:
    return {"host": clinic.alias(name, clinic.serve(name, clinic.machine(name)).port, known=None)}


def changed_host_key(clinic: Clinic, name: str) -> object:
    return {"host": clinic.alias(name, clinic.serve(name, clinic.machine(name)).port, known=2)}


def too_many_keys(clinic: Clinic, name: str) -> object:
    server = clinic.serve(name, clinic.machine(name), extra=("MaxAuthTries 1",))
    return {"host": clinic.alias(name, server.port, f"IdentityFile {clinic.keys[2]}", f"IdentityFile {clinic.keys[1]}")}


def without_opencode(clinic: Clinic, name: str) -> object:
    machine = clinic.machine(name)
    (machine.bin / "opencode").unlink()
    return {"host": clinic.alias(name, clinic.serve(name, machine).port)}


def off_path(clinic: Clinic, name: str) -> object:
    return own(path="/usr/local/bin:/usr/bin:/bin")(clinic, name)


def full_disk(clinic: Clinic, name: str) -> object:
    machine = clinic.machine(name)
    clinic.disk(machine.home / ".local/share").fill()
    return {"host": clinic.alias(name, clinic.serve(name, machine).port)}


def read_only_home(clinic: Clinic, name: str) -> object:
    machine = clinic.machine(name)
    clinic.disk(machine.home / ".local/state").make_read_only()
    return {"host": clinic.alias(name, clinic.serve(name, machine).port)}


def little_room(clinic: Clinic, name: str) -> object:
    machine = clinic.machine(name)
    clinic.disk(machine.home / ".local/share")
    return {"host": clinic.alias(name, clinic.serve(name, machine).port)}


def without_git(clinic: Clinic, name: str) -> object:
    machine = clinic.machine(name)
    search = machine.home / "system"
    search.mkdir()
    for program in {one.name: one.path for place in ("/bin", "/usr/bin") for one in os.scandir(place)}.items():
        if program[0] != "git":
            (search / program[0]).symlink_to(program[1])
    (machine.home / ".bash_profile").write_text(f"PATH={machine.bin}:{search}\n")
    (machine.home / ".profile").write_text(f"PATH={machine.bin}:{search}\n")
    return {"host": clinic.alias(name, clinic.serve(name, machine, path=f"{machine.bin}:{search}").port)}


def remains(clinic: Clinic, name: str) -> object:
    """A run directory of a dispatch that is home, by the laptop's own record."""
    machine = clinic.machine(name)
    identity = RUN.format("aaaaaaaa")
    runs = machine.home / ".local/state/remote-dispatch/runs"
    (runs / identity).mkdir(parents=True)
    (runs / identity / "outcome.json").write_text("{}")
    put_record(clinic, name, identity)
    return {"host": clinic.alias(name, clinic.serve(name, machine).port)}


def put_record(clinic: Clinic, name: str, identity: str) -> None:
    store = Store(clinic.laptop.home / ".local/state/remote-dispatch/dispatches")
    store.folder(identity).path.mkdir(parents=True)
    store.save(
        Dispatch(
            id=identity,
            name="kumo",
            request=DispatchRequest(host=name, session_id=new_id("ses"), local_directory=clinic.laptop.project),
            history=(Moment.model_validate({"state": State.DONE, "at": "2026-01-01T00:00:00Z"}),),
            collected=Collected.WHOLE,
        )
    )


def remains_of_others(clinic: Clinic, name: str) -> object:
    machine = clinic.machine(name)
    (machine.home / ".local/state/remote-dispatch/runs" / RUN.format("bbbbbbbb")).mkdir(parents=True)
    return {"host": clinic.alias(name, clinic.serve(name, machine).port)}


def same_machine(clinic: Clinic, name: str) -> object:
    return {"host": clinic.alias(name, clinic.serve(name, clinic.laptop).port)}


def bad_entry(clinic: Clinic, name: str) -> object:
    return {**healthy(clinic, name), "prot": 22}


# --- the table

SET_PORT = r"remote-dispatch hosts set {} port PORT"
SETUP = r"remote-dispatch hosts setup {}"
DOCTOR_FIX = r"remote-dispatch doctor {} --fix"

ROWS = [
    Row("nothing", entry(), "opencode", OK, "OpenCode 1.18.33"),
    # the way to it
    Row("a bad entry", bad_entry, "entry", ERROR, "prot"),
    Row("a dead name", dead_name, "name-resolves", ERROR, "does not resolve",
        r"remote-dispatch hosts set {} host ADDRESS"),
    Row("a refused port", port(Clinic.refused_port), "port", ERROR, "nothing listens", SET_PORT),
    Row("a silent port", port(lambda clinic: clinic.talking_port(b""), "ConnectTimeout 2"), "port", ERROR,
        "nothing speaks", SET_PORT),
    Row("no SSH server", port(lambda clinic: clinic.talking_port(b"HTTP/1.1 400 no\r\n\r\n")), "port", ERROR,
        "a web server", SET_PORT),
    Row("a jump host that is down", jump_host_down, "port", ERROR, "nothing listens on the jump host"),
    Row("an unknown host key", unknown_host_key, "host-key", ERROR, "unknown", DOCTOR_FIX),
    Row("a changed host key", changed_host_key, "host-key", ERROR, "not the one",
        r"remote-dispatch hosts show {} --reveal"),
    Row("a wrong key", at(key=2), "login", ERROR, "accepted none of 1 key"),
    Row("no key at all", at("IdentityFile none", key=None), "login", ERROR, "no key to offer", r"ssh-keygen .*"),
    Row("too many keys", too_many_keys, "login", ERROR, "too many"),
    # the shell
    Row("no SFTP", own(sftp="off"), "sftp", NOTE, "SFTP"),
    Row("a start-up file that prints", start_up_file("echo welcome\n"), "shell-noise", WARNING, "8 bytes"),
    Row("a start-up file that exits", start_up_file("exit 0\n"), "shell", ERROR, "says nothing"),
    Row("a login that is closed", own(extra=("ForceCommand /usr/sbin/nologin",)), "shell", ERROR, "nologin"),
    Row("a forced command", own(extra=("ForceCommand echo no shell here",)), "shell", ERROR,
        "starts no command: no shell here"),
    Row("fish for a login shell", fish, "shell", OK, "fish"),
    # the machine
    Row("a full disk", full_disk, "disk-space", ERROR, "is full", r"df -h ~", is_there=True),
    Row("little room", little_room, "disk-space", ERROR, "only . MB are free", r"df -h ~", is_there=True),
    Row("a read-only home", read_only_home, "run-directory", ERROR, "read-only", r"findmnt -T ~", is_there=True),
    Row("no git", without_git, "git", WARNING, "git is not there", r"sudo [a-z-]+ .*git", is_there=True),
    Row(
        "a wrong clock",
        own({"date": DATE}),
        "clock",
        WARNING,
        "[23] hours behind",
        r"sudo timedatectl set-ntp true",
        is_there=True,
    ),
    Row(
        "processes that end at logout",
        own({"busctl": BUSCTL}, environment={"XDG_SESSION_ID": "7"}),
        "logout",
        ERROR,
        "KillUserProcesses=yes",
        r"sudo mkdir .*KillUserProcesses=no.*logind",
        is_there=True,
    ),
    Row("a directory that is a file", entry(directory="~/file"), "directory", ERROR, "is a file",
        r"remote-dispatch hosts unset {} directory"),
    Row("a dispatch that is home", remains, "leftovers", NOTE, "`kumo`", r"remote-dispatch prune"),
    Row("dispatches of others", remains_of_others, "leftovers", NOTE, "this machine knows nothing"),
    Row("this very machine", same_machine, "same-machine", ERROR, "very machine", r"remote-dispatch hosts remove {}"),
    # OpenCode
    Row("no OpenCode", without_opencode, "opencode", ERROR, "not found", SETUP),
    Row("OpenCode off the path", off_path, "opencode", NOTE, "~/.local/bin/opencode.*miss it"),
    Row("an old OpenCode", entry(opencode="~/old"), "version", ERROR, "1.4.2 is too old", r"opencode upgrade",
        is_there=True),
    Row("OpenCode for another machine", entry(opencode="~/foreign"), "opencode", ERROR, "built for riscv64", SETUP),
    Row("a wrong `opencode`", entry(opencode="~/nowhere"), "opencode", ERROR, "names no program",
        r"remote-dispatch hosts set {} opencode '~/.local/bin/opencode'"),
    Row("listings that fail", entry(opencode="~/sad"), "opencode", ERROR, "could not list", r"opencode models",
        is_there=True),
    Row("no provider", entry(env={"STUB_MODELS": "opencode/free"}), "credentials", ERROR, "no provider",
        r"opencode auth login", is_there=True),
    Row("an unknown model", entry(model="test/modle"), "model", ERROR, "`test/modle` is not there",
        r"remote-dispatch hosts set {} model test/model"),
    Row("an unknown agent", entry(agent="biuld"), "agent", ERROR, "`biuld` is not there",
        r"remote-dispatch hosts set {} agent build"),
    Row("a sub-agent for an agent", entry(agent="general"), "agent", ERROR, "sub-agent",
        r"remote-dispatch hosts set {} agent build"),
]  # fmt: skip


def name_of(row: Row) -> str:
    return re.sub(r"[^a-z]+", "-", row.fault.lower()).strip("-")


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Looked:
    """One call for all rows, also where several processes share the tests: the first one makes it for all."""
    directory = tmp_path_factory.mktemp("clinic")
    if worker_id == "master":
        return look_at_all(directory)
    result = tmp_path_factory.getbasetemp().parent / "broken-hosts.json"
    with result.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not result.exists():
            result.write_text(json.dumps(asdict(look_at_all(directory))))
    return Looked(**json.loads(result.read_text()))


def look_at_all(directory: Path) -> Looked:
    unmade = {}
    with Clinic(directory) as clinic:
        for row in ROWS:
            try:
                clinic.entries[name_of(row)] = row.make(clinic, name_of(row))
            except pytest.skip.Exception as skipped:
                unmade[name_of(row)] = str(skipped)
        reports, printed = clinic.examine()
        secrets = (f"{USER}@", "127.0.0.1", "nowhere.invalid", "alias-of-", str(clinic.keys[0]))
        return Looked(reports, unmade, printed, [*secrets, *(f":{port}" for port in clinic.ports)])


@pytest.fixture
def report(request: pytest.FixtureRequest, looked: Looked) -> Mapping[str, Any]:
    name = name_of(request.param)
    if name in looked.unmade:
        pytest.skip(looked.unmade[name])
    found: Mapping[str, Any] = looked.reports[name]
    return found


BROKEN = [pytest.param(row, row, id=row.fault) for row in ROWS]


@pytest.mark.parametrize(("row", "report"), BROKEN, indirect=["report"])
def test_the_cause_and_its_cure_are_named(row: Row, report: Mapping[str, Any]) -> None:
    findings = [one for one in report["findings"] if one["check"] == row.check]
    assert row.severity in [one["severity"] for one in findings], report["findings"]
    finding = next(one for one in findings if one["severity"] == row.severity)
    assert re.search(row.words, finding["seen"]), finding
    if row.severity in (ERROR, WARNING):
        assert finding["cure"], finding
    if row.command is not None:
        assert re.fullmatch(row.command.format(name_of(row)), finding["command"]), finding
        assert finding["is_there"] is row.is_there


@pytest.mark.parametrize(("row", "report"), BROKEN, indirect=["report"])
def test_nothing_else_is_blamed(row: Row, report: Mapping[str, Any]) -> None:
    blamed = {one["check"]: one["seen"] for one in report["findings"] if one["severity"] in (ERROR, WARNING)}
    assert blamed.keys() == ({row.check} if row.severity in (ERROR, WARNING) else set()), blamed


def test_no_address_is_shown(looked: Looked) -> None:
    assert not [secret for secret in looked.secrets if secret in looked.printed]

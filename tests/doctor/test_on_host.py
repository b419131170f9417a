"""What is seen on a host: a home made of directories, looked at under a real shell with real programs."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from remote_dispatch.demo.home import OpencodeHome
from remote_dispatch.doctor.on_host import OnHost, look, look_script, read
from remote_dispatch.errors import ConnectionLostError
from remote_dispatch.model import Host
from remote_dispatch.opencode.program import identity_script
from remote_dispatch.remote.local import LocalConnection
from remote_dispatch.remote.ssh import connect
from tests.rig.broken import small_disk
from tests.rig.sshd import Sshd
from tests.rig.stub import OPENCODE_STUB
from tests.rig.world import Machine

pytestmark = pytest.mark.thorough


LOGOUT = {"XDG_SESSION_ID": "7"}
BUSCTL = '#!/bin/sh\nprintf "%s\\n" "b {kills}" "{only}" "{excluded}"\n'
NOBODY = r"as 1 \"nobody\""
RUN = "20260101-000000-{}"


@dataclass
class Place:
    """A home with programs of its own at the head of PATH."""

    machine: Machine
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.machine.home

    @property
    def environment(self) -> dict[str, str]:
        return {**self.machine.opencode.environment, **self.variables}

    async def look(self, **fields: object) -> OnHost:
        host = Host.model_validate({"name": "pi", "host": "pi", **fields})
        return await look(LocalConnection(environment=self.environment), host)

    async def quick(self, *values: str) -> OnHost:
        """Without OpenCode's listings: what the script says."""
        local = LocalConnection(environment=self.environment)
        done = await local.run(look_script(), *(values or ("", "", "5")), timeout_s=30)
        return read(done.stdout, time.time())[0]

    def put_run(self, name: str, *files: str) -> None:
        directory = self.home / ".local/state/remote-dispatch/runs" / RUN.format(name)
        for file in files:
            (directory / file).parent.mkdir(parents=True, exist_ok=True)
            (directory / file).write_text("")

    def files(self) -> set[str]:
        return {str(path.relative_to(self.home)) for path in self.home.rglob("*")}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    machine = Machine(OpencodeHome(tmp_path / "pi", OPENCODE_STUB))
    machine.make(None)
    return Place(machine)


@pytest.fixture
def bare(place: Place) -> Place:
    """A host without OpenCode."""
    (place.machine.bin / "opencode").unlink()
    return place


async def test_a_healthy_host_is_seen_whole(place: Place) -> None:
    found = await place.look(directory="~/project")
    assert (found.problem, found.missing, found.trouble) == (None, (), None)
    assert {one.writing for one in found.places.values()} == {"yes"}
    assert found.git is not None
    assert abs(found.clock_offset_ms) < 2000
    assert found.opencode is not None
    assert (found.opencode.path, found.opencode.version) == ("~/.local/bin/opencode", "1.18.33")
    assert found.opencode.is_on_path
    assert found.catalogue is not None
    assert found.catalogue.primary_agents == ("build", "plan")


async def test_looking_leaves_nothing_behind_but_the_catalogue(place: Place) -> None:
    before = place.files()
    await place.look()
    left = {name for name in place.files() - before if "/remote-dispatch/catalogue-" not in name}
    assert left == {".cache", ".cache/remote-dispatch", "calls"} - before


async def test_opencode_gets_a_temporary_directory_of_its_own(place: Place) -> None:
    place.machine.put_program("opencode", '#!/bin/sh\necho "$TMPDIR" >"$HOME/told"\necho 1.18.33\n')
    await place.quick()
    told = Path((place.home / "told").read_text().strip())
    assert told.is_relative_to(place.home / ".cache/remote-dispatch")
    assert not told.exists()


async def test_a_host_without_opencode_is_seen_for_the_rest(bare: Place) -> None:
    found = await bare.look(directory="~/project")
    assert (found.opencode, found.catalogue, found.directory) == (None, None, "there")
    assert found.places.keys() == {"state", "cache", "data"}


@pytest.mark.parametrize("shell", [["dash"], ["bash", "--posix"], ["busybox", "sh"], ["zsh", "--emulate", "sh"]])
async def test_every_posix_shell_sees_the_same(bare: Place, shell: list[str]) -> None:
    if shutil.which(shell[0]) is None:
        pytest.skip(f"{shell[0]} is not installed")
    bare.put_run("aaaaaaaa", "outcome.json")
    local = LocalConnection(environment=bare.environment)
    under = 'script=$1; shift; exec "$@" -c "$script" sh "" "~/a b" 5'
    done = await local.run(under, look_script(), *shell, timeout_s=30)
    found, _ = read(done.stdout, time.time())
    expected, _ = read((await local.run(look_script(), "", "~/a b", "5", timeout_s=30)).stdout, time.time())
    assert found.problem is None
    assert found == replace(expected, clock_offset_ms=found.clock_offset_ms, places=found.places)
    assert [one.writing for one in found.places.values()] == ["yes", "yes", "yes"]


async def test_an_entry_that_names_the_wrong_program_does_not_hide_the_right_one(place: Place) -> None:
    found = await place.look(opencode="~/nowhere/opencode")
    assert found.is_asked_missing
    assert found.opencode is not None
    assert found.opencode.path == "~/.local/bin/opencode"
    assert found.catalogue is not None


async def test_a_directory_in_the_place_of_the_program_is_no_program(place: Place) -> None:
    (place.home / "opencode").mkdir()
    assert (await place.quick("~/opencode", "", "5")).is_asked_missing


async def test_opencode_is_found_where_a_command_over_ssh_misses_it(place: Place) -> None:
    place.variables["PATH"] = "/usr/bin:/bin"
    found = await place.quick()
    assert found.opencode is not None
    assert (found.opencode.path, found.opencode.is_on_path) == ("~/.local/bin/opencode", False)


async def test_the_opencode_of_the_users_own_shell_is_seen_when_it_is_another(place: Place) -> None:
    (place.home / "new").mkdir()
    (place.home / "new/opencode").write_text("#!/bin/sh\necho 1.30.0\n")
    (place.home / "new/opencode").chmod(0o755)
    (place.home / ".profile").write_text("PATH=$HOME/new:$PATH\n")
    found = await place.quick()
    assert found.opencode is not None
    assert found.opencode.version == "1.18.33"
    assert found.other is not None
    assert (found.other.path, found.other.version) == ("~/new/opencode", "1.30.0")


@pytest.mark.parametrize(
    ("program", "status", "words"),
    [
        ("#!/nowhere/loader\n", 127, "No such file"),
        ("#!/bin/sh\necho boom >&2\nexit 3\n", 3, "boom"),
        ("#!/bin/sh\nkill -ILL $$\n", 132, ""),
        ("#!/bin/sh\nexec sleep 60\n", 124, ""),
    ],
    ids=["no interpreter", "a failure", "an old processor", "a hang"],
)
async def test_an_opencode_that_does_not_start_says_how(place: Place, program: str, status: int, words: str) -> None:
    place.machine.put_program("opencode", program)
    found = await place.quick("", "", "1")
    assert found.opencode is not None
    assert (found.opencode.version, found.opencode.status) == (None, status)
    assert words in found.opencode.said


async def test_a_binary_for_another_machine_or_c_library_is_known_as_such(place: Place) -> None:
    own = Path(shutil.which("true") or "/bin/true").read_bytes()
    foreign = own[:18] + b"\xb7\x00" + own[20:].replace(b"/ld-linux", b"/ld-musl-", 1)
    (place.machine.bin / "opencode").write_bytes(foreign)
    found = await place.quick()
    assert found.opencode is not None
    assert found.opencode.version is None
    assert found.opencode.built_for == "aarch64"
    assert (found.opencode.missing_loader or "").startswith("ld-musl-")


async def test_what_opencode_says_of_itself_shows_no_home_and_no_address(place: Place) -> None:
    place.machine.put_program("opencode", f"#!/bin/sh\necho 'no {place.home}/x at me@10.0.0.5:22' >&2\nexit 1\n")
    found = await place.quick()
    assert found.opencode is not None
    assert found.opencode.said == "no ~/x at <address>"


async def test_listings_that_fail_are_told_in_the_probes_words(place: Place) -> None:
    place.machine.put_program("opencode", '#!/bin/sh\n[ "$1" = --version ] && echo 1.18.33\n')
    found = await place.look()
    assert found.catalogue is None
    assert found.trouble == "OpenCode there could not list its models"
    assert found.trouble_hint == "run `opencode models` on the host"


@pytest.mark.parametrize(
    ("asked", "state"),
    [("", "there"), ("~/project", "there"), ("~/new/deep", "absent"), ("~/file", "file"), ("~/file/below", "file")],
)
async def test_what_becomes_of_the_working_directory(bare: Place, asked: str, state: str) -> None:
    (bare.home / "file").write_text("")
    assert (await bare.quick("", asked, "5")).directory == state


async def test_a_full_disk_and_a_read_only_one_are_told_apart(bare: Place) -> None:
    with small_disk(bare.home / ".local/state") as disk:
        disk.fill()
        assert (await bare.quick()).places["state"].writing == "no-space"
        disk.make_read_only()
        found = await bare.quick()
    assert {name: one.writing for name, one in found.places.items()} == {
        "state": "read-only",
        "cache": "yes",
        "data": "yes",
    }
    assert not found.is_writable


async def test_programs_that_are_missing_are_named(bare: Place) -> None:
    directory = bare.home / "few"
    directory.mkdir()
    for name in ("sh", "awk", "cat", "dirname", "env", "head", "sed", "sort", "tail", "tr", "uname", "date", "id"):
        (directory / name).symlink_to(shutil.which(name, path="/usr/bin:/bin") or "/bin/false")
    bare.variables |= {"PATH": str(directory), "SHELL": "/nowhere"}
    found = await bare.quick()
    assert {"gzip", "find", "stat", "sha256sum", "nohup", "tar"} <= set(found.missing)
    assert not {"awk", "sed", "tr"} & set(found.missing)


@pytest.mark.parametrize(
    ("kills", "only", "excluded", "ends"),
    [
        ("true", "as 0", NOBODY, True),
        ("true", "as 0", "as 0", os.getuid() != 0),
        ("false", "as 0", NOBODY, False),
        ("true", "as 0", 'as 1 \\"$(id -un)\\"', False),
        ("false", 'as 2 \\"somebody\\" \\"$(id -un)\\"', NOBODY, True),
        ("true", 'as 1 \\"somebody\\"', "as 0", False),
    ],
    ids=["kills", "spares root", "keeps", "excluded", "only this user", "only another user"],
)
async def test_what_systemd_does_at_the_logout(bare: Place, kills: str, only: str, excluded: str, ends: bool) -> None:
    bare.variables |= LOGOUT
    bare.machine.put_program("busctl", BUSCTL.format(kills=kills, only=only, excluded=excluded))
    assert (await bare.quick()).ends_at_logout is ends


async def test_a_session_that_systemd_does_not_know_is_ended_by_nobody(bare: Place) -> None:
    bare.machine.put_program("busctl", BUSCTL.format(kills="true", only="as 0", excluded=NOBODY))
    assert not (await bare.quick()).ends_at_logout


async def test_run_directories_are_listed_with_their_state(bare: Place) -> None:
    bare.put_run("aaaaaaaa", "outcome.json", "started")
    bare.put_run("bbbbbbbb", "job.json")
    bare.put_run("cccccccc", "lock/recovery")
    bare.put_run("not a run", "outcome.json")
    found = await bare.quick()
    assert found.runs == {
        RUN.format("aaaaaaaa"): "ended",
        RUN.format("bbbbbbbb"): "idle",
        RUN.format("cccccccc"): "alive",
    }


async def test_keys_of_a_login_shell_are_known_by_their_names_only(bare: Place) -> None:
    (bare.home / ".profile").write_text("export SOME_API_KEY=hidden OWN_API_KEY=hidden\n")
    bare.variables["OWN_API_KEY"] = "hidden"
    found = await bare.quick()
    assert found.login_keys == ("SOME_API_KEY",)
    assert "hidden" not in repr(found)


async def test_the_database_has_the_identity_that_send_compares(place: Place) -> None:
    place.machine.run("session", "list")
    program = LocalConnection(environment=place.environment)
    database = str(place.machine.opencode.data / "opencode.db")
    identity = (await program.run(identity_script(), database, timeout_s=10)).stdout.decode().strip()
    assert (await place.quick()).databases == {identity}


@pytest.mark.parametrize("answer", [b"", b"now 17\nhome /h\n", b"looked yes\n", b"now soon\nlooked yes\n"])
def test_an_answer_that_is_cut_or_odd_is_a_problem_and_no_facts(answer: bytes) -> None:
    found, path = read(answer, 17.0)
    assert found.problem == "the script that looks around did not end well"
    assert path is None


def test_an_answer_with_control_characters_is_cleaned() -> None:
    found, _ = read(b"now 17000\nhome /h\ngit 2\x1b[31m.5\xe2\x80\xae\nopencode /h/\x07x\nlooked yes\n", 17.0)
    assert found.git == "2.5"
    assert found.opencode is not None
    assert found.opencode.path == "~/x"


async def test_a_lost_connection_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Sshd(tmp_path / "sshd") as sshd:
        monkeypatch.setenv("HOME", str(sshd.write_client_home(tmp_path / "laptop")))
        host = Host(name="pi", host="box")
        async with connect(host) as connection:
            sshd.drop_connections()
            with pytest.raises(ConnectionLostError):
                await look(connection, host)

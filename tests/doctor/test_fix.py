"""The safe cures: which are offered, and what each of them does and leaves alone."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.doctor.finding import Check, Finding, Fix, Report, Severity
from remote_dispatch.doctor.fix import Cure, apply, cures_of, take_from_others
from remote_dispatch.doctor.local import hosts_file_findings, look_here
from remote_dispatch.errors import ConfigurationError, HostNotReadyError
from remote_dispatch.plugin import install, user_place
from tests.rig.sshd import Sshd

if TYPE_CHECKING:
    from pathlib import Path

    from tests.doctor.conftest import Laptop


def a_cure(fix: Fix, host: str | None = None, **detail: str) -> Cure:
    return Cure(host, Finding(Check.OPENCODE, Severity.WARNING, "seen", fix=fix, detail=detail))


def test_every_finding_with_a_fix_is_offered_in_order_and_named_in_its_question() -> None:
    ok = Finding(Check.GIT, Severity.OK, "git 2")
    key = Finding(Check.HOST_KEY, Severity.ERROR, "unknown", fix=Fix.ACCEPT_HOST_KEY)
    mode = Finding(Check.HOSTS_FILE, Severity.WARNING, "open", fix=Fix.FILE_MODE, detail={"file": "/x/hosts.json"})
    cures = cures_of([Report(None, (ok, mode)), Report("pi", (ok, key))])
    assert [(cure.host, cure.fix) for cure in cures] == [(None, Fix.FILE_MODE), ("pi", Fix.ACCEPT_HOST_KEY)]
    assert [cure.question for cure in cures] == [
        "Take /x/hosts.json from everybody but you?",
        "Accept the host key of pi?",
    ]


@pytest.mark.parametrize("fix", Fix)
@pytest.mark.parametrize("detail", [{}, {"opencode": "~/bin/opencode", "file": "/x/hosts.json"}])
def test_every_fix_can_be_asked_for(fix: Fix, detail: dict[str, str]) -> None:
    question = a_cure(fix, "pi", **detail).question
    assert question.endswith("?")
    assert ("~/bin/opencode" in question) is (fix is Fix.OPENCODE_FIELD and bool(detail))


async def test_a_hosts_file_becomes_the_users_alone(laptop: Laptop) -> None:
    laptop.write_hosts({"pi": {"host": "pi-lan", "env": {"TOKEN": "x"}}}, mode=0o664)
    before = laptop.hosts_file.read_bytes()
    (cure,) = cures_of([Report(None, hosts_file_findings(laptop.registry()))])
    await apply(cure, laptop.means, print)
    assert stat.S_IMODE(laptop.hosts_file.stat().st_mode) == 0o600
    assert laptop.hosts_file.read_bytes() == before
    assert not cures_of([Report(None, hosts_file_findings(laptop.registry()))])


def test_a_link_to_a_file_stays_a_link(tmp_path: Path) -> None:
    file, link = tmp_path / "real.json", tmp_path / "hosts.json"
    file.write_text("{}")
    file.chmod(0o644)
    link.symlink_to(file)
    take_from_others(link)
    assert link.is_symlink()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("make", ["mkdir", "none"])
def test_what_is_no_file_is_refused(tmp_path: Path, make: str) -> None:
    path = tmp_path / "hosts.json"
    if make == "mkdir":
        path.mkdir(mode=0o755)
    with pytest.raises(ConfigurationError):
        take_from_others(path)
    assert not path.exists() or stat.S_IMODE(path.stat().st_mode) == 0o755


@pytest.mark.parametrize(("place", "entry"), [("~/bin/opencode", {"opencode": "~/bin/opencode"}), ("", {})])
async def test_the_field_opencode_is_corrected_or_taken_out(laptop: Laptop, place: str, entry: dict[str, str]) -> None:
    laptop.write_hosts({"pi": {"host": "pi-lan", "opencode": "/wrong"}, "lab": "lab-lan"})
    await apply(a_cure(Fix.OPENCODE_FIELD, "pi", opencode=place), laptop.means, print)
    hosts = json.loads(laptop.hosts_file.read_text())["hosts"]
    assert hosts["pi"] in ({"host": "pi-lan", **entry}, "pi-lan")
    assert hosts["lab"] == "lab-lan"


async def test_an_opencode_that_is_there_is_never_replaced(laptop: Laptop) -> None:
    host = laptop.machine
    with Sshd(host.home.parent / "box", home=host.home, path=host.opencode.environment["PATH"]) as box:
        box.write_client_home(host.home, alias="box-lan")
        laptop.write_hosts({"box": "box-lan"})
        program = (host.bin / "opencode").read_bytes()
        with pytest.raises(HostNotReadyError, match="is there already, and was left alone") as caught:
            await apply(a_cure(Fix.SETUP, "box"), laptop.means, print)
    assert "--force" in (caught.value.hint or "")
    assert (host.bin / "opencode").read_bytes() == program
    assert not (host.home / ".opencode").exists()


async def test_the_plugin_is_brought_up_to_date(laptop: Laptop) -> None:
    place = user_place(laptop.environment)
    install(place, ("remote-dispatch",), laptop.environment)
    shipped = place.plugin_file.read_text()
    place.plugin_file.write_text("// of last year\n")
    (cure,) = cures_of([(await look_here(laptop.means)).report])
    assert cure.question == "Bring the plugin up to date?"
    await apply(cure, laptop.means, print)
    assert place.plugin_file.read_text() == shipped

"""Names are public, addresses are private; what is on disk is for its owner alone; and every failure has its words.

That no output and no brief holds an address is checked by every call of the command line in these tests.
"""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from tests.rig.sshd import USER, free_port, make_key
from tests.rig.world import ALIAS, Ran

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from tests.rig.world import World


def test_the_check_for_addresses_can_fail(world: World) -> None:
    for secret in world.secrets:
        with pytest.raises(AssertionError):
            world.assert_no_address(Ran((), 0, f"could not reach {secret}", ""))


def _refuse_port(world: World) -> None:
    world.write_hosts(pi={"port": free_port()})


def _refuse_key(world: World) -> None:
    key = world.laptop.home / ".ssh" / f"id_{ALIAS}"
    key.unlink()
    make_key(key)


def _forget_host_key(world: World) -> None:
    (world.laptop.home / ".ssh" / "known_hosts").write_text("")


def _change_host_key(world: World) -> None:
    other = make_key(world.directory / "other_key").with_suffix(".pub").read_text().split()
    line = f"[{world.sshd.listen}]:{world.sshd.port} {other[0]} {other[1]}\n"
    (world.laptop.home / ".ssh" / "known_hosts").write_text(line)


def _stop_host(world: World) -> None:
    world.sshd.stop()


def _lose_key_file(world: World) -> None:
    (world.laptop.home / ".ssh" / f"id_{ALIAS}").unlink()


@pytest.mark.parametrize(
    ("spoil", "exit_code", "kind"),
    [
        (_refuse_port, 5, "unreachable"),
        (_stop_host, 5, "unreachable"),
        (_refuse_key, 4, "authentication"),
        (_lose_key_file, 4, "authentication"),
        (_forget_host_key, 4, "host-key"),
        (_change_host_key, 4, "host-key"),
    ],
)
def test_p30_no_way_in_is_an_error_with_a_name_and_without_an_address(
    world: World, spoil: Callable[[World], None], exit_code: int, kind: str
) -> None:
    session = world.local_session()
    before = world.laptop.content()
    spoil(world)
    ran = world.send("!say done", "--session", session)
    assert (ran.exit_code, ran.error["kind"]) == (exit_code, kind)
    assert ran.error["message"].startswith("pi: ")
    assert ran.error["hint"]
    assert world.laptop.content() == before
    assert (world.run_directories(), world.dispatch_folders()) == ([], [])


def test_p30_an_unknown_host_is_exit_10_and_lists_names_only(world: World) -> None:
    world.write_hosts(pi={}, lab={})
    ran = world.cli("send", "gpu", "!say done", "--json")
    assert (ran.exit_code, ran.error["kind"]) == (10, "unknown-name")
    assert "lab" in f"{ran.error['message']} {ran.error['hint']}"
    assert world.connections() == 0


@pytest.mark.parametrize("address", [f"{USER}@localhost", "127.0.0.1"])
def test_p30_an_address_in_the_hosts_file_is_shown_nowhere(world: World, address: str) -> None:
    session = world.local_session()
    world.write_hosts(pi={"host": address, "port": free_port()})
    for command in (
        ("send", "pi", "!say done", "--session", session),
        ("send", "pi", "--session", session, "--dry-run"),
        ("list", "--refresh"),
    ):
        ran = world.cli(*command, "--json")
        assert address not in ran.stdout + ran.stderr
        people = world.cli(*command)
        assert address not in people.stdout + people.stderr


def test_p30_not_ready_in_time_names_no_address(world: World) -> None:
    gate = world.host.home / "gate"
    world.send(f"!wait {gate}", "--session", world.local_session(), "--name", "kumo")
    assert world.cli("wait", "kumo", "--timeout", "1").exit_code == 6
    assert world.cli("collect", "kumo", "--no-wait").exit_code == 6
    world.sshd.stop()
    for command in (("collect", "kumo", "--no-wait"), ("logs", "kumo"), ("cancel", "kumo")):
        ran = world.cli(*command, "--json")
        assert (ran.exit_code, ran.error["kind"]) == (5, "unreachable")
    gate.touch()


def test_p31_what_is_no_address_is_refused(world: World) -> None:
    session = world.local_session()
    options = ("-Fevil.conf", "-oProxyCommand=touch canary", "user@-oX")
    for address in (*options, "a b", "h;touch canary", "$(touch canary)", "u@h:22:22", ""):
        world.write_hosts(pi={"host": address})
        ran = world.send("!say done", "--session", session)
        assert (ran.exit_code, ran.error["kind"]) == (11, "configuration"), address
    assert not (world.laptop.project / "canary").exists()
    assert world.connections() == 0


def _modes(places: Iterable[Path]) -> dict[str, str]:
    """Return the mode of everything below, where it is more than its owner's."""
    open_ones = {}
    for place in places:
        for path in (place, *place.rglob("*")):
            mode = stat.S_IMODE(os.lstat(path).st_mode)
            if mode & 0o077 and not path.is_symlink():
                open_ones[str(path)] = oct(mode)
    return open_ones


def test_p33_everything_on_both_sides_is_for_its_owner_alone(world: World) -> None:
    session = world.local_session("look", f"Full output saved to: {world.laptop.opencode.data / 'tool-output/tool_a1'}")
    (world.laptop.opencode.data / "tool-output").mkdir()
    (world.laptop.opencode.data / "tool-output" / "tool_a1").write_text("long")
    gate = world.host.home / "gate"
    world.send(f"!task look\n!wait {gate}", "--session", session, "--name", "kumo")
    places = [machine.home / ".local/state/remote-dispatch" for machine in (world.laptop, world.host)]
    places.append(world.host.home / ".cache/remote-dispatch")
    assert all(any(place.rglob("*")) for place in places)
    assert _modes(places) == {}
    gate.touch()
    world.await_end()
    assert _modes(places) == {}
    assert world.cli("collect", "kumo", "--json").exit_code == 0
    assert _modes(places) == {}


def test_p33_nothing_is_left_in_a_shared_temporary_directory(world: World) -> None:
    temporary = [machine.home / "tmp" for machine in (world.laptop, world.host)]
    before = [sorted(place.iterdir()) for place in temporary]
    session = world.local_session()
    after_session = [sorted(place.iterdir()) for place in temporary]
    world.round_trip("!say done", "--session", session)
    assert [sorted(place.iterdir()) for place in temporary] == after_session
    assert before[1] == after_session[1]


def test_the_conversation_of_a_failed_provider_comes_home_without_addresses_in_the_error(world: World) -> None:
    ran = world.round_trip("!fail 500", "--session", world.local_session())
    assert "refused by the provider" in ran.error["message"]
    assert "remote-dispatch logs" in ran.error["hint"]


def test_the_model_there_cannot_read_the_addresses_of_the_connection(world: World) -> None:
    world.round_trip(f"!record {world.directory}/seen", "--session", world.local_session())
    environment = json.loads((world.directory / "seen").read_text())["environment"]
    assert "REMOTE_DISPATCH_RUN" in environment
    assert not [name for name in environment if name.startswith("SSH_")]


def _record(world: World) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((world.dispatch_folders()[-1] / "record.json").read_text())
    return record


def test_the_record_on_both_sides_holds_the_name_and_no_address(world: World) -> None:
    world.send("!say done", "--session", world.local_session())
    assert _record(world)["request"]["host"] == "pi"
    text = json.dumps(_record(world)) + (world.run_directories()[0] / "job.json").read_text()
    world.assert_no_address(Ran((), 0, text, ""))

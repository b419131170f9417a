"""What goes wrong is told to the model plainly, in names; the check for addresses is in the fixture `place`."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.plugin.conftest import PLUGIN, call_tool, configured
from tests.real.conftest import OUTSIDE, heard
from tests.rig.sshd import free_port, make_key
from tests.rig.world import ALIAS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.plugin.conftest import Place
    from tests.real.conftest import Machines

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


def test_the_model_is_told_plainly_why_nothing_was_handed_over(place: Place) -> None:
    outputs = told(
        place, "!tool remote_dispatch {}", call_tool(mode="sideways"), call_tool(help=True), call_tool("nowhere"),
        call_tool("gone"), call_tool("changed"),
    )  # fmt: skip
    reasons = (
        r"`host` is missing",
        r"`mode` is `one-way` or `round-trip`",
        r"remote-dispatch hosts add NAME ADDRESS",
        r"`nowhere`",
        r"gone",
        r"changed.*host key",
    )
    check_reasons(outputs, reasons, refused=5)
    assert "`changed`, `gone`, `locked`, `modest`, `pi`" in outputs[2]


@pytest.mark.slow
def test_the_model_is_told_plainly_what_a_host_refused_and_that_it_is_at_work_already(place: Place) -> None:
    outputs = told(
        place, call_tool("locked"), call_tool("modest"), call_tool(task="!sleep 3\n!say there"),
        call_tool(task="!say twice"),
    )  # fmt: skip
    check_reasons(outputs, (r"locked", r"modest.*there/none", r"handed over to pi", r"pi"), refused=3)


def told(place: Place, *calls: str) -> list[str]:
    """Have the model make these calls where most hosts are bad; return what it was told of each."""
    with bad_hosts(place.machines):
        place.run(*calls, "!say told")
    rows = json.dumps(place.stored)
    assert not [secret for secret in place.machines.world.secrets if secret.endswith("@") and secret in rows]
    return [state["output"] for state in place.tool_states]


def check_reasons(outputs: list[str], reasons: tuple[str, ...], *, refused: int) -> None:
    """Each answer gives its reason, and so many say that nothing was handed over."""
    for reason, output in zip(reasons, outputs, strict=True):
        assert re.search(reason, output, re.DOTALL), output
    assert len([output for output in outputs if output.startswith("Nothing was handed over: ")]) == refused


@pytest.mark.slow
def test_the_model_is_told_what_failed_and_what_was_refused_on_the_host(place: Place) -> None:
    place.run(call_tool(mode="round-trip", task=f"!read {OUTSIDE}\n!fail 400"))
    (state,) = place.tool_states
    assert re.fullmatch(r"pi did not finish `[a-z]{4}`; what is known of it follows\.", state["output"])
    last = heard(place.calls[-1])
    assert re.search(r"`[a-z]{4}` failed on pi; 3 messages came home: .*400", last), last
    assert "a permission was refused on the host: read" in last
    assert "Tell the user plainly what happened" in last


def test_without_the_command_the_model_says_how_to_install_it(place: Place) -> None:
    options = {"command": ["remote-dispatch-is-not-here"]}
    with configured(place.machines.laptop, plugin=[[f"file://{PLUGIN}", options]]):
        place.run(call_tool(), "!say told")
    (state,) = place.tool_states
    assert "the command `remote-dispatch` cannot be started" in state["output"]


@contextmanager
def bad_hosts(machines: Machines) -> Iterator[None]:
    """Hosts that cannot be reached, refuse the key, show another host key, and lack a model."""
    world, ssh = machines.world, machines.laptop.home / ".ssh"
    other = make_key(ssh / "other")
    public = other.with_suffix(".pub").read_text().split()[:2]
    (ssh / "others").write_text(f"[{world.sshd.listen}]:{world.sshd.port} {' '.join(public)}\n")
    config = ssh / "config"
    before = config.read_text()
    target = f"HostName {world.sshd.listen}\nPort {world.sshd.port}\nIdentitiesOnly yes\n"
    config.write_text(
        f"Host locked-lan\n{target}IdentityFile {other}\nHost changed-lan\n{target}"
        f"IdentityFile {ssh / f'id_{ALIAS}'}\nUserKnownHostsFile {ssh / 'others'}\n{before}"
    )
    world.write_hosts(
        pi={"directory": "~/project"},
        gone={"port": free_port()},
        locked={"host": "locked-lan"},
        changed={"host": "changed-lan"},
        modest={"model": "there/none"},
    )
    try:
        yield
    finally:
        config.write_text(before)
        world.write_hosts(pi={"directory": "~/project"})

"""While it runs: nobody need watch, nothing ends it, and whoever watches sees everything once."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from tests.main_path.texts import briefs, said
from tests.rig.sshd import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.rig.world import Ran, World


def texts(ran: Ran) -> list[str]:
    return [line["text"] for line in ran.streams if line["type"] == "text"]


def test_p12_one_way_returns_at_once_and_holds_no_channel(world: World, gate: Path) -> None:
    session = world.local_session()
    took_s = []
    for number in range(3):
        ran = world.send(f"!wait {gate}\n!say {number}", "--session", session)
        took_s.append(time.time() - (world.run_directories()[-1] / "started").stat().st_mtime)
        assert (ran.exit_code, ran.data["state"]) == (0, "running")
        if took_s[-1] < 1:
            break
    assert min(took_s) < 1
    wait_until(lambda: world.sshd.drop_connections() == 0, "a channel is still open")
    gate.touch()
    world.await_end()


def test_p13_a_deadline_of_ours_is_no_failure_of_the_task(world: World, gate: Path) -> None:
    world.send(f"!wait {gate}\n!say late", "--session", world.local_session(), "--name", "kumo")
    ran = world.cli("wait", "kumo", "--timeout", "1s", "--json")
    assert (ran.exit_code, ran.error["kind"]) == (6, "deadline")
    assert world.cli("show", "kumo", "--json").data["state"] == "running"
    gate.touch()
    ran = world.cli("collect", "kumo", "--json")
    assert (ran.exit_code, ran.data["answer"]) == (0, "late")


def test_p13_a_round_trip_with_a_deadline_is_collected_later(world: World, gate: Path) -> None:
    ran = world.round_trip(f"!wait {gate}\n!say late", "--session", world.local_session(), "--timeout", "1")
    assert (ran.exit_code, ran.error["kind"], ran.data["state"]) == (6, "deadline", "running")
    gate.touch()
    assert world.cli("wait", ran.data["name"], "--json").exit_code == 0
    assert world.count_runs() == 1


def test_p14_a_lost_connection_is_made_anew_and_every_event_is_shown_once(world: World, gate: Path) -> None:
    session = world.local_session()
    running = world.start(
        *("send", "pi", f"!say before\n!wait {gate}\n!say after", "--session", session),
        *("--mode", "round-trip", "--json"),
    )
    wait_until(
        lambda: "before" in running.stdout().partition('"text"')[2], "the first event did not come", timeout_s=20
    )
    assert world.sshd.drop_connections() >= 1
    wait_until(lambda: "unreachable" in running.stdout(), "the loss was not noticed", timeout_s=20)
    gate.touch()
    ran = running.finish()
    assert ran.exit_code == 0
    assert texts(ran) == ["before", "after"]
    assert (world.connections(), world.count_runs()) == (2, 1)
    assert said(world.export_local(session))[-1] == ("assistant", "beforeafter")


def test_p14_a_connection_that_is_lost_again_and_again_costs_nothing(world: World, gate: Path) -> None:
    gates = [world.host.home / f"gate{number}" for number in range(3)]
    prompt = "\n".join(f"!say text {number}\n!wait {one}" for number, one in enumerate(gates))
    session = world.local_session()
    running = world.start("send", "pi", prompt, "--session", session, "--mode", "round-trip", "--json")
    for number, one in enumerate(gates):
        wait_until(lambda number=number: f'"text {number}"' in running.stdout(), "no event", timeout_s=20)  # type: ignore[misc] # a default argument binds it
        world.sshd.drop_connections()
        one.touch()
    ran = running.finish()
    assert (ran.exit_code, texts(ran)) == (0, ["text 0", "text 1", "text 2"])
    assert world.count_runs() == 1


@pytest.mark.slow
def test_p14_a_run_may_be_longer_than_any_sign_of_life(world: World) -> None:
    ran = world.round_trip("!bash sleep 13\n!say done", "--session", world.local_session())
    assert (ran.exit_code, world.connections()) == (0, 1)


def test_p16_a_call_that_a_rule_forbids_is_a_warning(world: World) -> None:
    ran = world.round_trip("!deny rm -rf /tmp/x\n!say went on", "--session", world.local_session())
    assert (ran.exit_code, ran.envelope["ok"], ran.data["state"]) == (3, True, "done")
    assert ran.data["warnings"] == ["a permission was refused on the host: bash: rm -rf /tmp/x"]
    assert "warning: a permission was refused on the host" in ran.stderr


def test_p16_a_turn_that_ended_at_a_refused_permission_is_not_done(world: World) -> None:
    ran = world.round_trip("!reject", "--session", world.local_session())
    assert (ran.exit_code, ran.data["state"], ran.data["kind"]) == (1, "failed", "rejected")
    assert ran.data["warnings"] == ["a permission was refused on the host: read: /etc/hostname"]
    assert ran.data["collected"] == "whole"


@pytest.mark.parametrize("policy", ["deny", "auto"])
def test_p16_the_policy_reaches_opencode(world: World, policy: str) -> None:
    target = world.host.home / "seen.json"
    world.round_trip(f"!record {target}", "--session", world.local_session(), "--permissions", policy)
    seen = json.loads(target.read_text())
    asked = json.loads(seen["environment"]["OPENCODE_PERMISSION"])
    assert ("--auto" in seen["arguments"]) is (policy == "auto")
    assert ("ask" in json.dumps(asked)) is False
    assert seen["environment"]["REMOTE_DISPATCH_DEPTH"] == "1"


def test_p18_a_failed_turn_is_a_failure_and_still_comes_home(world: World) -> None:
    session = world.local_session()
    ran = world.round_trip("!fail 503", "--session", session)
    assert (ran.exit_code, ran.envelope["ok"], ran.error["kind"]) == (1, False, "task-failed")
    assert (ran.data["state"], ran.data["kind"]) == ("failed", "provider_unavailable")
    assert ran.data["collected"] == "whole"
    assert world.export_local(session)["messages"][-1]["info"]["error"]["name"] == "APIError"
    assert world.run_directories() == []


def test_p18_the_kind_of_a_failure_is_named(world: World) -> None:
    ran = world.round_trip("!fail 429", "--session", world.local_session())
    assert (ran.exit_code, ran.data["kind"]) == (1, "rate_limited")


def test_p18_an_answer_counts_whatever_the_exit_status_says(world: World) -> None:
    world.host.set(STUB_FAULT="run-exit-1")
    ran = world.round_trip("!say all done", "--session", world.local_session())
    assert ran.data["answer"] == "all done"
    assert ran.data["state"] == "done"


def test_p18_a_result_that_cannot_be_exported_stays_on_the_host(world: World) -> None:
    session = world.local_session()
    before = world.laptop.content()
    world.host.set(STUB_FAULT="export-fails")
    ran = world.round_trip("!say done", "--session", session)
    assert (ran.exit_code, ran.data["state"], ran.data["kind"]) == (1, "failed", "export-failed")
    assert world.laptop.content() == before
    assert len(world.run_directories()) == 1
    world.host.set()
    assert briefs(world.host.export(session)) == 1


def test_p20_a_killed_sender_loses_nothing(world: World, gate: Path) -> None:
    session = world.local_session()
    running = world.start(
        *("send", "pi", f"!wait {gate}\n!say done", "--session", session, "--name", "kumo", "--mode", "round-trip"),
    )
    wait_until(lambda: world.count_runs() == 1, "the brief did not start", timeout_s=20)
    running.kill()
    gate.touch()
    ran = world.cli("collect", "kumo", "--json")
    assert (ran.exit_code, ran.data["answer"], world.count_runs()) == (0, "done", 1)
    assert said(world.export_local(session))[-1] == ("assistant", "done")


def test_ctrl_c_ends_the_waiting_and_not_the_work(world: World, gate: Path) -> None:
    session = world.local_session()
    running = world.start(
        *("send", "pi", f"!say begun\n!wait {gate}", "--session", session, "--name", "kumo"),
        *("--mode", "round-trip", "--json"),
    )
    wait_until(lambda: '"begun"' in running.stdout(), "no event", timeout_s=20)
    running.interrupt()
    ran = running.finish()
    assert (ran.exit_code, ran.error["kind"]) == (130, "interrupted")
    gate.touch()
    assert world.cli("collect", "kumo", "--json").exit_code == 0
    assert world.count_runs() == 1


def test_a_killed_runner_is_lost_and_never_run_again(world: World, gate: Path) -> None:
    session = world.local_session()
    ran = world.send(f"!wait {gate}", "--session", session, "--name", "kumo")
    wait_until(lambda: world.count_runs() == 1, "OpenCode did not start", timeout_s=20)
    pid = int((world.run_directories()[0] / "lock" / "owner").read_text().split()[1])
    world.host_kill(pid)
    ran = world.cli("wait", "kumo", "--json")
    assert (ran.exit_code, ran.data["dispatches"][0]["state"]) == (1, "lost")
    gate.touch()
    assert world.cli("show", "kumo", "--json").data["state"] == "lost"
    assert world.count_runs() == 1


def test_the_host_goes_down_while_it_is_watched_and_comes_back(world: World, gate: Path) -> None:
    session = world.local_session()
    running = world.start(
        *("send", "pi", f"!say begun\n!wait {gate}", "--session", session, "--name", "kumo"),
        *("--mode", "round-trip", "--json"),
    )
    wait_until(lambda: '"begun"' in running.stdout(), "no event", timeout_s=20)
    world.sshd.stop()
    wait_until(lambda: running.stdout().count("unreachable") >= 2, "the loss was not noticed", timeout_s=20)
    shown = world.cli("show", "kumo", "--json")
    assert (shown.exit_code, shown.data["state"]) == (0, "running")
    assert "does not answer" in shown.data["remark"]
    gate.touch()
    world.sshd.start()
    ran = running.finish()
    assert (ran.exit_code, ran.data["unreachable_since"]) == (0, None)


def test_cancel_ends_everything_and_brings_home_what_was_done(world: World) -> None:
    session = world.local_session()
    pid_file = world.host.home / "pid"
    prompt = f"!say so far\n!bash echo $$ >{pid_file}; sleep 600"
    world.send(prompt, "--session", session, "--name", "kumo")
    world.await_file(pid_file)
    ran = world.cli("cancel", "kumo", "--json")
    assert (ran.exit_code, ran.data["state"]) == (0, "cancelled")
    wait_until(lambda: not world.is_alive(pid_file), "the tool's command lives on")
    assert ("assistant", "so far") in said(world.export_local(session))
    again = world.cli("cancel", "kumo", "--json")
    assert (again.exit_code, again.data["state"]) == (0, "cancelled")


def test_a_cancelled_dispatch_is_a_failure_for_whoever_waits(world: World, gate: Path) -> None:
    world.send(f"!wait {gate}", "--session", world.local_session(), "--name", "kumo")
    waiting = world.start("wait", "kumo", "--json")
    wait_until(lambda: world.connections() == 2, "nobody waits", timeout_s=20)
    assert world.cli("cancel", "kumo", "--json").exit_code == 0
    assert waiting.finish().exit_code == 1


def test_waiting_for_a_one_way_run_that_failed_is_no_success(world: World) -> None:
    world.send("!fail 500", "--session", world.local_session(), "--name", "kumo")
    waited = world.cli("wait", "kumo", "--json")
    assert (waited.exit_code, waited.data["dispatches"][0]["kind"]) == (3, "run-failed")
    collected = world.cli("collect", "kumo", "--json")
    assert (collected.exit_code, collected.data["kind"]) == (1, "provider_unavailable")

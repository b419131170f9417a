"""What changes for the journey and is put back afterwards."""

from __future__ import annotations

from remote_dispatch.model import Model
from remote_dispatch.transcript import (
    digest,
    has_pending_revert,
    message_ids,
    origin_of,
    restore,
    retarget,
    without_reverted,
    without_workspace,
)
from tests.transcript.samples import assistant, exported, message_id, part, session, user


def test_the_origin_of_a_real_session() -> None:
    transcript = exported("open-call")
    origin = origin_of(transcript)
    assert (origin.agent, origin.model, origin.variant) == ("build", "scripted/m", None)
    assert (origin.directory, origin.title, origin.messages) == ("/home/ada/src/demo", "A title", 13)
    assert origin.digest == digest(transcript)


def test_a_session_without_agent_and_model_has_those_of_its_last_user_message() -> None:
    last = user(3, agent="plan", model={"providerID": "p", "modelID": "a/b", "variant": "high"})
    origin = origin_of(session(user(1), assistant(2), last))
    assert (origin.agent, origin.model, origin.variant) == ("plan", "p/a/b", "high")


def test_an_empty_session_has_no_agent_and_no_model() -> None:
    origin = origin_of(session())
    assert (origin.agent, origin.model, origin.messages) == (None, None, 0)


def test_retargeting_names_agent_and_model_and_keeps_the_rest() -> None:
    before = session(user(1), agent="build", model={"id": "old", "providerID": "p", "variant": "high"}, cost=3)
    after = retarget(before, agent="plan", model=Model("remote", "big/one"), variant=None)
    assert after["info"]["agent"] == "plan"
    assert after["info"]["model"] == {"id": "big/one", "providerID": "remote", "variant": "default"}
    assert after["messages"] is before["messages"]
    assert after["info"]["cost"] == 3


def test_retargeting_to_nothing_changes_nothing() -> None:
    before = session(user(1), agent="build", model={"id": "old", "providerID": "p", "variant": "high"})
    assert retarget(before, agent=None, model=None, variant=None) == before


def test_the_variant_stays_with_its_own_model() -> None:
    before = session(model={"id": "old", "providerID": "p", "variant": "high"})
    assert retarget(before, agent=None, model=Model("p", "old"), variant=None)["info"]["model"]["variant"] == "high"
    assert retarget(before, agent=None, model=None, variant="low")["info"]["model"]["variant"] == "low"


def test_user_messages_come_home_with_the_local_agent_and_model() -> None:
    origin = origin_of(session(agent="plan", model={"id": "local", "providerID": "p", "variant": "high"}))
    brief, answer = restore([user(5, agent="remote"), assistant(6)], origin)
    assert brief["info"]["agent"] == "plan"
    assert brief["info"]["model"] == {"providerID": "p", "modelID": "local", "variant": "high"}
    assert answer == assistant(6)


def test_a_session_leaves_its_workspace_behind() -> None:
    assert without_workspace(session(user(1), workspaceID="wrk_1")) == session(user(1))


def test_messages_that_were_taken_back_do_not_travel() -> None:
    transcript = session(user(1), assistant(2), user(3), assistant(4), revert={"messageID": message_id(3)})
    assert has_pending_revert(transcript)
    assert without_reverted(transcript) == session(user(1), assistant(2))


def test_parts_that_were_taken_back_do_not_travel() -> None:
    kept, gone = part(200, 2, text="a"), part(201, 2, text="b")
    revert = {"messageID": message_id(2), "partID": gone["id"]}
    transcript = session(user(1), assistant(2, kept, gone), user(3), revert=revert)
    assert without_reverted(transcript) == session(user(1), assistant(2, kept))


def test_without_a_revert_everything_travels() -> None:
    transcript = exported("killed")
    assert not has_pending_revert(transcript)
    assert message_ids(without_reverted(transcript)) == message_ids(transcript)

"""What a transcript refers to outside itself."""

from __future__ import annotations

from remote_dispatch.transcript import children_of, tool_outputs
from tests.transcript.samples import SESSION, assistant, exported, part, session, tool

CHILD = "ses_e04456fb6ffeyf2KDGUDGrFvGw"
OTHER = "ses_e04456fb6ffezzzzzzzzzzzzzz"


def test_the_child_of_a_real_session_is_found() -> None:
    assert children_of(exported("killed")) == (CHILD,)
    assert children_of(exported("child")) == ()


def test_a_running_and_a_finished_task_name_their_sessions_once() -> None:
    running = tool(201, 2, "task", status="running", metadata={"sessionId": OTHER})
    finished = tool(202, 2, "task", status="completed", output=f'<task id="{CHILD}" state="completed">', metadata={})
    again = tool(
        203, 2, "task", status="completed", output="", metadata={"sessionId": CHILD, "parentSessionId": SESSION}
    )
    assert children_of(session(assistant(2, running, finished, again))) == (OTHER, CHILD)


def test_only_task_parts_name_children() -> None:
    read = tool(201, 2, "read", status="completed", output=f'<task id="{CHILD}">', metadata={"sessionId": CHILD})
    assert children_of(session(assistant(2, read, part(202, 2, text=f'<task id="{CHILD}">')))) == ()


def test_a_name_that_is_no_session_id_is_no_child() -> None:
    broken = tool(201, 2, "task", status="completed", output='<task id="../../x">', metadata={"sessionId": "ses_; rm"})
    assert children_of(session(assistant(2, broken))) == ()


def test_files_of_long_outputs_are_found_by_their_paths() -> None:
    output = "...cut\nFull output: /home/ada/.local/share/opencode/tool-output/tool_1fbba6162001AbC and more"
    call = tool(201, 2, "bash", status="completed", output=output, metadata={"outputPath": "/x/tool-output/tool_2"})
    text = part(202, 2, text="see /home/ada/.local/share/opencode/tool-output/tool_1fbba6162001AbC.")
    assert tool_outputs(session(assistant(2, call, text))) == ("tool_2", "tool_1fbba6162001AbC")


def test_other_names_in_that_directory_are_left_alone() -> None:
    names = ("../auth.json", "tool_", "tool_a_b", "tool_" + "a" * 81)
    text = "tool-output/tool_relative " + " ".join(f"/x/tool-output/{name}" for name in names)
    assert tool_outputs(session(assistant(2, part(200, 2, text=text)))) == ()

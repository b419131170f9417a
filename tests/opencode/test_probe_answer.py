"""What a host may answer to the probe: noise, nonsense, too much. Nothing of it is believed unread."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from remote_dispatch.errors import HostNotReadyError
from remote_dispatch.opencode.probe import read_answer

if TYPE_CHECKING:
    from tests.opencode.conftest import Box

HONEST = "echo now 1700000000000; echo home /h; echo state_directory /s; echo opencode /o; echo directory /d"
HOSTILE = [
    "printf 'blob held 16\nchanged\t1\nrubbish\n'",
    "echo 'now soon'",
    "echo 'now 12_'; echo 'now '",
    "echo 'held_status 1'",
    "echo 'blob held 9'; echo '{\"a\":1}'",
    "echo 'blob held 17'; echo '[{\"kind\":\"part\"}]'",
    "echo 'blob models.status 3'; echo 'bad'",
    "printf 'blob agents 999999999\\nx'",
    "printf 'now \\377\\376\\n'",
]


def test_values_and_blobs_are_read_whatever_the_blobs_hold() -> None:
    blob = b"models 3\nblob path 99\n\x00\xff\n"
    answer = b"now 12\nshell /bin/my shell\nblob models %d\n%s\nprobed yes\n" % (len(blob), blob)
    assert read_answer(answer) == ({"now": "12", "shell": "/bin/my shell", "probed": "yes"}, {"models": blob})


def test_odd_lines_are_skipped() -> None:
    answer = b"Welcome to box!\n\n\x1b[2J\nblob x -1\nblob ../../etc 3\nLAST login\nprobed yes"
    values, blobs = read_answer(answer)
    assert (values.pop("probed"), blobs) == ("yes", {})
    assert "now" not in values


def test_a_blob_that_was_cut_hides_the_end_of_the_answer() -> None:
    values, _ = read_answer(b"blob models 100\nown/model\nprobed yes\n")
    assert "probed" not in values


async def test_noise_of_a_login_shell_is_no_part_of_the_path(box: Box) -> None:
    box.install_quick()
    (box.home / ".profile").write_text("echo PATH=nonsense; echo hello >&2; PATH=/opt/own:$PATH; export PATH\n")
    path = (await box.probe()).facts.path
    assert path is not None
    assert path.startswith("/opt/own:")
    assert "nonsense" not in path


@pytest.mark.parametrize("line", HOSTILE)
async def test_a_hostile_answer_is_an_error_about_the_host(one_box: Box, line: str) -> None:
    """The shell itself is a program that answers what it likes."""
    (one_box.bin / "sh").unlink()
    one_box.put_program(one_box.bin / "sh", f"#!/bin/sh\n{HONEST}\n{line}\necho\necho 'probed yes'\n")
    with pytest.raises(HostNotReadyError, match=r"^box: "):
        await one_box.probe()


async def test_an_identity_or_a_dispatch_of_another_shape_is_none(one_box: Box) -> None:
    (one_box.bin / "sh").unlink()
    odd = "echo 'database a b'; echo 'running ../../x'"
    one_box.put_program(one_box.bin / "sh", f"#!/bin/sh\n{HONEST}\n{odd}\necho 'probed yes'\n")
    probed = await one_box.probe()
    assert (probed.database, probed.running, probed.is_busy) == (None, None, False)


async def test_an_absurdly_large_listing_is_refused(one_box: Box) -> None:
    text = '#!/bin/sh\n[ "$1" = models ] && yes own/model | head -c 70000000\necho own/model\n'
    one_box.put_program(one_box.bin / "opencode", text)
    with pytest.raises(HostNotReadyError, match="absurdly large"):
        await one_box.probe()


async def test_terminal_sequences_in_the_facts_are_removed(one_box: Box) -> None:
    one_box.put_program(one_box.bin / "opencode", "#!/bin/sh\nprintf '1.18\\033]52;c;eA==\\007.33 own/model\\n'\n")
    one_box.put_program(one_box.bin / "uname", "#!/bin/sh\nprintf 'Linux\\033[2J\\n'\n")
    facts = (await one_box.probe()).facts
    assert (facts.system, facts.opencode_version) == ("Linux", "1.18.33 own/model")

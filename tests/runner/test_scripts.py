"""Scripts as they travel: shorter than they are written, and the same programs."""

from __future__ import annotations

import subprocess
from typing import get_args

import pytest

from remote_dispatch.runner.scripts import ScriptName, script, script_as_written
from remote_dispatch.text import bare_script

AS_PARSED = 'f=$(cat) && eval "whole() {\n$f\n}" && declare -f whole'


def parsed(text: str) -> str:
    """Return a script as bash understands it: comments and indentation are gone, every quoted byte is there."""
    done = subprocess.run(["bash", "-c", AS_PARSED], input=text, text=True, capture_output=True, check=True, timeout=20)
    return done.stdout


@pytest.mark.parametrize("name", get_args(ScriptName))
def test_a_script_that_travels_is_the_one_that_was_written(name: ScriptName) -> None:
    assert parsed(script(name)) == parsed(script_as_written(name))
    assert len(script(name)) < 0.8 * len(script_as_written(name))


def test_what_stands_in_quotes_keeps_every_byte() -> None:
    quoted = "echo 'a\n  # b\n\n  it'\\''s' \"c\n\t# $(echo \"d\")\n\" # it's a comment\n"
    text = f"if true; then\n  # words\n  {quoted}fi\necho ${{x#'}}}}'}} $#\n"
    assert bare_script(text) == f"if true; then\n{quoted}fi\necho ${{x#'}}}}'}} $#"


@pytest.mark.parametrize("text", ["  cat <<END\n  # words\nEND\n", "  echo 'never closed\n  # words\n"])
def test_what_is_not_understood_stays_as_it_is(text: str) -> None:
    assert bare_script(text) == text

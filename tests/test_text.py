"""Foreign text made safe to show."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_dispatch.text import clean, mask_addresses


@pytest.mark.parametrize(
    ("foreign", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;a new title\x07text", "text"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b1mbold", "bold"),
        ("\x1bPdevice\x1b\\after", "after"),
        ("\x1b7saved\x1bc", "saved"),
        ("user\u202eexe.txt\u2066", "userexe.txt"),
        ("a\u200bb\ufeffc\U000e0041", "abc"),
        ("one\r\ntwo\rthree\u2028four", "one\ntwo\nthree\nfour"),
        ("bell\x07 back\x08 nul\x00 del\x7f", "bell back nul del"),
        ("a\tb", "a\tb"),
        ("half \ud83d of a pair", "half \N{REPLACEMENT CHARACTER} of a pair"),
        ("Grüße 👩‍💻 日本", "Grüße 👩‍💻 日本"),
    ],
)
def test_control_sequences_are_removed_and_plain_text_stays(foreign: str, shown: str) -> None:
    assert clean(foreign, 100) == shown


def test_an_unfinished_terminal_string_hides_no_following_line() -> None:
    assert clean("\x1b]0;never closed\nthe error", 100) == "\nthe error"


def test_text_that_is_too_long_is_cut_and_says_so() -> None:
    assert clean("abcdef", 3) == "ab…"
    assert clean("abc", 3) == "abc"


@given(st.text(alphabet=st.characters(), max_size=200), st.integers(1, 60))
def test_nothing_that_a_terminal_obeys_survives(foreign: str, limit: int) -> None:
    shown = clean(foreign, limit)
    assert len(shown) <= limit
    assert not [one for one in shown if unicodedata.category(one) in ("Cc", "Cs") and one not in "\n\t"]
    shown.encode()


@pytest.mark.parametrize(
    ("error", "masked"),
    [
        ("me@pi.lan: Permission denied (publickey).", "<address>: Permission denied (publickey)."),
        ("git@example.org:a/b.git", "<address>:a/b.git"),
        ("root@[fe80::1]:22 refused", "<address> refused"),
        ("http://user:pw@10.1.2.3:8080/v1?x=1 failed", "http://<address>/v1?x=1 failed"),
        ("connect ECONNREFUSED 127.0.0.1:4096", "connect ECONNREFUSED <address>"),
        ("route to 10.0.0.5.", "route to <address>."),
        ("[2001:db8::5]:2222 and fe80::1%eth0 and ::1", "<address> and <address> and <address>"),
        ("::ffff:10.0.0.1 said no", "<address> said no"),
        ("Cannot connect to API: lab.example:8080", "Cannot connect to API: <address>"),
        ("ssh: connect to host lab port 22: Connection refused", "ssh: connect to host <address>: Connection refused"),
        ("Could not resolve hostname gpu: Name", "Could not resolve hostname <address>: Name"),
        ("getaddrinfo ENOTFOUND lab", "getaddrinfo ENOTFOUND <address>"),
        ("acme/me@20250514.lan and a/b@default and me@default", "acme/<address> and a/b@default and <address>"),
    ],
)
def test_addresses_are_masked(error: str, masked: str) -> None:
    assert mask_addresses(error) == masked


@pytest.mark.parametrize(
    "harmless",
    [
        *("at 12:30:45", "version 1.18.33", "std::vector", "a :: b", "@ai-sdk/openai", "exit:1", "/a/b.py"),
        *("`google-vertex-anthropic/claude-sonnet-4@20250514`", "google-vertex/claude@default,"),
    ],
)
def test_what_is_no_address_stays(harmless: str) -> None:
    assert mask_addresses(harmless) == harmless

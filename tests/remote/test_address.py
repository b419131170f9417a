from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_dispatch.remote.address import Address, parse_address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lab", Address(None, "lab", None)),
        ("user@10.0.0.5", Address("user", "10.0.0.5", None)),
        ("me@pi.lan:2222", Address("me", "pi.lan", 2222)),
        ("pi.lan:1", Address(None, "pi.lan", 1)),
        ("[::1]:22", Address(None, "::1", 22)),
        ("u@[fe80::1%eth0]:65535", Address("u", "fe80::1%eth0", 65535)),
        ("[::1]", Address(None, "::1", None)),
        ("::1", Address(None, "::1", None)),
        ("u@2001:db8::1", Address("u", "2001:db8::1", None)),
        ("xn--bcher-kva.example", Address(None, "xn--bcher-kva.example", None)),
        ("first.last@corp.example@gate", Address("first.last@corp.example", "gate", None)),
        ("_gateway", Address(None, "_gateway", None)),
    ],
)
def test_an_address_is_read_into_its_parts(text: str, expected: Address) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "-", "--", "-oProxyCommand=x", "-Fevil.conf", "user@-oX", "-l@host", "$USER@h", "u\\@h", "u@@h", "@h",
        "u@", "u@h:22:22", "h:", "h:0", "h:-1", "h:65536", "h:22.5", "h:true", "h:٢٢", "h:22 ", " h", "a b", "a;id",
        "a$(id)", "a`id`", "a|id", "a&b", "a>b", "a\nb", "a\0b", "a/b", "../a", "ssh://u@h:22/x", "[::1]22", "[::1",
        "::1]", "[h]:22", "[]:22", "1:2:3", "::1%$(id)", "h\u202ee", "hé", "a'b", 'a"b', "{a,b}", "~", "h!", "%h",
        "u%r@h",         "h" * 401, "a\x1b[31m", "u@h,v@i", "h-", ".h",
    ],
)  # fmt: skip
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="address"):
        parse_address(text)


@given(st.text(max_size=60))
def test_what_is_accepted_is_a_harmless_word(text: str) -> None:
    try:
        address = parse_address(text)
    except ValueError:
        return
    for part in (address.host, address.user or "x"):
        assert not part.startswith("-")
        assert part.isascii()
        assert not set(part) & set(" \t\n'\"\\$`!;|&<>(){}[]*?~#^,/=")


def test_an_error_does_not_repeat_the_address() -> None:
    with pytest.raises(ValueError, match="port") as caught:
        parse_address("private-user@private.example:99999")
    assert "private" not in str(caught.value)
    assert "99999" not in str(caught.value)


def test_a_repr_shows_nothing() -> None:
    assert repr(parse_address("u@h:22")) == "Address(...)"

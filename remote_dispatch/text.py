"""Make foreign text safe to show: no control sequences, no hidden direction changes, no addresses. Pure."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

ADDRESS = "<address>"

_ESCAPE_SEQUENCE = re.compile(
    r"(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"  # OSC, DCS and other strings
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # CSI: colours, cursor
    r"|\x1b[ -/]*[0-~]?"  # two-character sequences
)
_UNSAFE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f"
    r"\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # direction and zero-width marks
    r"\U000e0000-\U000e007f]"  # tag characters: invisible text
)
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_LINE_END = re.compile(r"\r+\n?|[\u2028\u2029\x85\x0b\x0c]")

_MODEL_VERSION = re.compile(r"((?<=/)[\w.-]+@(?:20\d{6}|default)(?![\w.:@-]))")
"""How Vertex AI writes versions: `google-vertex-anthropic/claude-sonnet-4@20250514`."""
_URL = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]*)://[^\s/?#\"'<>`]+")
_USER_AT_HOST = re.compile(
    r"(?<![\w@])[\w.+%-]+@(?:\[[0-9A-Fa-f:.%\w]+\]|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f.]*(?:%\w+)?|[\w.-]*\w)(?::\d+)?"
)
_BRACKETED = re.compile(r"\[([0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)(?:%[\w.-]+)?\](?::\d{1,5})?")
_IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?:[:#]\d{1,5})?(?![\w])(?!\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,8}(?:\.\d{1,3}){0,3}(?:%[\w.-]+)?(?![\w:])")
_HOST_PORT = re.compile(r"(?<![\w./@:-])(?=[\w.-]*[A-Za-z])[A-Za-z0-9](?:[\w.-]*\w)?:\d{2,5}(?![\w:])")
_NAMED_BY_SSH = re.compile(  # `ssh: connect to host lab.lan port 22:`, `Could not resolve hostname lab:`
    r"\b(hostname|ENOTFOUND|EAI_AGAIN|(?:connect to|no address for|unknown)\s+host|(?:closed|reset) by)"
    r"(\s+(?:remote host\s+)?)(?!remote host)([\w.:%-]*[\w])(\s+port\s+\d+)?",
    re.IGNORECASE,
)


def clean(text: str, limit: int) -> str:
    r"""Return the text without control characters, terminal sequences and direction overrides, `limit` characters long.

    Line ends become `\n`, tabs stay; a lone surrogate becomes U+FFFD. Text that was cut ends with `…`.
    """
    if len(text) <= limit and text.isascii() and text.isprintable():
        return text
    head = text[: limit * 8 + 4096]  # bounded work on unbounded text
    plain = _ESCAPE_SEQUENCE.sub("", head)
    plain = _UNSAFE.sub("", _LINE_END.sub("\n", plain))
    plain = _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", plain)
    if len(plain) <= limit and len(head) == len(text):
        return plain
    return plain[: max(limit - 1, 0)] + "…"[:limit]


def mask_addresses(text: str) -> str:
    """Return the text with `<address>` for `user@host`, IP addresses, `host:port` and the authority of URLs.

    For text of errors, where a mask too many does less harm than an address too many: `main.py:12` is masked too.
    A model with its version, `provider/model@20250514`, is no address.
    """
    parts = _MODEL_VERSION.split(text)
    return "".join(part if place % 2 else _masked(part) for place, part in enumerate(parts))


def _masked(text: str) -> str:
    masked = _URL.sub(rf"\1://{ADDRESS}", text)
    masked = _USER_AT_HOST.sub(ADDRESS, masked)
    masked = _BRACKETED.sub(_masked_if_ip, masked)
    masked = _IPV6.sub(_masked_if_ip, masked)
    masked = _IPV4.sub(ADDRESS, masked)
    masked = _NAMED_BY_SSH.sub(rf"\1\2{ADDRESS}", masked)
    return _HOST_PORT.sub(ADDRESS, masked)


def _masked_if_ip(match: re.Match[str]) -> str:
    candidate = (match[1] if match.re is _BRACKETED else match[0]).partition("%")[0]
    try:
        ipaddress.IPv6Address(candidate)
    except ValueError:
        return match[0]
    return match[0] if candidate == "::" else ADDRESS


_UNQUOTED = re.compile(r"""\\.|['"]|(?:^|(?<=[\s;&|()]))\#""")
_IN_QUOTES = {"'": re.compile("'"), '"': re.compile(r'\\.|"')}


@lru_cache(maxsize=64)
def bare_script(text: str) -> str:
    """Return a POSIX sh script without comment lines, blank lines and indentation: it travels to a host on every call.

    Quotes that go over several lines keep what is in them. A script with a here-document, or with quotes that are not
    understood here, is returned as it is.
    """
    lines, quote = list[str](), ""
    for line in text.split("\n"):
        bare = line if quote else line.lstrip(" \t")
        if not quote and "<<" in bare:
            return text
        if quote or (bare and not bare.startswith("#")):
            lines.append(bare)
            quote = _quote_after(bare, quote)
    return text if quote else "\n".join(lines)


def _quote_after(line: str, quote: str) -> str:
    """Return the quote that is open at the end of a line, where `quote` was open at its beginning."""
    position = 0
    while found := (_IN_QUOTES[quote] if quote else _UNQUOTED).search(line, position):
        if found[0] == "#":
            break
        position = found.end()
        if len(found[0]) == 1:
            quote = "" if quote else found[0]
    return quote

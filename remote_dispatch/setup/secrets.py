"""Recognise secrets in OpenCode's configuration: what must not leave unasked. Pure; a doubt counts as a secret."""

from __future__ import annotations

import re

_NAMED = re.compile(
    r"(?:api|access|private|secret|auth|signing)[-_]?key|token|secret|passw|authori[sz]ation|credential|bearer|cookie",
    re.IGNORECASE,
)
_REFERENCE = re.compile(r"\{(?:env|file):[^{}]*\}")
_SCHEMES = re.compile(r"\b(?:bearer|basic|token)\b|\s", re.IGNORECASE)
_LOOKS = re.compile(
    r"\b(?:sk-|rk-|ghp_|gho_|ghs_|github_pat_|glpat-|xox[abprs]-|AKIA|AIza|hf_|gsk_)[A-Za-z0-9_-]{12,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
"""How well-known services begin their keys."""
_URL_PASSWORD = re.compile(r"://[^/\s:@\"']+:[^/\s@\"'{}]+@")


def secret_in(value: object, place: str = "") -> str | None:
    """Return the place of the first secret in parsed JSON, such as `provider.x.options.apiKey`; None without one.

    A value that only refers to a variable or a file (`{env:NAME}`) is none.
    """
    if isinstance(value, dict):
        return next((found for key, one in value.items() if (found := _in_member(str(key), one, place))), None)
    if isinstance(value, list):
        return next((found for one in value if (found := secret_in(one, place))), None)
    return (place or "text") if isinstance(value, str) and looks_secret(value) else None


def looks_secret(text: str) -> bool:
    """Whether a text holds something in the form of a key or of a password in a URL."""
    return bool(_LOOKS.search(text) or _URL_PASSWORD.search(text))


def _in_member(key: str, value: object, place: str) -> str | None:
    inner = f"{place}.{key}" if place else key
    is_header = place.rpartition(".")[2].lower() == "headers"
    if isinstance(value, str) and (is_header or _NAMED.search(key)) and _own_text(value):
        return inner
    return secret_in(value, inner)


def _own_text(value: str) -> str:
    """What is left of a value without references and words of HTTP."""
    return _SCHEMES.sub("", _REFERENCE.sub("", value))

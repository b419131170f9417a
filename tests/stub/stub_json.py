"""As much of `json` as the stand-in needs, from the C part of Python's own: importing `json` costs more than a start.

tests/runner/test_stub_json.py holds it to `json`.
"""

import _json


class Rules:
    """What `json.loads` tells the scanner when it is given no options."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float, parse_int = float, int
    parse_constant = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}.__getitem__


SPACE = " \t\n\r"


def loads(text):
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogatepass")
    try:
        value, end = _json.make_scanner(Rules)(text, len(text) - len(text.lstrip(SPACE)))
    except StopIteration as error:
        raise ValueError(f"Expecting value: char {error.value}") from None
    if text[end:].strip(SPACE):
        raise ValueError(f"Extra data: char {end}")
    return value


def dumps(value, indent=None, ensure_ascii=True, separators=(", ", ": ")):
    quote = _json.encode_basestring_ascii if ensure_ascii else _json.encode_basestring
    between, behind_key = separators
    encode = _json.make_encoder(None, refuse, quote, None, behind_key, between, False, False, True)
    if indent is None:
        return "".join(encode(value, 0))
    return indented(value, lambda one: "".join(encode(one, 0)), "\n", " " * indent)


def indented(value, plain, margin, step):
    inner = margin + step
    if isinstance(value, dict) and value:
        members = [f"{inner}{plain(key)}: {indented(one, plain, inner, step)}" for key, one in value.items()]
        return "{" + ",".join(members) + margin + "}"
    if isinstance(value, (list, tuple)) and value:
        return "[" + ",".join([inner + indented(one, plain, inner, step) for one in value]) + margin + "]"
    return plain(value)


def refuse(value):
    raise TypeError(f"{type(value).__name__} is no JSON")

"""The stand-in's own JSON is that of `json`: it is only quicker to import."""

from __future__ import annotations

import importlib.util
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rig.stub import OPENCODE_STUB

if TYPE_CHECKING:
    from types import ModuleType


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("stub_json", OPENCODE_STUB.with_name("stub_json.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


stub_json = _load()
texts = st.text(st.characters(), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda below: st.lists(below, max_size=4) | st.dictionaries(texts, below, max_size=4),
    max_leaves=12,
)


@given(values)
@settings(max_examples=60, deadline=None)
def test_values_are_written_and_read_as_json_does(value: Any) -> None:
    styles: tuple[dict[str, Any], ...] = ({}, {"separators": (",", ":")}, {"indent": 2, "ensure_ascii": False})
    for options in styles:
        text = json.dumps(value, **options)
        assert stub_json.dumps(value, **options) == text
        assert stub_json.loads(f" {text}\n") == value
        assert stub_json.loads(text.encode("utf-8", "surrogatepass")) == value


@pytest.mark.parametrize("text", ["", " ", "{", "[1,]", "1 2", '"\n"', "nul", '{"a" 1}'])
def test_what_is_no_json_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(Expecting|Extra|Invalid|Illegal)"):
        stub_json.loads(text)

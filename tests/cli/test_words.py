"""Small translations between people and values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from remote_dispatch.cli.words import age, duration_s
from remote_dispatch.errors import UsageError


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-60, "0 s"),
        (5, "5 s"),
        (65, "1 min"),
        (3590, "59 min"),
        (3700, "1 h"),
        (86_000, "23 h"),
        (90_000, "1 d"),
        (864_100, "10 d"),
    ],
)
def test_an_age_is_one_rough_word(seconds: int, words: str) -> None:
    assert age(datetime.now(UTC) - timedelta(seconds=seconds)) == words


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("90", 90),
        ("90s", 90),
        ("30m", 1800),
        ("2h", 7200),
        ("1d", 86_400),
        (" 1.5h ", 5400),
        ("0.5", 0.5),
    ],
)
def test_a_time_is_read_in_seconds(text: str | None, seconds: float | None) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0m", "-5", "5w", "1h30m", "inf", "nan", "1e9", "1_0", "٣", "9" * 30])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a time"):
        duration_s(text)

"""The turn in a reading: which messages belong to our prompt, and how they ended. Pure; nothing here knows of time."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from remote_dispatch.failure import Failure
from remote_dispatch.opencode.served import amount
from remote_dispatch.sessions.values import End
from remote_dispatch.transcript.shape import id_of, is_aside, mapping, parts_of, role_of, spoken_text
from remote_dispatch.transcript.verdict import (
    CUT,
    ends_at_limit,
    ends_with_a_rejection,
    failure_detail,
    failure_kind,
    model_used,
    problem_of_finish,
    refused_calls,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from remote_dispatch.opencode.served import Raw

SPEECHLESS = "the model ended without a word"
ENDLESS = 3
"""So many answers in a row without a finish reason are a provider that never gives one: OpenCode asks for ever."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What the messages show of one turn."""

    is_there: bool
    """Whether the prompt is stored."""
    messages: tuple[Raw, ...] = ()
    """The prompt and what came of it, oldest first."""
    is_passed: bool = False
    """Whether the session went on to somebody's later prompt after the turn was over."""
    is_cold: bool = True
    """Whether the session holds no answer at all: the first turn of a directory starts slowly."""

    @property
    def answers(self) -> list[Raw]:
        """The assistant's messages."""
        return [one for one in self.messages if role_of(one) == "assistant"]

    @property
    def answer(self) -> Raw | None:
        """The message that counts: the last one, unless somebody had the finished conversation summarised."""
        answers = self.answers
        spoken = _spoken(answers) if answers else None
        return spoken if spoken and _is_over(spoken) else (answers[-1] if answers else None)

    @property
    def has_last_word(self) -> bool:
        """Whether the last message is the model's."""
        return bool(self.messages) and role_of(self.messages[-1]) == "assistant"

    @property
    def is_endless(self) -> bool:
        """Whether the provider never gives a finish reason."""
        return _unfinished_in_a_row(self.answers) >= ENDLESS

    @property
    def fingerprint(self) -> str:
        """Equal for two looks between which nothing of the turn changed."""
        seen = (self.is_there, self.is_passed, [id_of(one) for one in self.messages], self.messages[-1:])
        return hashlib.sha256(json.dumps(seen, sort_keys=True).encode()).hexdigest()

    @property
    def changed_ms(self) -> int:
        """When its last message changed, in milliseconds since 1970 on the server's clock; 0 without any."""
        return max((_changed_ms(one) for one in self.messages[-1:]), default=0)


def picture_of(messages: Iterable[Raw], message_id: str | None, *, was_there: bool = False) -> Picture | None:
    """Return the turn of our user message; of the last prompt without one. None when there was never a prompt.

    `was_there` tells that an earlier look saw our message: one that is gone has scrolled out of the tail.
    """
    usable = [one for one in map(_usable, messages) if one is not None and not is_aside(one)]
    is_cold = not any(role_of(one) == "assistant" for one in usable)
    start = _start(usable, message_id)
    if start is None and was_there:
        start = 0
    if start is None:
        return None if message_id is None else Picture(is_there=False, is_cold=is_cold)
    turn, is_passed = _own(usable[start:])
    return Picture(is_there=True, messages=tuple(turn), is_passed=is_passed, is_cold=is_cold)


def end_of(picture: Picture) -> End | None:
    """Return how the turn ended, by what is stored; None while it is not seen to have ended.

    Only an idle session has ended: a step that called tools looks the same as a turn whose tools were rejected.
    """
    answer = picture.answer
    if answer is None or not _is_over(answer) or (_is_summary(answer) and not _error(answer)):
        return None
    failure, detail = _problem(answer) or (None, None)
    if failure is Failure.ABORTED and picture.is_endless:
        failure, detail = Failure.PROVIDER_UNAVAILABLE, "the provider's answers never came to an end"
    return described(picture, failure, detail)


def described(picture: Picture, failure: Failure | None, detail: str | None) -> End:
    """Return the end with everything that the last answer tells."""
    answer = picture.answer
    if answer is None:
        return End(failure, detail)
    agent, finish = answer["info"].get("agent"), answer["info"].get("finish")
    return End(
        failure=failure,
        detail=detail,
        answer=_told(answer),
        message_id=id_of(answer),
        finish=str(finish) if finish is not None else None,
        agent=agent if isinstance(agent, str) else None,
        model=model_used(answer),
        refused=refused_calls(picture.messages),
        warnings=(CUT,) if ends_at_limit(answer) else (),
    )


def _start(messages: Sequence[Raw], message_id: str | None) -> int | None:
    """Return where the turn begins. A message that is not in the tail is known by the answers that name it."""
    if message_id is None:
        prompts = [place for place, one in enumerate(messages) if _is_prompt(one)]
        return prompts[-1] if prompts else (0 if messages else None)
    named = (
        place
        for place, one in enumerate(messages)
        if id_of(one) == message_id or one["info"].get("parentID") == message_id
    )
    return next(named, None)


def _own(messages: list[Raw]) -> tuple[list[Raw], bool]:
    """Return what belongs to the first prompt, and whether the session went on to a later one.

    A prompt that was queued while the turn ran is answered together with ours: only one that came after the end of
    our turn parts the two.
    """
    for place in range(1, len(messages)):
        if _is_prompt(messages[place]) and _is_left(messages[:place], messages[place:]):
            return messages[:place], True
    return messages, False


def _is_left(turn: list[Raw], later: list[Raw]) -> bool:
    answers = [one for one in turn if role_of(one) == "assistant"]
    if not answers:
        return False
    last = _spoken(answers)
    if not _is_completed(last):
        return any(role_of(one) == "assistant" for one in later)
    return _is_over(last) and last["info"].get("finish") != "unknown"


def _spoken(answers: Sequence[Raw]) -> Raw:
    """Return the last answer that is no summary, or the last one where there are only summaries."""
    return next((one for one in reversed(answers) if not _is_summary(one) or _error(one)), answers[-1])


def _is_over(answer: Raw) -> bool:
    """Whether a message is a turn's last one, as far as it tells itself: the status must say so too."""
    if _error(answer):
        return True
    if not _is_completed(answer):
        return False
    return answer["info"].get("finish") != "tool-calls" or _is_structured(answer) or ends_with_a_rejection(answer)


def _problem(answer: Raw) -> tuple[Failure, str] | None:
    error = _error(answer)
    if error and not ends_at_limit(answer):
        return failure_kind(error), failure_detail(error)
    if problem := problem_of_finish(answer):
        return problem
    return None if _told(answer).strip() else (Failure.NO_TEXT, SPEECHLESS)


def _told(answer: Raw) -> str:
    """Return the answer's text, or the JSON that a prompt with `format` got (OpenCode 1.18 has it beside the parts)."""
    return json.dumps(answer["info"]["structured"]) if _is_structured(answer) else spoken_text(answer)


def _is_structured(answer: Raw) -> bool:
    return answer["info"].get("structured") is not None


def _unfinished_in_a_row(answers: Sequence[Raw]) -> int:
    """Count the completed answers without a finish reason at the end; the one that is being written does not count."""
    finishes = [one["info"].get("finish") for one in answers]
    while finishes and finishes[-1] is None:
        finishes.pop()
    count = 0
    while count < len(finishes) and finishes[-1 - count] == "unknown":
        count += 1
    return count


def _is_prompt(message: Raw) -> bool:
    """Whether somebody asked: not what OpenCode itself adds when it compacts the conversation."""
    return role_of(message) == "user" and any(
        part.get("type") != "compaction" and not part.get("synthetic") for part in parts_of(message)
    )


def _is_completed(answer: Raw) -> bool:
    return "completed" in answer["info"]["time"]


def _is_summary(answer: Raw) -> bool:
    return answer["info"].get("summary") is True


def _error(answer: Raw) -> Raw:
    return mapping(answer["info"].get("error"))


def _usable(message: Raw) -> Raw | None:
    """Return a message with everything that the readers of transcripts count on; None for what is none."""
    info, parts = mapping(message.get("info")), message.get("parts")
    if not isinstance(info.get("id"), str):
        return None
    kept = [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    return {**message, "info": {**info, "time": mapping(info.get("time"))}, "parts": kept}


def _changed_ms(message: Raw) -> int:
    times = [message["info"]["time"], *(mapping(part.get("time")) for part in parts_of(message))]
    times.extend(mapping(mapping(part.get("state")).get("time")) for part in parts_of(message))
    return max((int(amount(at)) for time in times for at in time.values()), default=0)

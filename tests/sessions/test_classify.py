"""Errors, words and requests to failures; failures to policies and exit codes."""

from __future__ import annotations

from typing import Any

import pytest

from remote_dispatch.failure import Failure, Policy
from remote_dispatch.opencode.served import PermissionRequest, QuestionRequest, Status
from remote_dispatch.sessions import classify

PERMISSION = PermissionRequest("per_1", "ses_1", "bash")
QUESTION = QuestionRequest("que_1", "ses_1", ())


def error(name: str, message: str = "no", **data: Any) -> dict[str, Any]:
    return {"name": name, "data": {"message": message, **data}}


@pytest.mark.parametrize(
    ("given", "failure"),
    [
        (error("APIError", statusCode=401), Failure.AUTH_FAILED),
        (error("ProviderAuthError", "no key"), Failure.AUTH_FAILED),
        (error("APIError", statusCode=402), Failure.RATE_LIMITED),
        (error("APIError", statusCode=404), Failure.PROVIDER_UNAVAILABLE),
        (error("APIError", "Cannot connect to API: connection timed out"), Failure.PROVIDER_UNAVAILABLE),
        (error("APIError", "SSE read timed out"), Failure.TIMEOUT),
        (error("UnknownError", "The operation timed out."), Failure.TIMEOUT),
        (error("UnknownError", "Agent not found: nobody. Available agents: build"), Failure.CONFIG_ERROR),
        (error("UnknownError", "ProviderModelNotFoundError: x"), Failure.CONFIG_ERROR),
        (error("StructuredOutputError", retries=0), Failure.NOT_JSON),
        (error("ContentFilterError"), Failure.CONTENT_FILTER),
        ({}, Failure.PROVIDER_UNAVAILABLE),
        ({"name": [], "data": [], "more": 1}, Failure.PROVIDER_UNAVAILABLE),
        (error("APIError", statusCode="401"), Failure.PROVIDER_UNAVAILABLE),
    ],
)
def test_an_error_is_told_by_its_name_its_status_and_its_words(given: dict[str, Any], failure: Failure) -> None:
    assert classify.of_error(given) is failure


@pytest.mark.parametrize(
    ("words", "failure"),
    [
        ("Too Many Requests", Failure.RATE_LIMITED),
        ("Rate Limited", Failure.RATE_LIMITED),
        ("You exceeded your current quota", Failure.RATE_LIMITED),
        ("Free usage exceeded, add credits", Failure.RATE_LIMITED),
        ("Bad Gateway", Failure.PROVIDER_UNAVAILABLE),
        ("Gateway Timeout", Failure.PROVIDER_UNAVAILABLE),
        ("Provider is overloaded", Failure.PROVIDER_UNAVAILABLE),
        ("Cannot connect to API: The socket connection was closed unexpectedly.", Failure.PROVIDER_UNAVAILABLE),
        ("Connection reset by server", Failure.PROVIDER_UNAVAILABLE),
        ("Provider response headers timed out after 300000ms", Failure.TIMEOUT),
        ("SSE read timed out", Failure.TIMEOUT),
        ("", Failure.PROVIDER_UNAVAILABLE),
    ],
)
def test_a_retry_is_told_by_its_words(words: str, failure: Failure) -> None:
    assert classify.of_retry(Status("retry", 2, words)) is failure


def test_a_free_tier_that_is_used_up_is_told_by_opencodes_own_word() -> None:
    assert classify.of_retry(Status("retry", 1, "Upgrade", None, "free_tier_limit")) is Failure.RATE_LIMITED


def test_the_words_of_a_retry_hold_no_address() -> None:
    status = Status("retry", 3, '{"message":"lost http://10.0.0.5:8080/v1\\u001b[31m","code":"x"}')
    assert classify.retry_words(status) == "lost http://<address>/v1 (attempt 3)"


def test_a_permission_is_asked_before_a_question() -> None:
    assert classify.of_requests((QUESTION, PERMISSION)) is Failure.PENDING_PERMISSION
    assert classify.of_requests((QUESTION,)) is Failure.PENDING_QUESTION
    assert classify.of_requests(()) is None


EXITS = {Failure.PENDING_PERMISSION: 7, Failure.PENDING_QUESTION: 7, Failure.TIMEOUT: 6, Failure.REJECTED: 3}
AGAIN = {
    Failure.RATE_LIMITED,
    Failure.PROVIDER_UNAVAILABLE,
    Failure.INTERRUPTED,
    Failure.TIMEOUT,
    Failure.NOT_JSON,
    Failure.NO_TEXT,
}


@pytest.mark.parametrize("failure", Failure)
def test_every_failure_has_an_exit_code_and_a_policy(failure: Failure) -> None:
    assert failure.exit_code == EXITS.get(failure, 1)
    expected = Policy.RETRY if failure in AGAIN else Policy.USER
    assert failure.policy is (Policy.FRESH if failure is Failure.CONTEXT_OVERFLOW else expected)

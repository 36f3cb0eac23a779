"""The decision table: what each error reply means for the row, the run and the money."""

from __future__ import annotations

import json

import pytest

from ondine_dagster.llm.classify import classify_error
from ondine_dagster.llm.errors import ErrorClass, ErrorCode, Evidence

T, C, X, F, R = (
    ErrorClass.TRANSIENT,
    ErrorClass.CAPACITY,
    ErrorClass.EXHAUSTED,
    ErrorClass.CONFIG,
    ErrorClass.ROW,
)


def body(code: object = None, kind: str | None = None, message: str = "no") -> bytes:
    return json.dumps({"error": {"message": message, "type": kind, "code": code}}).encode()


@pytest.mark.behaviour("P-10")
@pytest.mark.parametrize(
    ("status", "error_class", "code"),
    [
        (301, F, ErrorCode.REDIRECTED),
        (304, F, ErrorCode.REDIRECTED),
        (307, F, ErrorCode.REDIRECTED),
        (400, F, ErrorCode.BAD_REQUEST),
        (401, F, ErrorCode.UNAUTHORIZED),
        (402, X, ErrorCode.PAYMENT_REQUIRED),
        (403, F, ErrorCode.FORBIDDEN),
        (404, F, ErrorCode.NOT_FOUND),
        (405, F, ErrorCode.UNEXPECTED_STATUS),
        (408, T, ErrorCode.REQUEST_TIMEOUT),
        (409, T, ErrorCode.CONFLICT),
        (412, F, ErrorCode.BAD_REQUEST),
        (413, R, ErrorCode.PAYLOAD_TOO_LARGE),
        (418, F, ErrorCode.UNEXPECTED_STATUS),
        (422, F, ErrorCode.BAD_REQUEST),
        (424, T, ErrorCode.SERVER_ERROR),
        (429, C, ErrorCode.RATE_LIMITED),
        (451, F, ErrorCode.UNEXPECTED_STATUS),
        (498, C, ErrorCode.OVERLOADED),
        (499, T, ErrorCode.REQUEST_TIMEOUT),
        (500, T, ErrorCode.SERVER_ERROR),
        (501, T, ErrorCode.SERVER_ERROR),
        (502, T, ErrorCode.SERVER_ERROR),
        (503, C, ErrorCode.OVERLOADED),
        (504, T, ErrorCode.SERVER_ERROR),
        (524, T, ErrorCode.SERVER_ERROR),
        (529, C, ErrorCode.OVERLOADED),
        (599, T, ErrorCode.SERVER_ERROR),
    ],
)
def test_a_status_has_one_class(status: int, error_class: ErrorClass, code: ErrorCode) -> None:
    failure = classify_error(status, {}, body())
    assert (failure.error_class, failure.code) == (error_class, code)
    assert failure.retryable == (error_class in (T, C))


@pytest.mark.parametrize(
    ("status", "code", "kind", "error_class", "ours"),
    [
        (429, "rate_limit_exceeded", "rate_limit_error", C, ErrorCode.RATE_LIMITED),
        (429, "slow_down", "rate_limit_error", C, ErrorCode.RATE_LIMITED),
        (429, "insufficient_quota", None, X, ErrorCode.QUOTA_EXHAUSTED),
        (429, None, "insufficient_quota", X, ErrorCode.QUOTA_EXHAUSTED),
        (429, "credit_balance_exhausted", None, X, ErrorCode.QUOTA_EXHAUSTED),
        (429, "organization_spend_limit_exceeded", None, X, ErrorCode.QUOTA_EXHAUSTED),
        (429, "project_spend_limit_exceeded", None, X, ErrorCode.QUOTA_EXHAUSTED),
        (429, "organization_usage_limit_exceeded", None, X, ErrorCode.QUOTA_EXHAUSTED),
        (400, "context_length_exceeded", None, R, ErrorCode.CONTEXT_LENGTH_EXCEEDED),
        (400, "string_too_long", None, R, ErrorCode.CONTEXT_LENGTH_EXCEEDED),
        (400, None, "token_limit_exceeded", R, ErrorCode.CONTEXT_LENGTH_EXCEEDED),
        (400, "content_filter", None, R, ErrorCode.CONTENT_FILTERED),
        (403, "content_policy_violation", None, R, ErrorCode.CONTENT_FILTERED),
        # the right code under a status that means something else decides nothing
        (500, "insufficient_quota", None, T, ErrorCode.SERVER_ERROR),
        (401, "context_length_exceeded", None, F, ErrorCode.UNAUTHORIZED),
        # codes that are no text
        (400, 400, "BadRequestError", F, ErrorCode.BAD_REQUEST),
        (429, ["insufficient_quota"], None, C, ErrorCode.RATE_LIMITED),
    ],
)
def test_the_providers_own_code_refines_the_status(
    status: int, code: object, kind: str | None, error_class: ErrorClass, ours: ErrorCode
) -> None:
    failure = classify_error(status, {}, body(code, kind))
    assert (failure.error_class, failure.code) == (error_class, ours)


@pytest.mark.parametrize(
    ("retry_after", "error_class"), [({"retry-after": "3"}, C), ({}, X)], ids=["later", "never"]
)
def test_402_is_worth_waiting_for_only_where_the_provider_says_when(
    retry_after: dict[str, str], error_class: ErrorClass
) -> None:
    assert classify_error(402, retry_after, body()).error_class is error_class


def test_words_in_a_message_decide_nothing() -> None:
    message = "Failed to generate JSON: rate limit, insufficient_quota, context_length_exceeded"
    assert classify_error(400, {}, body(message=message)).code is ErrorCode.BAD_REQUEST


@pytest.mark.parametrize(
    ("status", "reply", "evidence"),
    [
        (500, body(), Evidence.REFUSED),
        (404, b'{"error":"model not found"}', Evidence.REFUSED),
        (400, b'{"error":{}}', Evidence.REFUSED),
        (502, b"<html>Bad Gateway</html>", Evidence.UNKNOWN),
        (500, b"", Evidence.UNKNOWN),
        (500, b'{"detail":"no"}', Evidence.UNKNOWN),
        (500, b'{"error":null}', Evidence.UNKNOWN),
        (500, b'{"error":""}', Evidence.UNKNOWN),
        (500, b'["error"]', Evidence.UNKNOWN),
        (500, b"[" * 100_000, Evidence.UNKNOWN),
        (307, body(), Evidence.UNKNOWN),
    ],
)
def test_only_an_error_of_the_providers_shape_is_free(
    status: int, reply: bytes, evidence: Evidence
) -> None:
    assert classify_error(status, {}, reply).evidence is evidence


def test_the_message_is_one_short_line_that_can_be_stored() -> None:
    long = classify_error(500, {}, body(message="a\n b\t" + "\u00e9" * 10_000))
    assert long.message.startswith("HTTP 500: a b é")
    assert len(long.message) < 600
    assert classify_error(500, {}, b"\xff\xfe").message == "HTTP 500: \ufffd\ufffd"
    assert classify_error(500, {}, b" ").message == "HTTP 500: (empty body)"
    surrogate = classify_error(500, {}, b'{"error":{"message":"\\ud83d"}}')
    surrogate.message.encode()


def test_the_wait_is_on_the_failure() -> None:
    assert classify_error(429, {"retry-after": "2"}, body()).retry_after == 2
    assert classify_error(429, {}, body()).retry_after is None

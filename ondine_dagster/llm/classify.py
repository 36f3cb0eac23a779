"""Which failure an error reply is: the decision table, pure.

Decides by status and by the provider's own `code`/`type`, never by words in the message: an
answer such as "Failed to generate JSON" contains "rate" and is no rate limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

from ondine_dagster.llm.errors import ErrorClass, ErrorCode, Evidence, Failure
from ondine_dagster.llm.retry_after import retry_after_seconds

_BY_STATUS: dict[int, tuple[ErrorClass, ErrorCode]] = {
    400: (ErrorClass.CONFIG, ErrorCode.BAD_REQUEST),
    401: (ErrorClass.CONFIG, ErrorCode.UNAUTHORIZED),
    402: (ErrorClass.EXHAUSTED, ErrorCode.PAYMENT_REQUIRED),
    403: (ErrorClass.CONFIG, ErrorCode.FORBIDDEN),
    404: (ErrorClass.CONFIG, ErrorCode.NOT_FOUND),
    408: (ErrorClass.TRANSIENT, ErrorCode.REQUEST_TIMEOUT),
    409: (ErrorClass.TRANSIENT, ErrorCode.CONFLICT),
    412: (ErrorClass.CONFIG, ErrorCode.BAD_REQUEST),
    413: (ErrorClass.ROW, ErrorCode.PAYLOAD_TOO_LARGE),
    422: (ErrorClass.CONFIG, ErrorCode.BAD_REQUEST),
    424: (ErrorClass.TRANSIENT, ErrorCode.SERVER_ERROR),
    429: (ErrorClass.CAPACITY, ErrorCode.RATE_LIMITED),
    498: (ErrorClass.CAPACITY, ErrorCode.OVERLOADED),
    499: (ErrorClass.TRANSIENT, ErrorCode.REQUEST_TIMEOUT),
    500: (ErrorClass.TRANSIENT, ErrorCode.SERVER_ERROR),
    502: (ErrorClass.TRANSIENT, ErrorCode.SERVER_ERROR),
    503: (ErrorClass.CAPACITY, ErrorCode.OVERLOADED),
    504: (ErrorClass.TRANSIENT, ErrorCode.SERVER_ERROR),
    524: (ErrorClass.TRANSIENT, ErrorCode.SERVER_ERROR),
    529: (ErrorClass.CAPACITY, ErrorCode.OVERLOADED),
}

# 429s that no waiting cures: https://developers.openai.com/api/docs/guides/error-codes
_QUOTA = frozenset(
    {
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
    }
)
_CONTEXT = frozenset(
    {"context_length_exceeded", "max_tokens_exceeded", "token_limit_exceeded", "string_too_long"}
)
_CONTENT = frozenset({"content_filter", "content_policy_violation"})
_MESSAGE_LENGTH = 500
_REMEDIES = {
    ErrorCode.UNAUTHORIZED: " (is the key in OPENAI_COMPATIBLE_API_KEY right?)",
    ErrorCode.FORBIDDEN: " (may the key in OPENAI_COMPATIBLE_API_KEY use llm.name?)",
    ErrorCode.NOT_FOUND: " (are llm.name and llm.base_url right, up to /v1?)",
    ErrorCode.REDIRECTED: " (redirects are not followed: give the final address in llm.base_url)",
    ErrorCode.PAYMENT_REQUIRED: " (the provider's account has no credit left)",
    ErrorCode.QUOTA_EXHAUSTED: " (the provider's quota is used up)",
}


def classify_error(status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """Return the failure that an error reply (status other than 2xx) stands for.

    `headers` has lower-case names. Evidence: an error status of 400 or more whose JSON body has an
    `error` is a refusal and was not billed; anything else may have been.
    """
    error = _error_of(body)
    error_class, code = _decide(status, headers, error)
    refused = status >= 400 and error is not None
    return Failure(
        error_class=error_class,
        code=code,
        message=f"HTTP {status}: {_message(error, body)}{_REMEDIES.get(code, '')}",
        evidence=Evidence.REFUSED if refused else Evidence.UNKNOWN,
        retry_after=retry_after_seconds(headers),
    )


def _decide(
    status: int, headers: Mapping[str, str], error: dict[str, Any] | None
) -> tuple[ErrorClass, ErrorCode]:
    named = {str(error.get(key)) for key in ("code", "type")} if error else set()
    if status == 429 and named & _QUOTA:
        return ErrorClass.EXHAUSTED, ErrorCode.QUOTA_EXHAUSTED
    if status == 402 and "retry-after" in headers:
        return ErrorClass.CAPACITY, ErrorCode.PAYMENT_REQUIRED
    if status == 400 and named & _CONTEXT:
        return ErrorClass.ROW, ErrorCode.CONTEXT_LENGTH_EXCEEDED
    if status in (400, 403) and named & _CONTENT:
        return ErrorClass.ROW, ErrorCode.CONTENT_FILTERED
    if 300 <= status < 400:
        return ErrorClass.CONFIG, ErrorCode.REDIRECTED
    if status >= 500:
        return _BY_STATUS.get(status, (ErrorClass.TRANSIENT, ErrorCode.SERVER_ERROR))
    return _BY_STATUS.get(status, (ErrorClass.CONFIG, ErrorCode.UNEXPECTED_STATUS))


def _error_of(body: bytes) -> dict[str, Any] | None:
    try:
        parsed = from_json(body)
    except ValueError:
        return None
    error = parsed.get("error") if isinstance(parsed, dict) else None
    if isinstance(error, str) and error:
        return {"message": error}
    return error if isinstance(error, dict) else None


def _message(error: dict[str, Any] | None, body: bytes) -> str:
    text = str(error.get("message", error)) if error else body.decode("utf-8", "replace")
    text = " ".join(text.encode("utf-8", "replace").decode("utf-8").split())
    return text[:_MESSAGE_LENGTH] or "(empty body)"

"""Which failure an error reply is: the decision table, pure.

Decides by status and by the provider's own codes and types, never by words in a message: an answer
such as "Failed to generate JSON" contains "rate" and is no rate limit. The one exception is
`_ANTHROPIC_SENTENCES`. Every status has a class; none falls through to "ask again".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

from ondine_dagster.llm.errors import ErrorClass, ErrorCode, Evidence, Failure
from ondine_dagster.llm.rate_headers import used_up_for
from ondine_dagster.llm.retry_after import number, retry_after_seconds
from ondine_dagster.privacy.scrubbing import beginning

Decision = tuple[ErrorClass, ErrorCode]

_BY_STATUS: dict[int, Decision] = {
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
    # not implemented, wrong HTTP version, a captive portal: no provider, and none later either
    501: (ErrorClass.CONFIG, ErrorCode.UNEXPECTED_STATUS),
    502: (ErrorClass.TRANSIENT, ErrorCode.SERVER_ERROR),
    503: (ErrorClass.CAPACITY, ErrorCode.OVERLOADED),
    504: (ErrorClass.TRANSIENT, ErrorCode.SERVER_ERROR),
    505: (ErrorClass.CONFIG, ErrorCode.UNEXPECTED_STATUS),
    511: (ErrorClass.CONFIG, ErrorCode.UNEXPECTED_STATUS),
    524: (ErrorClass.TRANSIENT, ErrorCode.SERVER_ERROR),
    529: (ErrorClass.CAPACITY, ErrorCode.OVERLOADED),
}
_REDIRECTED = (ErrorClass.CONFIG, ErrorCode.REDIRECTED)
# an unknown 5xx counts as 500: https://www.rfc-editor.org/rfc/rfc9110#section-15
_UNKNOWN_SERVER_ERROR = (ErrorClass.TRANSIENT, ErrorCode.SERVER_ERROR)
_UNKNOWN_STATUS = (ErrorClass.CONFIG, ErrorCode.UNEXPECTED_STATUS)

# What a code or type of the provider makes of a status; elsewhere the same name decides nothing.
_BY_NAME: tuple[tuple[frozenset[int], frozenset[str], Decision], ...] = (
    # 429s that no waiting cures: https://developers.openai.com/api/docs/guides/error-codes; the
    # last two are Anthropic's
    (
        frozenset({429}),
        frozenset(
            {
                "insufficient_quota",
                "credit_balance_exhausted",
                "organization_spend_limit_exceeded",
                "project_spend_limit_exceeded",
                "organization_usage_limit_exceeded",
                "enforced_spend_limit_reached",
                "contract_spend_limit_reached",
            }
        ),
        (ErrorClass.EXHAUSTED, ErrorCode.QUOTA_EXHAUSTED),
    ),
    (
        frozenset({400}),
        frozenset(
            {
                "context_length_exceeded",
                "max_tokens_exceeded",
                "token_limit_exceeded",
                "string_too_long",
            }
        ),
        (ErrorClass.ROW, ErrorCode.CONTEXT_LENGTH_EXCEEDED),
    ),
    (
        frozenset({400, 403}),
        frozenset({"content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation"}),
        (ErrorClass.ROW, ErrorCode.CONTENT_FILTERED),
    ),
    (frozenset({400}), frozenset({"refusal"}), (ErrorClass.ROW, ErrorCode.REFUSED)),
    # Groq checks the answer itself, and throws away what is no JSON
    (
        frozenset({400}),
        frozenset({"json_validate_failed"}),
        (ErrorClass.ROW_RETRYABLE, ErrorCode.ANSWER_NOT_JSON),
    ),
    # Anthropic has disabled the organisation
    (
        frozenset({400}),
        frozenset({"organization_on_hold"}),
        (ErrorClass.CONFIG, ErrorCode.FORBIDDEN),
    ),
    # no row's fault: Azure's wrong deployment or API version, a model that is not there
    (
        frozenset({400}),
        frozenset({"OperationNotSupported", "model_not_found"}),
        (ErrorClass.CONFIG, ErrorCode.NOT_FOUND),
    ),
)

# What Anthropic says with status 400 and no code: the sentence is all there is to tell it by
# (https://platform.claude.com/docs/en/api/errors)
_ANTHROPIC_SENTENCES: Mapping[str, Decision] = {
    "You have reached your specified API usage limits": (
        ErrorClass.EXHAUSTED,
        ErrorCode.QUOTA_EXHAUSTED,
    ),
    "Your credit balance is too low": (ErrorClass.EXHAUSTED, ErrorCode.PAYMENT_REQUIRED),
    "prompt is too long": (ErrorClass.ROW, ErrorCode.CONTEXT_LENGTH_EXCEEDED),
    "input length and `max_tokens` exceed context limit": (
        ErrorClass.ROW,
        ErrorCode.CONTEXT_LENGTH_EXCEEDED,
    ),
    "Output blocked by content filtering policy": (ErrorClass.ROW, ErrorCode.CONTENT_FILTERED),
}
# money that requests in flight have set aside; it comes back with their answers
_IN_FLIGHT_BUDGET = "openrouter_in_flight_budget"
# more is set aside for one request than there is credit left
_TOO_DEAR = frozenset({"weight_exceeds_budget", "openrouter_credits"})

# OpenRouter's stable names for an error that comes without a status of its own, inside a 200
# (https://openrouter.ai/docs/api-reference/errors)
_STATUS_OF_TYPE = {
    "context_length_exceeded": 400,
    "max_tokens_exceeded": 400,
    "token_limit_exceeded": 400,
    "string_too_long": 400,
    "invalid_request": 400,
    "invalid_prompt": 400,
    "content_policy_violation": 400,
    "refusal": 400,
    "authentication": 401,
    "payment_required": 402,
    "permission_denied": 403,
    "not_found": 404,
    "precondition_failed": 412,
    "payload_too_large": 413,
    "unprocessable": 422,
    "rate_limit_exceeded": 429,
    "server": 500,
    "unmapped": 500,
    "provider_unavailable": 502,
    "provider_overloaded": 503,
    "timeout": 504,
}

_NAMED_BY = ("code", "type", "error_type", "error_code")
_BEHIND = ("provider_name", "provider_code")  # who was asked by OpenRouter, and what it said
_REASONS = ("code", "docs_url")  # of a model that is not available
_MESSAGE_LENGTH = 500
_REMEDIES = {
    ErrorCode.BAD_REQUEST: " (does this model take the declared llm settings and fields?)",
    ErrorCode.UNAUTHORIZED: " (is the key in {key} right?)",
    ErrorCode.FORBIDDEN: " (may the key in {key} use llm.name?)",
    ErrorCode.NOT_FOUND: " (are llm.name and llm.base_url right, up to /v1?)",
    ErrorCode.REDIRECTED: " (redirects are not followed: give the final address in llm.base_url)",
    ErrorCode.UNEXPECTED_STATUS: " (does llm.base_url lead to the API of llm.provider?)",
    ErrorCode.PAYMENT_REQUIRED: " (the provider's account has no credit left: add some there)",
    ErrorCode.QUOTA_EXHAUSTED: " (the provider's quota is used up: raise it there)",
    ErrorCode.RATE_LIMITED: (
        " (declare what the provider allows: limits.requests_per_minute, requests_per_day)"
    ),
    ErrorCode.CONTEXT_LENGTH_EXCEEDED: " (shorten the prompt, or lower llm.max_tokens)",
    ErrorCode.PAYLOAD_TOO_LARGE: " (shorten the prompt)",
}


def classify_error(
    status: int, headers: Mapping[str, str], body: bytes, key: str | None = None
) -> Failure:
    """Return the failure that an error reply (status other than 2xx) stands for.

    `headers` has lower-case names, `key` is the variable of the API key. Evidence: an error status
    of 400 or more whose JSON body has an
    `error` is a refusal and was not billed; anything else may have been.
    """
    error = _error_of(body)
    known = error or {}
    wait = _wait(status, headers, known)
    error_class, code = _decide(status, known, wait)
    refused = status >= 400 and error is not None
    text = _one_line(body.decode("utf-8", "replace")) if error is None else _message(error)
    told = f"HTTP {status}: {beginning(text, _MESSAGE_LENGTH) or '(empty body)'}"
    return Failure(
        error_class=error_class,
        code=code,
        message=told + _remedy(code, known, key),
        evidence=Evidence.REFUSED if refused else Evidence.UNKNOWN,
        retry_after=wait,
    )


def classify_inside(body: bytes, key: str | None = None) -> Failure | None:
    """Return the failure that an `error` inside a 200 stands for, where it would meet every row.

    None where it says nothing of the next answer. What it cost nobody says: it came with a 200.
    """
    failure = failure_inside({}, body, key)
    if failure is None or failure.error_class not in (ErrorClass.CONFIG, ErrorClass.EXHAUSTED):
        return None
    return failure


def failure_inside(
    headers: Mapping[str, str], body: bytes, key: str | None = None
) -> Failure | None:
    """Return the failure that an `error` inside a 200 stands for: beside the choices, or in one.

    None where its status is not told.
    """
    error = _error_of(body) or {}
    status = _status_inside(error)
    if status is None:
        return None
    wait = _wait(status, headers, error)
    error_class, code = _decide(status, error, wait)
    message = f"HTTP 200 with error {status}: {beginning(_message(error), _MESSAGE_LENGTH)}"
    message += _remedy(code, error, key)
    return Failure(error_class, code, message, Evidence.RECEIVED, wait)


def _decide(status: int, error: Mapping[str, Any], wait: float | None) -> Decision:
    """Return the class and code; the provider's own word on repeating is the last one."""
    decision = _by_meaning(status, error, wait) or _by_status(status)
    repeatable = decision[0] in (ErrorClass.TRANSIENT, ErrorClass.CAPACITY)
    declared = _part(error, "availability").get("retryable")
    if declared is True and not repeatable:
        return ErrorClass.CAPACITY, ErrorCode.OVERLOADED
    if declared is False and (repeatable or decision[1] is ErrorCode.BAD_REQUEST):
        return ErrorClass.CONFIG, ErrorCode.NOT_FOUND
    return decision


def _by_status(status: int) -> Decision:
    if 300 <= status < 400:
        return _REDIRECTED
    return _BY_STATUS.get(status, _UNKNOWN_SERVER_ERROR if status >= 500 else _UNKNOWN_STATUS)


def _by_meaning(status: int, error: Mapping[str, Any], wait: float | None) -> Decision | None:
    """Return what the body makes of a status that has several meanings."""
    metadata = _part(error, "metadata")
    source = metadata.get("limit_source")
    if status == 402 and (wait is not None or source == _IN_FLIGHT_BUDGET):
        return ErrorClass.CAPACITY, ErrorCode.RATE_LIMITED
    if status == 403 and (metadata.get("reasons") or metadata.get("patterns")):
        return ErrorClass.ROW, ErrorCode.CONTENT_FILTERED
    if status == 403 and source:
        return ErrorClass.EXHAUSTED, ErrorCode.KEY_BUDGET
    if status == 400 and error.get("type") == "invalid_request_error":
        said = str(error.get("message"))
        for sentence, decision in _ANTHROPIC_SENTENCES.items():
            if said.startswith(sentence):
                return decision
    names = _names(error)
    for statuses, known, decision in _BY_NAME:
        if status in statuses and names & known:
            return decision
    return None


def _names(error: Mapping[str, Any]) -> set[str]:
    """Return every code and type by which the vendors name an error.

    `innererror` is Azure's, `details` Anthropic's, `metadata` OpenRouter's.
    """
    parts = (error, *(_part(error, name) for name in ("metadata", "innererror", "details")))
    values = (part.get(key) for part in parts for key in _NAMED_BY)
    return {value for value in values if isinstance(value, str)}


def _status_inside(error: Mapping[str, Any]) -> int | None:
    for key in ("code", "http_status"):
        status = number(str(error.get(key)))
        if status is not None and 400 <= status <= 599:
            return int(status)
    named = (_STATUS_OF_TYPE[name] for name in _names(error) if name in _STATUS_OF_TYPE)
    return next(named, None)


def _wait(status: int, headers: Mapping[str, str], error: Mapping[str, Any]) -> float | None:
    """Return how long to wait: as told, else until the window renews that a 429 calls used up."""
    told = retry_after_seconds(headers)
    if told is None:
        told = number(str(_part(error, "availability").get("retry_after")))
    if told is not None:
        return max(0.0, told)
    if status != 429:
        return None
    # OpenRouter puts the headers of its free models' limits into the body
    inside = _part(_part(error, "metadata"), "headers")
    lowered = {str(name).lower(): str(value) for name, value in inside.items()}
    return used_up_for({**headers, **lowered})


def _error_of(body: bytes) -> dict[str, Any] | None:
    try:
        parsed = from_json(body)
    except ValueError:
        return None
    if not isinstance(parsed, dict):
        return None
    error = parsed.get("error")
    if error is None:
        error = _error_of_choice(parsed)
    if error is None and parsed.get("object") == "error":  # older vLLM: the whole body is it
        return parsed
    if isinstance(error, str) and error:
        return {"message": error}
    return error if isinstance(error, dict) else None


def _error_of_choice(reply: Mapping[str, Any]) -> object:
    """Return the error that broke an answer off, where there is one (OpenRouter)."""
    choices = reply.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first.get("error") if isinstance(first, dict) else None


def _part(whole: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = whole.get(key)
    return part if isinstance(part, dict) else {}


def _message(error: Mapping[str, Any]) -> str:
    """Return the provider's message, else its names: the rest may repeat the row's text."""
    text = _one_line(str(error.get("message") or ", ".join(sorted(_names(error)))))
    metadata = _part(error, "metadata")
    flagged = _one_line(str(metadata.get("flagged_input") or ""))
    said = (text.replace(flagged, "***") if flagged else text) or "(no message)"
    # OpenRouter's own message is often "Provider returned error" and no more
    behind = [str(metadata[name]) for name in _BEHIND if metadata.get(name)]
    return f"{said} [{_short(': '.join(behind))}]" if behind else said


def _one_line(text: str) -> str:
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").split())


def _remedy(code: ErrorCode, error: Mapping[str, Any], variable: str | None) -> str:
    if variable is None and code in (ErrorCode.UNAUTHORIZED, ErrorCode.FORBIDDEN):
        return ""  # nobody declared a key
    key = variable or "the environment"
    metadata, availability = _part(error, "metadata"), _part(error, "availability")
    source = metadata.get("limit_source")
    if code is ErrorCode.PAYMENT_REQUIRED and {*_names(error), str(source)} & _TOO_DEAR:
        return " (one request sets aside more than the credit left: lower llm.max_tokens)"
    if code is ErrorCode.KEY_BUDGET:
        renewal = metadata.get("resets_at")
        until = f", until {_short(renewal)}" if renewal else ""
        return f" (budget {_short(source)} is used up{until}: raise it, or add a key to {key})"
    if code is ErrorCode.CONTENT_FILTERED and isinstance(metadata.get("reasons"), list):
        return f" (flagged for {_short(', '.join(map(str, metadata['reasons'])))})"
    if availability and code in (ErrorCode.NOT_FOUND, ErrorCode.FORBIDDEN):
        why = ", ".join(str(availability[key]) for key in _REASONS if availability.get(key))
        return f" (the provider cannot serve llm.name: {_short(why)})"
    return _REMEDIES.get(code, "").replace("{key}", key)


def _short(text: object) -> str:
    return beginning(_one_line(str(text)), 120)

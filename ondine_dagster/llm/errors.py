"""The closed list of what can go wrong with a row, and the class that decides what happens next.

Owns the error classes and codes; which signal gets which code is decided where the signal is read
(`llm/classify.py`, `llm/openai_compatible.py`, `llm/structured.py`, `llm/prompt.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ErrorClass(StrEnum):
    """What a failure means for the row and for the run."""

    TRANSIENT = "transient"  # back off, ask again
    CAPACITY = "capacity"  # back off as told, ask again
    EXHAUSTED = "exhausted"  # no money or quota left at the provider: stop the run
    CONFIG = "config"  # the declaration or the key is wrong: stop the run
    ROW = "row"  # this row cannot succeed as it is: error row
    ROW_RETRYABLE = "row_retryable"  # a new answer might be better: error row unless re-ask is on
    UNKNOWN = "unknown"  # held: a person decides, as nobody knows the outcome or can read it


class ErrorCode(StrEnum):
    """Every reason that can stand on a row; a reason outside this list cannot be stored."""

    # before a request
    RENDER_FAILED = "render_failed"
    PROMPT_BLANK = "prompt_blank"
    CONDITION_FAILED = "condition_failed"  # `when` is neither true nor false
    REMOTE_REFUSED = "remote_refused"  # a URL that rows may not lead to
    REMOTE_TOO_LARGE = "remote_too_large"
    REMOTE_FAILED = "remote_failed"
    ATTACHMENT_MISSING = "attachment_missing"
    ATTACHMENT_INVALID = "attachment_invalid"
    ATTACHMENT_TOO_LARGE = "attachment_too_large"
    ATTACHMENT_CHANGED = "attachment_changed"  # since its row was rendered
    NO_PARTITION = "no_partition"  # no date, no listed value: nobody runs it
    # transport
    CONNECT_FAILED = "connect_failed"
    CONNECTION_LOST = "connection_lost"
    TIMEOUT = "timeout"
    BODY_CUT_OFF = "body_cut_off"
    # error status
    REDIRECTED = "redirected"
    BAD_REQUEST = "bad_request"
    UNAUTHORIZED = "unauthorized"
    PAYMENT_REQUIRED = "payment_required"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    REQUEST_TIMEOUT = "request_timeout"
    CONFLICT = "conflict"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"
    CONTENT_FILTERED = "content_filtered"
    RATE_LIMITED = "rate_limited"
    QUOTA_EXHAUSTED = "quota_exhausted"
    KEY_BUDGET = "key_budget"  # the money that this key may spend is spent
    SERVER_ERROR = "server_error"
    OVERLOADED = "overloaded"
    UNEXPECTED_STATUS = "unexpected_status"
    # a complete 200 that is no usable answer
    REPLY_NOT_JSON = "reply_not_json"
    REPLY_NOT_FINITE = "reply_not_finite"
    REPLY_NOT_OBJECT = "reply_not_object"
    REPLY_HAS_ERROR = "reply_has_error"
    NO_CHOICES = "no_choices"
    NO_MESSAGE = "no_message"
    CONTENT_NULL = "content_null"
    CONTENT_NOT_TEXT = "content_not_text"
    CONTENT_BLANK = "content_blank"
    TRUNCATED = "truncated"
    REFUSED = "refused"
    TOOL_CALLS = "tool_calls"
    FINISH_ERROR = "finish_error"
    FINISH_UNKNOWN = "finish_unknown"
    # an answer that does not fit the declared fields
    ANSWER_NOT_JSON = "answer_not_json"
    ANSWER_NOT_FINITE = "answer_not_finite"
    ANSWER_NOT_OBJECT = "answer_not_object"
    FIELD_MISSING = "field_missing"
    FIELD_WRONG_TYPE = "field_wrong_type"
    FIELD_NOT_IN_ENUM = "field_not_in_enum"
    FIELD_OUT_OF_RANGE = "field_out_of_range"
    FIELD_NOT_ACCEPTED = "field_not_accepted"
    ANSWER_NOT_VALID = "answer_not_valid"  # by a model or a function of the user's own
    ANSWER_NOT_MATCHED = "answer_not_matched"  # by the pattern, or none of the choices
    PATTERN_TOO_SLOW = "pattern_too_slow"  # one of the declaration's, on the text of this row
    FUNCTION_FAILED = "function_failed"  # the user's own code is wrong: a new answer helps nobody
    # not asked
    STOPPED = "stopped"
    BUDGET_USED_UP = "budget_used_up"
    RATE_LIMITED_DAILY = "rate_limited_daily"  # a wait of hours, not of seconds
    BREAKER_OPEN = "breaker_open"  # the provider is out for longer than declared
    BOUND_VIOLATED = "bound_violated"  # the provider billed more than can have been reserved
    LEDGER_UNAVAILABLE = "ledger_unavailable"
    PILOT_FAILED = "pilot_failed"  # the first rows were judged, and the others not sent
    UNKNOWN_HELD = "unknown_held"
    ANSWER_PURGED = "answer_purged"  # paid, and its text was removed
    ANSWER_UNREADABLE = "answer_unreadable"  # paid, and its text belongs to another key


# Why a run stops that no single reply decides, with the class that it is reported under.
STOPS = {
    ErrorCode.BUDGET_USED_UP: ErrorClass.EXHAUSTED,
    ErrorCode.RATE_LIMITED_DAILY: ErrorClass.CAPACITY,
    ErrorCode.BREAKER_OPEN: ErrorClass.TRANSIENT,
    ErrorCode.BOUND_VIOLATED: ErrorClass.EXHAUSTED,
    ErrorCode.LEDGER_UNAVAILABLE: ErrorClass.TRANSIENT,
    ErrorCode.PILOT_FAILED: ErrorClass.CONFIG,
}


class Evidence(StrEnum):
    """What is known about the money of a request that brought no answer."""

    NOT_SENT = "not_sent"  # no byte was written: free
    REFUSED = "refused"  # an error reply of the provider's own shape: free
    RECEIVED = "received"  # a complete reply that is no answer: counted as paid, at the worst case
    UNKNOWN = "unknown"  # may have been billed


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that brought no answer.

    `retry_after` is the wait in seconds that the provider asked for, None where it asked for none.
    `remote_id` is what it calls the request, where it said so before the answer was lost.
    """

    error_class: ErrorClass
    code: ErrorCode
    message: str
    evidence: Evidence
    retry_after: float | None = None
    remote_id: str | None = None

    @property
    def retryable(self) -> bool:
        """Return whether the same request may be sent again by this run."""
        repeated = self.error_class in (ErrorClass.TRANSIENT, ErrorClass.CAPACITY)
        return repeated and self.code not in STOPS


# What a person reads on a row whose answer came and is of no use.
EXPLANATIONS = {
    ErrorCode.REPLY_NOT_JSON: "the reply is no JSON",
    ErrorCode.REPLY_NOT_FINITE: "the reply holds NaN or Infinity, which is no JSON",
    ErrorCode.REPLY_NOT_OBJECT: "the reply is JSON but no object",
    ErrorCode.REPLY_HAS_ERROR: "the reply has status 200 and an error inside",
    ErrorCode.NO_CHOICES: "the reply has no choices",
    ErrorCode.NO_MESSAGE: "the reply's choice has no message",
    ErrorCode.CONTENT_NULL: "the content is null",
    ErrorCode.CONTENT_NOT_TEXT: "the content is no text",
    ErrorCode.CONTENT_BLANK: "the content is blank",
    ErrorCode.TRUNCATED: "the answer was cut at the ceiling; raise llm.max_tokens (or "
    "llm.raised_max_tokens, where that is set)",
    ErrorCode.REFUSED: "the model refused",
    ErrorCode.CONTENT_FILTERED: "the provider's content filter stopped the answer",
    ErrorCode.TOOL_CALLS: "the model asked for a tool; no tools are offered",
    ErrorCode.FINISH_ERROR: "the provider failed in the middle of the answer",
    ErrorCode.FINISH_UNKNOWN: "the answer ended for a reason that is not known",
    ErrorCode.CONTEXT_LENGTH_EXCEEDED: "the prompt is longer than the model's context",
    ErrorCode.PAYLOAD_TOO_LARGE: "the request is larger than the provider takes",
}

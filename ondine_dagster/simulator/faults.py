"""Which fault a request gets: the catalogue, the marker in a prompt, and the plan by seed. Pure.

Owns the names of the faults, whether a provider charges for them and how they are delivered. What
an error looks like is in `refusals`, other faulty replies in `replies`, their delivery in `app`.

A marker such as `[[fault=429 times=2 retry_after=1]]` in any message gives the fault to requests
with exactly these messages: to the first `times` of them (all where it is absent), once `after` of
them got none. Further options: `retry_after` and `retry_after_ms` (sent literally as header values;
quote values with spaces), `seconds` (how late an answer is), `code` (the error code in the body;
`403 code=key_limit` and its like are OpenRouter's spending limits) and `status` (where the
catalogue says so).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Delivery = Literal[
    "reply", "late", "reset_early", "reset", "half_close", "stall", "stall_in_body", "truncate"
]


@dataclass(frozen=True, slots=True)
class FaultKind:
    """One entry of the catalogue: what a client sees, whether the provider charges for it."""

    says: str
    charged: bool
    delivery: Delivery = "reply"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault as asked for; `name` is a key of CATALOGUE or an HTTP status from 400 to 599."""

    name: str
    times: int | None = None
    after: int = 0
    retry_after: str | None = None
    retry_after_ms: str | None = None
    code: str | None = None
    status: int | None = None
    seconds: float | None = None

    @property
    def kind(self) -> FaultKind:
        """The catalogue's entry; every plain HTTP status has the same one."""
        return CATALOGUE.get(self.name, STATUS)

    @property
    def refuses(self) -> bool:
        """Whether it is an error reply that costs nothing, whatever the prompt."""
        return self.kind.delivery == "reply" and not self.kind.charged

    @property
    def late_seconds(self) -> float:
        """How much later than others its reply comes."""
        if self.kind.delivery != "late":
            return 0
        return _LATE_SECONDS if self.seconds is None else self.seconds

    def applies(self, nth: int) -> bool:
        """Return whether the `nth` request (from 1) of those it is meant for gets it."""
        return nth > self.after and (self.times is None or nth <= self.after + self.times)


_LATE_SECONDS = 10.0

STATUS = FaultKind("that HTTP status with the provider's JSON error", charged=False)

CATALOGUE: Mapping[str, FaultKind] = {
    # Refusals: an error and no charge.
    "context_length": FaultKind("400: the prompt is longer than the context", charged=False),
    "content_policy": FaultKind("400: the prompt meets the content policy", charged=False),
    "insufficient_quota": FaultKind(
        "no quota or credit is left, until more is bought", charged=False
    ),
    "html": FaultKind("500 (or `status`) with an HTML body", charged=False),
    "openrouter": FaultKind("OpenRouter's error, `status` or 500, error_type `code`", False),
    "availability": FaultKind("OpenRouter's error.availability with `code`", charged=False),
    "moderation": FaultKind("OpenRouter's 403 with metadata.reasons", charged=False),
    "anthropic": FaultKind("Anthropic's error, `status` or 529 overloaded_error", charged=False),
    "spend_limit": FaultKind("Anthropic's 400 at a spend limit that the user set", charged=False),
    "enforced_spend_limit": FaultKind("Anthropic's 429 until the next month", charged=False),
    "azure_content_filter": FaultKind("Azure's 400 with an innererror", charged=False),
    "error_in_200": FaultKind("200 with a top-level error, its code `status` or 502", False),
    "late": FaultKind("a good answer after `seconds` or 10 more", True, "late"),
    # The connection. A provider that has read the request works, and charges, without a listener.
    "reset_before": FaultKind("TCP reset before the request is read", False, "reset_early"),
    "reset_after": FaultKind("TCP reset after the request is read", True, "reset"),
    "half_close": FaultKind("FIN instead of an answer, still reading", True, "half_close"),
    "stall": FaultKind("the request is read and never answered", True, "stall"),
    "stall_in_body": FaultKind("half of the body, then silence", True, "stall_in_body"),
    "truncated": FaultKind("half of the declared body, then the end", True, "truncate"),
    # Bodies that are no completion.
    "malformed_json": FaultKind("200 whose body is no JSON", charged=True),
    "empty_body": FaultKind("200 without a body", charged=True),
    "html_200": FaultKind("200 with an HTML page", charged=True),
    "not_an_object": FaultKind("200 whose body is a JSON list", charged=True),
    "missing_choices": FaultKind("a completion without choices", charged=True),
    "empty_choices": FaultKind("a completion with an empty list of choices", charged=True),
    "missing_message": FaultKind("a choice without a message", charged=True),
    # Contents.
    "null_content": FaultKind("content is null", charged=True),
    "blank_content": FaultKind("content is white space", charged=True),
    "non_string_content": FaultKind("content is an object", charged=True),
    "wrong_schema": FaultKind("content is JSON of another shape", charged=True),
    "broken_content": FaultKind("content is JSON cut in half, finish_reason stop", charged=True),
    "another_answer": FaultKind(
        "a good answer that differs: truth values, numbers and texts", charged=True
    ),
    "nan": FaultKind("content has NaN where a value belongs", charged=True),
    "duplicate_keys": FaultKind("content names its first key twice", charged=True),
    "lone_surrogate": FaultKind("content has a lone surrogate", charged=True),
    "escaped_surrogate": FaultKind("a JSON content spells a lone surrogate out", charged=True),
    "refusal": FaultKind("message.refusal, content null", charged=True),
    # Answers for many rows at once; `length` and `broken_content` cut those off too. An answer for
    # one row stays as it is.
    "pack_missing": FaultKind("of the rows of a pack, every third one is left out", charged=True),
    "pack_repeated": FaultKind("every third row of a pack is answered twice", charged=True),
    "pack_reordered": FaultKind("the rows of a pack come in another order", charged=True),
    "pack_renumbered": FaultKind("the rows of a pack are called 1, 2, 3, ...", charged=True),
    "pack_strange": FaultKind("a row of a pack has a code that nobody gave", charged=True),
    "pack_malformed": FaultKind("the answer of one row of a pack is broken", charged=True),
    "pack_prose": FaultKind("there is prose round the answer to a pack", charged=True),
    # Finish reasons.
    "length": FaultKind("finish_reason length, half of the content", charged=True),
    "content_filter": FaultKind("finish_reason content_filter, content null", charged=True),
    "filter_failed": FaultKind("Azure's content filter did not run", charged=True),
    "tool_calls": FaultKind("finish_reason tool_calls, content null", charged=True),
    "finish_error": FaultKind("finish_reason error, half of the content", charged=True),
    "finish_unknown": FaultKind("a finish_reason that nobody has heard of", charged=True),
    "finish_missing": FaultKind("no finish_reason", charged=True),
    "pause_turn": FaultKind("Anthropic's stop_reason of a turn to go on with", charged=True),
    "context_window": FaultKind("Anthropic's stop_reason at a full context window", charged=True),
    # Usage and model.
    "missing_usage": FaultKind("no usage", charged=True),
    "negative_usage": FaultKind("negative token counts", charged=True),
    "float_usage": FaultKind("token counts with a fraction", charged=True),
    "string_usage": FaultKind("token counts as text", charged=True),
    "nan_usage": FaultKind("token counts NaN", charged=True),
    "missing_cost": FaultKind("no cost in the usage", charged=True),
    "zero_cost": FaultKind("the usage reports a cost of 0", charged=True),
    "negative_cost": FaultKind("the usage reports a cost below 0", charged=True),
    "string_cost": FaultKind("the usage reports its cost as text", charged=True),
    # OpenRouter's own.
    "broken_off": FaultKind("half an answer and its error, `status` or 502, not billed", False),
    "no_token": FaultKind("no token and no finish_reason, not billed", charged=False),
    "own_key": FaultKind("a fee in the cost, the rest as upstream_inference_cost", charged=True),
    "other_model": FaultKind("another model than asked for answers", charged=True),
}

_VALUE = r"""(?:"[^"]*"|'[^']*'|[^\s\]"']+)"""
_MARKER = re.compile(rf"\[\[fault=(?P<fault>[\w-]+(?:\s+\w+={_VALUE})*)\s*\]\]")
_OPTION = re.compile(rf"(\w+)=({_VALUE})")

# Seen while a body is still arriving. Only without `times`: a prompt that was not read whole
# cannot be counted.
EARLY_MARKER = b"[[fault=reset_before]]"


def parse_fault(text: str) -> Fault:
    """Parse `NAME OPTION=VALUE ...`, such as `429 times=2 retry_after=1`.

    Raises ValueError for an unknown name or option, with the known ones.
    """
    name, _, rest = text.strip().partition(" ")
    _check_name(name)
    options = {key: value.strip("\"'") for key, value in _OPTION.findall(rest)}
    known = {"times", "after", "retry_after", "retry_after_ms", "code", "status", "seconds"}
    if unknown := options.keys() - known:
        raise ValueError(f"unknown option {sorted(unknown)} of a fault; known: {sorted(known)}")
    return Fault(
        name=name,
        times=_integer(options, "times"),
        after=_integer(options, "after") or 0,
        retry_after=options.get("retry_after"),
        retry_after_ms=options.get("retry_after_ms"),
        code=options.get("code"),
        status=_integer(options, "status"),
        seconds=float(options["seconds"]) if "seconds" in options else None,
    )


def marked_fault(text: str) -> Fault | None:
    """Return the fault that a marker in `text` asks for. Raises ValueError for a wrong marker."""
    if "[[fault=" not in text:
        return None
    found = _MARKER.search(text)
    if found is None:
        raise ValueError("a `[[fault=` marker that cannot be read")
    return parse_fault(found["fault"])


@dataclass(frozen=True)
class FaultPlan:
    """Faults by seed: `rates` maps a fault (`429`, `429 retry_after=0`, `stall`) to its share.

    Which requests fail depends on the seed, the prompt and which attempt at that prompt it is, and
    not on the order of arrival. Raises ValueError for unknown faults and impossible rates.
    """

    seed: int = 0
    rates: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if any(rate < 0 for rate in self.rates.values()) or sum(self.rates.values()) > 1:
            raise ValueError(f"fault rates must be >= 0 and add up to at most 1: {self.rates}")
        parsed = tuple((parse_fault(name), rate) for name, rate in self.rates.items())
        object.__setattr__(self, "_parsed", parsed)

    _parsed: tuple[tuple[Fault, float], ...] = field(init=False, repr=False, default=())

    @property
    def faults(self) -> Sequence[Fault]:
        """The faults that it may give."""
        return [fault for fault, _ in self._parsed]

    def planned(self, prompt: str, attempt: int) -> Fault | None:
        """Return the fault of the `attempt`-th request for `prompt`, None for a good answer."""
        if not self._parsed:
            return None
        drawn = draw(self.seed, "fault", prompt, attempt)
        for fault, rate in self._parsed:
            drawn -= rate
            if drawn < 0 and fault.applies(attempt):
                return fault
        return None

    def choose(self, text: str, prompt: str, attempt: int) -> Fault | None:
        """Return the fault of a request: by the marker in its text, else by the plan.

        Raises ValueError for a marker that cannot be read.
        """
        marked = marked_fault(text)
        if marked is None:
            return self.planned(prompt, attempt)
        return marked if marked.applies(attempt) else None


@dataclass(frozen=True, slots=True)
class Bursts:
    """Hard times that come back: `faults` in the place of the usual ones.

    They begin every `every_seconds` since the provider was started, and last `seconds`. Raises
    ValueError where they would never end.
    """

    faults: FaultPlan
    every_seconds: float = 30
    seconds: float = 5

    def __post_init__(self) -> None:
        if not 0 < self.seconds < self.every_seconds:
            raise ValueError(f"a burst of {self.seconds:g} s every {self.every_seconds:g} s")

    def last(self, since_start: float) -> bool:
        """Return whether it is one, so many seconds after the start."""
        return since_start % self.every_seconds >= self.every_seconds - self.seconds


def outage_fault(text: str) -> Fault:
    """Return what meets every request of an outage: `reset`, `stall`, or any fault, as `503`."""
    return parse_fault("reset_before" if text == "reset" else text)


def refusals_by_key(keys: Mapping[str, str]) -> Mapping[bytes, Fault]:
    """Return the fault of each key, written as a bearer token.

    Raises ValueError for a fault that depends on the prompt: a key can only be refused.
    """
    faults = {f"Bearer {key}".encode(): parse_fault(text) for key, text in keys.items()}
    for fault in faults.values():
        if not fault.refuses:
            raise ValueError(f"the fault `{fault.name}` of a key is no refusal")
    return faults


def draw(seed: int, purpose: str, prompt: str, attempt: int) -> float:
    """Return a number in [0, 1) that depends on the arguments alone."""
    digest = hashlib.sha256(f"{seed}|{purpose}|{prompt}|{attempt}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _check_name(name: str) -> None:
    if name in CATALOGUE or (name.isdigit() and 400 <= int(name) <= 599):
        return
    raise ValueError(
        f"unknown fault `{name}`; known: an HTTP status from 400 to 599, {', '.join(CATALOGUE)}"
    )


def _integer(options: Mapping[str, str], key: str) -> int | None:
    return int(options[key]) if key in options else None

"""What the simulated model answers and what it costs, and the bodies that are no completion. Pure.

Owns the `Completion` before any dialect has written it down. Which fault applies is decided in
`faults`, the errors are in `refusals`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ondine_dagster.llm.prices import Prices
from ondine_dagster.simulator.answers import answer
from ondine_dagster.simulator.chat import ChatRequest
from ondine_dagster.simulator.faults import Fault
from ondine_dagster.simulator.tokens import TokenRules
from ondine_dagster.simulator.wire import Reply, html_reply, json_reply


@dataclass(frozen=True, slots=True)
class Completion:
    """A good answer before any fault: its text, its tokens, and its cost in picodollars.

    `cached_tokens` and `cache_write_tokens` are a part of `prompt_tokens`. `was_cut`: the ceiling
    ended it. `from_cache`: the same answer was given before, and is given again for nothing.
    """

    text: str
    was_cut: bool
    prompt_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    cost: int
    reports_cost: bool
    from_cache: bool = False


def complete(
    request: ChatRequest,
    rules: TokenRules,
    prices: Prices,
    *,
    prompt_tokens: int,
    cached_tokens: int,
    cache_write_tokens: int,
    reports_cost: bool,
) -> Completion:
    """Return the simulated model's answer to `request`."""
    whole = answer(request.messages, request.schema, request.pack)
    text, completion_tokens, was_cut = rules.fit(whole, request.ceiling)
    return Completion(
        text=text,
        was_cut=was_cut,
        prompt_tokens=prompt_tokens,
        cached_tokens=cached_tokens,
        cache_write_tokens=cache_write_tokens,
        completion_tokens=completion_tokens,
        reasoning_tokens=min(rules.reasoning, completion_tokens),
        cost=prices.cost(prompt_tokens, completion_tokens, cached_tokens, cache_write_tokens),
        reports_cost=reports_cost,
    )


def _error_in_200(fault: Fault) -> Reply:
    metadata = {} if fault.code is None else {"error_type": fault.code}
    error = {"code": fault.status or 502, "message": "Provider returned error"}
    return json_reply(200, {"error": error | {"metadata": metadata}})


# The faults with status 200 whose body is no completion of any provider.
NO_COMPLETION: Mapping[str, Callable[[Fault], Reply]] = {
    "html_200": lambda fault: html_reply(200),
    "error_in_200": _error_in_200,
    "malformed_json": lambda fault: Reply(200, b'{"id": "chatcmpl-1", "choices": [{"message": '),
    "empty_body": lambda fault: Reply(200, b""),
    "not_an_object": lambda fault: json_reply(200, ["not", "an", "object"]),
}

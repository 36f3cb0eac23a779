"""How many tokens a request will probably use: what it weighs in tokens per minute.

The bound (one token per byte) is for money. A rate that was kept with it would leave most of the
allowance unused, so the weight is learnt from what the answers of this run used.
"""

from __future__ import annotations

from ondine_dagster.llm.provider import Usage

# until the first answers: what English text and short answers come to
BYTES_PER_TOKEN = 4
_FIRST_COMPLETION = 256
_TRUSTED_AFTER = 5


class TokenWeight:
    """Learns tokens per request byte and tokens per answer; a request may bring several."""

    def __init__(self, ceiling: int) -> None:
        self._first_completion = min(ceiling, _FIRST_COMPLETION)
        self._answers = 0
        self._bytes = 0
        self._prompt = 0
        self._completion = 0

    def of(self, request_bytes: int, questions: int = 1) -> int:
        """Return the tokens that a request of this size will probably use."""
        if self._answers < _TRUSTED_AFTER:
            return request_bytes // BYTES_PER_TOKEN + questions * self._first_completion
        prompt = request_bytes * self._prompt // self._bytes
        return prompt + questions * self._completion // self._answers

    @property
    def answer_tokens(self) -> float | None:
        """Return how many tokens the answer to one question has; None where too few came."""
        return self._completion / self._answers if self._answers >= _TRUSTED_AFTER else None

    def learn(self, request_bytes: int, usage: Usage, questions: int = 1) -> int | None:
        """Take in what an answer used; return its tokens, None where nobody says."""
        if usage.prompt_tokens is None or usage.completion_tokens is None:
            return None
        if not usage.prompt_tokens:  # an answer from the provider's memory teaches nothing
            return usage.completion_tokens
        self._answers += questions
        self._bytes += request_bytes
        self._prompt += usage.prompt_tokens
        self._completion += usage.completion_tokens
        return usage.prompt_tokens + usage.completion_tokens

"""Which answer is asked for once more, and the question that asks for it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ondine_dagster.engine.rows import REASKED, Outcome, Question, RowOutcome
from ondine_dagster.llm.reask import conversation

# says why an answer is asked for once more, None where it is not
WhyAgain = Callable[[str], str | None]


def better_one(question: Question, outcome: RowOutcome, why: WhyAgain) -> Question | None:
    """Return the question for a better answer, None where there is none to be asked.

    Only an answer that this run has just paid for is asked for again, never a stored one.
    """
    if outcome.outcome is not Outcome.ANSWERED or outcome.cost_source == "reused":
        return None
    text = outcome.text or ""
    if (problem := why(text)) is None:
        return None
    messages = conversation(question.messages, text, problem)
    return replace(question, messages=messages, instead_of=outcome.attempt, alone=True)


def better_or_first(first: RowOutcome, again: RowOutcome | None) -> RowOutcome:
    """Return what came when it was asked for again; where nothing did, what came first."""
    if again is None or again.text is None:
        return first
    return replace(again, flags=(*again.flags, REASKED))

"""The conversation in which a model is told what was wrong with its answer. Pure."""

from __future__ import annotations

from ondine_dagster.llm.structured import compact_json


def conversation(messages_json: str, answer: str, problem: str) -> str:
    """Return canonical JSON of the messages, the answer that was rejected, and why it was."""
    told = (
        f"This answer cannot be used: {problem}. Give the whole answer again, put right, in the "
        "form that was asked for and with nothing around it."
    )
    turns = ({"content": answer, "role": "assistant"}, {"content": told, "role": "user"})
    return f"{messages_json[:-1]},{','.join(map(compact_json, turns))}]"

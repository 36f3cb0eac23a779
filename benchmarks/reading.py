"""What each way to read an answer takes: parsed and validated, on one core."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, Field

from ondine_dagster.llm.answers import AnswerReader
from ondine_dagster.llm.pydantic_model import fields_of
from ondine_dagster.spec import Output

_FIELDS: dict[str, Any] = {
    "sentiment": {"type": "string", "enum": ["positive", "negative", "neutral"]},
    "score": {"type": "integer", "minimum": 0, "maximum": 10},
    "summary": {"type": "string"},
    "topics": {"type": "array", "items": {"type": "string"}},
    "who": {"type": "object", "properties": {"name": {"type": "string"}}},
}
_ANSWER = json.dumps(
    {
        "sentiment": "positive",
        "score": 7,
        "summary": "It came late, but the „blue“ one is loved. " * 4,
        "topics": ["delivery", "colour"],
        "who": {"name": "Zoë"},
    },
    ensure_ascii=False,
)
_WORDS = "The customer waited for long, and then " * 5 + "it was good, 4 stars"


class _Who(BaseModel):
    name: str


class _Review(BaseModel):
    sentiment: str = Field(pattern="positive|negative|neutral")
    score: int = Field(ge=0, le=10)
    summary: str
    topics: list[str]
    who: _Who


def main(rows: int = 100_000) -> None:
    """Read as many answers in each way."""
    print(f"\n## Reading answers: CPU for {rows:,} rows on one core\n")
    print("| output | seconds | µs per row |")
    print("|---|---|---|")
    for name, reader, text in _cases():
        started = time.process_time()
        for _ in range(rows):
            assert isinstance(reader.read(text), dict)
        seconds = time.process_time() - started
        print(f"| {name} | {seconds:.2f} | {1e6 * seconds / rows:.1f} |", flush=True)


def _cases() -> Iterator[tuple[str, AnswerReader, str]]:
    def reader(code: Any = None, **output: Any) -> AnswerReader:
        return AnswerReader(Output.model_validate(output), code)

    yield "fields, nested", reader(fields=_FIELDS), _ANSWER
    yield "fields, in a fence", reader(fields=_FIELDS), f"```json\n{_ANSWER}\n```"
    prose = reader(fields=_FIELDS, repair=["prose"])
    yield "fields, in prose", prose, f"Sure, here it is: {_ANSWER} Anything else?"
    declared = Output(model="reviews:Review").with_fields(fields_of(_Review, "reviews:Review"))
    yield "a Pydantic model", AnswerReader(declared, _Review), _ANSWER
    yield "JSON", reader(format="json"), _ANSWER
    pattern = "(?P<label>good|bad), (?P<stars>[0-9]) stars"
    yield "a pattern", reader(pattern=pattern, types={"stars": "integer"}), _WORDS
    choice = {"values": {"happy": ["good"], "unhappy": ["bad"]}, "anywhere": True}
    yield "a choice, anywhere", reader(choice=choice), _WORDS
    yield "a function", reader(str.upper, function="reviews:parse"), _WORDS


if __name__ == "__main__":
    main()

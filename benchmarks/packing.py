"""What packs cost the client: packing, splitting and reading answers, without any network."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence

from ondine_dagster.llm.answers import AnswerReader
from ondine_dagster.llm.packing import Packing, new_codes, packable
from ondine_dagster.llm.prompt import messages_json
from ondine_dagster.llm.registry import PackKind, build_packing
from ondine_dagster.llm.rejection import Rejection
from ondine_dagster.llm.static_text import StaticText
from ondine_dagster.llm.structured import compact_json, wire_schema
from ondine_dagster.simulator.packs import read_pack
from ondine_dagster.spec import Output

_REVIEW = "the parcel came late but every cup was whole, and my daughter loves the “blue” one — "
_KINDS: tuple[PackKind, ...] = ("json", "csv")


_OUTPUT = {
    "fields": {
        "sentiment": {"type": "string", "enum": ["positive", "negative", "neutral"]},
        "score": {"type": "integer", "minimum": 0, "maximum": 10},
        "summary": {"type": "string"},
    }
}
_ANSWER = {
    "sentiment": "positive",
    "score": 7,
    "summary": "It came late, but the „blue“ one is loved",
}


def main(rows: int = 100_000, rows_per_request: int = 25) -> None:
    """Also reads as many answers of single requests as there are rows."""
    output = Output.model_validate(_OUTPUT)
    reader = AnswerReader(output)
    print(f"\n## Packs of {rows_per_request}: CPU without the network, {rows:,} rows on one core\n")
    print("| format | packing | splitting | parsing and validating | all, ms per row |")
    print("|---|---|---|---|---|")
    asked = [
        messages_json("You label reviews.", f"Review: {_REVIEW}{row}\n") for row in range(rows)
    ]
    for kind in _KINDS:
        packing = build_packing(kind, wire_schema(output.fields), StaticText("Review: ", "\n"))
        seconds = _measure(packing, reader, asked, rows_per_request)
        each = " | ".join(f"{1000 * one / rows:.4f}" for one in (*seconds, sum(seconds)))
        print(f"| {kind} | {each} |", flush=True)
    texts = [compact_json(_ANSWER)] * rows
    alone = _cpu(lambda: _read(reader, texts))
    print(
        f"\n{rows:,} answers of single requests are parsed and validated in {alone:.2f} s of CPU."
    )


def _measure(
    packing: Packing, reader: AnswerReader, asked: Sequence[str], size: int
) -> tuple[float, float, float]:
    """Return the CPU seconds of packing, of splitting, and of reading what was split."""
    packs: list[tuple[list[str], str]] = []
    answers: list[str] = []
    packed = _cpu(lambda: packs.extend(_packs(packing, asked, size)))
    came = [(codes, _answered(packing, messages)) for codes, messages in packs]

    def split() -> None:
        for codes, text in came:
            found = packing.split(text, codes, cut=False)
            answers.extend(found.answers[code] for code in codes)

    return packed, _cpu(split), _cpu(lambda: _read(reader, answers))


def _packs(packing: Packing, asked: Sequence[str], size: int) -> Iterator[tuple[list[str], str]]:
    for start in range(0, len(asked), size):
        rows = [row for one in asked[start : start + size] if (row := packable(one))]
        codes = new_codes(len(rows))
        items = [(code, row.text) for code, row in zip(codes, rows, strict=True)]
        yield codes, packing.compose(rows[0].prefix, items)


def _answered(packing: Packing, messages: str) -> str:
    """Return what the simulated model writes, the same for each row."""
    pack = read_pack(json.loads(messages)[-1]["content"], packing.schema)
    assert pack is not None
    return pack.written([_ANSWER] * len(pack.items))


def _read(reader: AnswerReader, texts: Sequence[str]) -> None:
    for text in texts:
        assert not isinstance(reader.read(text), Rejection)


def _cpu(work: Callable[[], None]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started

"""Requests, tokens and money for real questions, at several rows per request, beside Ondine.

The questions are those of banking77 (PolyAI, CC BY 4.0), which are not part of the repository: a
CSV file with the columns `text` and `category`, at --path or in BANKING77_CSV.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.responses_step import ROOT, SHARED, free_port, ondine_python, wait_for
from benchmarks.reviews import NAME
from benchmarks.setup import Bench
from ondine_dagster.assets.shared.partition_counts import TRIO
from ondine_dagster.ledger.ledger import close_ledger
from ondine_dagster.llm.packing import new_codes, packable, user_message
from ondine_dagster.llm.prompt import PromptRenderer
from ondine_dagster.llm.registry import build_packing
from ondine_dagster.llm.static_text import StaticText
from ondine_dagster.llm.structured import wire_schema
from ondine_dagster.spec import OutputField, Prompt
from ondine_dagster.storage.lake import Lake

_HERE = ROOT.parent / "shared" / "data" / "banking77_test.csv"
_SYSTEM = "Which intent has the customer of a bank who asks this?"
# what the mock server charges, per million tokens
_PRICES = {"input_per_million_usd": 1, "output_per_million_usd": 2}


@dataclass(frozen=True, slots=True)
class _Used:
    """What a client took for all rows: as the server counted requests and USD, and answers."""

    requests: int
    usd: float
    answered: int
    tokens: int


def main(path: str = os.environ.get("BANKING77_CSV", str(_HERE)), concurrency: int = 32) -> None:
    """Ask a mock server that charges 4 bytes of a request as a token, schema and all."""
    source = Path(path)
    print("\n## banking77: the questions of a bank's customers, 77 intents\n")
    if not source.is_file():
        print("Skipped: it takes the questions (--path).")
        return
    with source.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    intents = sorted({row["category"] for row in rows})
    _print_formats(rows)
    if shutil.which("node") is None or not SHARED.is_dir():
        print("\nThe rest is skipped: it takes node, and the bench folder.")
        return
    found: dict[str, _Used] = {}
    for size in (1, 25, "auto"):
        found[f"ondine_dagster, {size}"] = _ours(source, len(rows), intents, size, concurrency)
    python = ondine_python()
    for size in (1, 25) if python else ():
        found[f"Ondine 2.1.1, {size}"] = _ondine(python, source, intents, size, concurrency)
    print(f"{len(rows):,} rows. Money: $1 and $2 per million tokens, as the server counts them.\n")
    print(
        "| client, rows per request | requests | prompt tokens | completion tokens | USD | rows |"
    )
    print("|---|---|---|---|---|---|")
    for name, used in found.items():
        completion = round(1e6 * used.usd) - used.tokens  # of these prices
        print(
            f"| {name} | {used.requests:,} | {used.tokens - completion:,} | {completion:,} "
            f"| {used.usd:.4f} | {used.answered:,} |"
        )
    print(
        "\nOndine sends no schema with a pack, and the mock server answers at greater length then: "
        "compare the prompt tokens."
    )


def _print_formats(rows: Sequence[Mapping[str, str]], size: int = 25) -> None:
    """Print what the formats of packs take for a prompt of two columns, without any network."""
    template = "Question: {{ text }}\nIntent that was given: {{ category }}\nIs it the right one?"
    renderer = PromptRenderer(Prompt.model_validate({"template": template}))
    static = renderer.static_text
    schema = wire_schema({"right": OutputField.model_validate({"type": "boolean"})})
    texts = [packable(str(renderer.render(row))) for row in rows]
    packs = [texts[start : start + size] for start in range(0, len(texts), size)]
    print(f"Is the intent of a question the right one? Two columns, packs of {size}.\n")
    print("| request | bytes of messages per row | tokens per row (4 bytes each) |")
    print("|---|---|---|")
    formats = {
        "JSON": build_packing("json", schema, static),
        "CSV, `id,text`": build_packing("csv", schema, StaticText(static.head, static.tail)),
        "CSV, `id,text,category`": build_packing("csv", schema, static),
    }
    alone = sum(len(user_message("[", one.text).encode()) for one in texts if one)
    _print_format("one row", alone, len(rows))
    for name, packing in formats.items():
        used = 0
        for pack in packs:
            items = zip(new_codes(len(pack)), (one.text for one in pack if one), strict=True)
            used += len(packing.compose("[", list(items)).encode())
        _print_format(name, used, len(rows))
    print()


def _print_format(name: str, used: int, rows: int) -> None:
    print(f"| {name} | {used / rows:.1f} | {used / rows / 4:.1f} |")


def _ours(
    source: Path, rows: int, intents: Sequence[str], size: int | str, concurrency: int
) -> _Used:
    with tempfile.TemporaryDirectory() as name, _server() as port:
        folder = Path(name)
        bench = Bench.of(folder, rows, _declaration(source, intents, size, port, concurrency))
        bench.materialize("snapshot")
        bench.materialize("raw_rows", "prompts")
        bench.materialize(*TRIO)
        close_ledger(folder / "ledger.sqlite")
        lake, tokens, answered = Lake(folder / "lake"), 0, 0
        for partition in bench.partitions():
            columns = ["prompt_tokens", "completion_tokens", "outcome"]
            for one in lake.read(NAME, "responses", partition, columns).to_pylist():
                tokens += (one["prompt_tokens"] or 0) + (one["completion_tokens"] or 0)
                answered += one["outcome"] == "answered"
        stats = _stats(port)
        return _Used(stats["requests"], stats["usd"], answered, tokens)


def _declaration(
    source: Path, intents: Sequence[str], size: int | str, port: int, concurrency: int
) -> Mapping[str, Any]:
    return {
        "name": NAME,
        "source": {"path": str(source)},
        "partitions": {"rows": 5000},
        "prompt": {"system": _SYSTEM, "template": "Question: {{ text }}"},
        "llm": {
            "provider": "openai_compatible",
            "name": "gpt-4o-mini",
            "base_url": f"http://127.0.0.1:{port}/v1",
            "prices": _PRICES,
        },
        "output": {"fields": {"intent": {"type": "string", "enum": [*intents]}}},
        "batching": {"rows_per_request": size},
        "limits": {"concurrency": concurrency},
    }


def _ondine(
    python: Path, source: Path, intents: Sequence[str], size: int, concurrency: int
) -> _Used:
    with _server() as port:
        asked = {
            "source": str(source),
            "system": f"{_SYSTEM} One of: {', '.join(intents)}",
            "prompt": "Question: {text}",
            "url": f"http://127.0.0.1:{port}/v1",
            "size": size,
            "concurrency": concurrency,
        }
        script = [str(python), str(ROOT / "benchmarks" / "ondine_banking.py")]
        done = subprocess.run(
            script, input=json.dumps(asked).encode(), stdout=subprocess.PIPE, check=True
        )
        told, stats = json.loads(done.stdout), _stats(port)
        return _Used(stats["requests"], stats["usd"], told["answered"], told["tokens"])


@contextmanager
def _server() -> Iterator[int]:
    port = free_port()
    server = subprocess.Popen(["node", str(SHARED / "mock_llm.js"), str(port), "5"])
    try:
        wait_for(port)
        yield port
    finally:
        server.terminate()
        server.wait()


def _stats(port: int) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats") as reply:
        return json.load(reply)

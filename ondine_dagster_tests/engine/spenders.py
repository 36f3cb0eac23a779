"""Processes that spend one budget: python -m ... FOLDER SETTINGS, the settings as JSON.

Prints how the rows of each process ended as JSON, null for a process that was killed. They are
forks of one process: to start eight interpreters would take longer than all that they do.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from collections import Counter
from contextlib import closing
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from ondine_dagster.engine.rows import Question
from ondine_dagster.ledger.limits import Limit
from ondine_dagster_tests.engine.harness import SCOPE, Harness, question


def rows(spender: int, count: int) -> list[Question]:
    """Return the questions of one process, which nobody else asks; each answer has 16 bytes."""
    filler = "This is what a customer wrote, at some length. " * 8
    return [question(f"[[token=of {spender}, row {n:06}]] {filler}") for n in range(count)]


def spend(folder: Path, number: int, settings: dict[str, Any], together: Barrier) -> None:
    """Ask the rows of one process and note how they ended."""
    with closing(Harness(folder, settings["base_url"], **settings["llm"])) as harness:
        harness.limits = (Limit(SCOPE, "total", "usd", settings["budget"]),)
        together.wait()
        run = harness.run(rows(number, settings["rows"]), concurrency=settings["concurrency"])
    ends = Counter((row.outcome, row.code, row.message) for row in run.rows)
    _result(folder, number).write_text(json.dumps([[*end, n] for end, n in ends.items()]))


def _result(folder: Path, number: int) -> Path:
    return folder / f"spender-{number}.json"


def main() -> None:
    folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    context = multiprocessing.get_context("fork")
    numbers = range(settings["processes"])
    together = context.Barrier(len(numbers))
    started = [
        context.Process(target=spend, args=(folder, number, settings, together))
        for number in numbers
    ]
    for one in started:
        one.start()
    for one in started:
        one.join()
    files = [_result(folder, number) for number in numbers]
    json.dump(
        [json.loads(file.read_text()) if file.exists() else None for file in files], sys.stdout
    )


if __name__ == "__main__":
    main()

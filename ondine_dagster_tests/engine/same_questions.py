"""A process that asks questions: python -m ... FOLDER BASE_URL COUNT [ROWS_PER_REQUEST].

Prints the answers as JSON. Waits for a line on standard input, so that several begin together.
"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path

from ondine_dagster_tests.engine.harness import Harness, questions


def main() -> None:
    folder, base_url, count, *rows_per_request = sys.argv[1:]
    with closing(Harness(Path(folder), base_url)) as harness:
        if rows_per_request:
            harness.pack(int(rows_per_request[0]))
        print("ready", flush=True)
        sys.stdin.readline()
        run = harness.run(questions(int(count)))
        json.dump({"texts": run.texts, "requests": run.engine.progress.requests}, sys.stdout)


if __name__ == "__main__":
    main()

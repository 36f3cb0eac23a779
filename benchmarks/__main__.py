"""Runs the benchmarks and prints what docs/performance.md keeps."""

from __future__ import annotations

import argparse

from benchmarks import big_table, responses_step


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("only", nargs="?", choices=["responses", "table"])
    parser.add_argument("--rows", type=int, help="rows of the benchmark (default: its own)")
    arguments = parser.parse_args()
    if arguments.only in (None, "responses"):
        responses_step.main(arguments.rows or 10_000)
    if arguments.only in (None, "table"):
        big_table.main(arguments.rows or 200_000)


if __name__ == "__main__":
    main()

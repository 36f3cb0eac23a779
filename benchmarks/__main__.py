"""Runs the benchmarks and prints what docs/performance.md keeps."""

from __future__ import annotations

import argparse
import importlib
import inspect
import subprocess
import sys

_MODULES = {
    "responses": "responses_step",
    "table": "big_table",
    "throughput": "throughput",
    "processes": "processes",
    "ledger": "ledger_pairs",
    "plan": "planning",
    "report": "many_partitions",
    "rates": "rates",
    "capacity": "capacity",
    "packing": "packing",
    "reading": "reading",
    "banking": "banking",
    "traces": "tracing",
    "logs": "logs",
}


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] in _MODULES:
        _run(*sys.argv[1:])
        return
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Without a name it runs them all. `NAME --help` shows the sizes of one.",
    )
    parser.add_argument("name", nargs="?", choices=_MODULES)
    parser.parse_args()
    for name in _MODULES:  # each in a process of its own: no one's memory is another's
        subprocess.run([sys.executable, "-m", "benchmarks", name], check=True)


def _run(name: str, *options: str) -> None:
    """Run one; the parameters of its `main` are its options."""
    module = importlib.import_module(f"benchmarks.{_MODULES[name]}")
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {name}",
        description=module.__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for size in inspect.signature(module.main).parameters.values():
        option = f"--{size.name.replace('_', '-')}"
        parser.add_argument(option, type=type(size.default), default=size.default, help=" ")
    module.main(**vars(parser.parse_args(options)))


if __name__ == "__main__":
    main()

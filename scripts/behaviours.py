"""Lists the behaviours of docs/behaviours.md, each with the tests that carry its ID.

Run by `make behaviours`. The tests are asked through pytest's own collection, so a mark on a
module, a class or one parameter counts like a mark on a function. Ends with 1 when a test carries
an ID that the page does not have.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "behaviours.md"
TESTS = ROOT / "ondine_dagster_tests"

_ROW = re.compile(r"^\| *([EABP]-\d+[a-z]*) *\| *(\S+) *\| *(.+?) *\|$")


@dataclass(frozen=True)
class Behaviour:
    """One line of the page; `due` is the version that promises it, `later` or `never`."""

    id: str
    due: str
    claim: str


class Collector:
    """A pytest plugin that notes which collected test carries which behaviour IDs."""

    def __init__(self) -> None:
        self.tests_by_id: dict[str, list[str]] = defaultdict(list)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Read the marks of every collected test; parameters of one test count once."""
        for item in session.items:
            test = item.nodeid.split("[")[0]
            for mark in item.iter_markers("behaviour"):
                for behaviour_id in mark.args:
                    if test not in self.tests_by_id[behaviour_id]:
                        self.tests_by_id[behaviour_id].append(test)


def read_page(text: str) -> list[Behaviour]:
    """Return the behaviours of the page in its order. Raises ValueError for an ID listed twice."""
    rows = map(_ROW.match, text.splitlines())
    behaviours = [Behaviour(*row.groups()) for row in rows if row]
    seen: set[str] = set()
    for behaviour in behaviours:
        if behaviour.id in seen:
            raise ValueError(f"{behaviour.id} is listed twice")
        seen.add(behaviour.id)
    return behaviours


def collect(tests: Path) -> Mapping[str, list[str]]:
    """Return the tests of each ID. Raises ValueError with pytest's words if they do not load."""
    collector = Collector()
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        code = pytest.main(["--collect-only", "-qq", str(tests)], plugins=[collector])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise ValueError(f"The tests could not be collected:\n{output.getvalue()}")
    return collector.tests_by_id


def report(behaviours: Iterable[Behaviour], tests_by_id: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the lines to print: every ID with its tests, then the due ones without any."""
    lines: list[str] = []
    behaviours = list(behaviours)
    for behaviour in behaviours:
        lines.append(f"{behaviour.id:6} {behaviour.due:6} {behaviour.claim}")
        lines.extend(f"         {test}" for test in tests_by_id.get(behaviour.id, ()))
    due = [b for b in behaviours if b.due not in ("later", "never")]
    missing = [b.id for b in due if not tests_by_id.get(b.id)]
    later = [b.id for b in behaviours if b.due == "later" and not tests_by_id.get(b.id)]
    lines.append("")
    lines.append(f"Due: {len(due)}, proved by a test: {len(due) - len(missing)}")
    lines.append(f"Due and without a test: {', '.join(missing) or 'none'}")
    lines.append(f"Later and without a test: {', '.join(later) or 'none'}")
    return lines


def unknown_ids(
    behaviours: Iterable[Behaviour], tests_by_id: Mapping[str, Sequence[str]]
) -> list[str]:
    """Return one line for each ID that a test carries and the page does not have."""
    known = {behaviour.id for behaviour in behaviours}
    return [
        f"{behaviour_id}: not in the list, carried by {', '.join(tests)}"
        for behaviour_id, tests in tests_by_id.items()
        if behaviour_id not in known
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the list; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--tests", type=Path, default=TESTS)
    options = parser.parse_args(argv)
    try:
        behaviours = read_page(options.page.read_text(encoding="utf-8"))
        tests_by_id = collect(options.tests)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(report(behaviours, tests_by_id)))
    unknown = unknown_ids(behaviours, tests_by_id)
    print("\n".join(unknown), file=sys.stderr, end="\n" if unknown else "")
    return 1 if unknown else 0


if __name__ == "__main__":
    sys.exit(main())

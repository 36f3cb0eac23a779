"""How well the detectors find what is marked in the labelled texts, as a table in docs/privacy.md.

    python scripts/privacy_figures.py          writes the table into the page, and those of others
    python scripts/privacy_figures.py --wrong  prints the texts in which one errs

A value is found where kind, beginning and end are those of the mark.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ondine_dagster.privacy.detectors import KINDS, Finder, Found

ROOT = Path(__file__).parent.parent
LABELLED = ROOT / "ondine_dagster_tests" / "privacy" / "labelled.txt"
PAGE = ROOT / "docs" / "privacy.md"
_MARK = re.compile(r"<(?P<kind>[a-z]+)>(?P<value>.*?)</(?P=kind)>")


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text without its marks, and what they say."""

    text: str
    marked: tuple[Found, ...]


def labelled_texts() -> Iterator[Labelled]:
    """Yield the texts of the labelled set."""
    for line in LABELLED.read_text(encoding="utf-8").splitlines():
        if not line.startswith("# "):
            yield _labelled(line.replace("~", ""))  # so that no file holds what looks like a key


def _labelled(line: str) -> Labelled:
    text, at, marked = "", 0, []
    for one in _MARK.finditer(line):
        text += line[at : one.start()]
        marked.append(Found(len(text), len(text) + len(one["value"]), one["kind"]))
        text, at = text + one["value"], one.end()
    return Labelled(text + line[at:], tuple(marked))


@dataclass(frozen=True, slots=True)
class Figures:
    """What a detector did: values that are marked, found rightly, and found where nothing is."""

    marked: int
    right: int
    wrong: int

    @property
    def precision(self) -> float:
        """Return the share of what was found that is right."""
        return self.right / (self.right + self.wrong) if self.right + self.wrong else 1.0

    @property
    def recall(self) -> float:
        """Return the share of what is marked that was found."""
        return self.right / self.marked if self.marked else 1.0


def figures(texts: Iterable[Labelled]) -> dict[str, Figures]:
    """Return the figures of each detector, all of them running together."""
    finder = Finder()
    marked, right, wrong = Counter[str](), Counter[str](), Counter[str]()
    for one in texts:
        found, wanted = set(finder.find(one.text)), set(one.marked)
        marked.update(each.kind for each in wanted)
        right.update(each.kind for each in found & wanted)
        wrong.update(each.kind for each in found - wanted)
    return {kind: Figures(marked[kind], right[kind], wrong[kind]) for kind in KINDS}


def table(texts: list[Labelled]) -> str:
    """Return the figures as a Markdown table."""
    lines = ["| detector | marked | found | wrongly found | precision | recall |"]
    lines.append("|---|---|---|---|---|---|")
    for kind, one in figures(texts).items():
        shares = f"{one.precision:.2f} | {one.recall:.2f}"
        lines.append(f"| `{kind}` | {one.marked} | {one.right} | {one.wrong} | {shares} |")
    clean = sum(not one.marked for one in texts)
    return "\n".join([*lines, "", f"{len(texts)} texts, {clean} of them with nothing to find.", ""])


def page_with(section: str, tables: str, page: str) -> str:
    """Return the page with these tables between the marks of a section."""
    place = re.compile(rf"(?<=<!-- {section} -->\n).*?(?=<!-- end -->)", re.DOTALL)
    return place.sub(lambda _: tables, page)


def main() -> None:
    """Write the tables, or print what goes wrong."""
    texts = list(labelled_texts())
    if "--wrong" not in sys.argv:
        import privacy_by_others

        page = page_with("figures", table(texts), PAGE.read_text(encoding="utf-8"))
        page = page_with("figures by others", privacy_by_others.tables(), page)
        PAGE.write_text(page, encoding="utf-8")
        return
    for one in texts:
        found, marked = set(Finder().find(one.text)), set(one.marked)
        for what, spans in (("missed", marked - found), ("wrong", found - marked)):
            for each in spans:
                print(f"{what}: {each.kind} {one.text[each.start : each.end]!r} in {one.text!r}")


if __name__ == "__main__":
    main()

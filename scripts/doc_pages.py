"""Reads the Markdown pages: their fenced blocks, links and code spans, with line numbers.

Comments in a page say what its blocks are for; a reader of the rendered page does not see them:

    <!-- run -->              this page's console blocks are run by the tests, in order
    <!-- run port=8177 -->    the same; 8177 stands for a free port
    <!-- file: a.yaml -->     the next block is saved under this name before what follows is run
    <!-- background -->       the next block's command goes on while the rest of the page runs
    <!-- fails -->            the next block's commands end with an error
    <!-- not run: why -->     the next console block is left out, for this reason
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

_COMMENT = re.compile(r"^<!-- *(file|background|fails|not run)(?:: *(.+?))? *-->$")
_RUN = re.compile(r"^<!-- *run(?: +port=(\d+))? *-->$", re.MULTILINE)
_FENCE = re.compile(r"^( *)```(\S*)")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_IMAGE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)")
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


@dataclass(frozen=True)
class Block:
    """One fenced block. `line` is its first line of text, `notes` the comments before it."""

    page: Path
    line: int
    language: str
    text: str
    notes: tuple[tuple[str, str], ...]

    @property
    def where(self) -> str:
        """Return page and line, as in an error message."""
        return f"{self.page}:{self.line}"

    def note(self, name: str) -> str | None:
        """Return what the comment `name` before this block says, None where there is none."""
        return dict(self.notes).get(name)


@dataclass(frozen=True)
class Step:
    """One command of a console block with the output lines that the page shows below it."""

    command: str
    shown: tuple[str, ...]


@dataclass(frozen=True)
class Page:
    """One Markdown page."""

    path: Path
    text: str

    @property
    def is_run(self) -> bool:
        """Return whether the tests run this page."""
        return _RUN.search(self.text) is not None

    @property
    def port(self) -> str | None:
        """Return the port number that stands for a free one."""
        match = _RUN.search(self.text)
        return match.group(1) if match else None

    def blocks(self) -> Iterator[Block]:
        """Yield the fenced blocks in order. Raises ValueError for a block that is not closed."""
        notes: list[tuple[str, str]] = []
        lines = enumerate(self.text.splitlines(), start=1)
        for number, line in lines:
            if fence := _FENCE.match(line):
                text = self._until_closed(lines, fence.group(1), number)
                yield Block(self.path, number + 1, fence.group(2), text, tuple(notes))
                notes = []
            elif comment := _COMMENT.match(line):
                notes.append((comment.group(1), comment.group(2) or ""))
            elif line.strip():
                notes = []

    def _until_closed(self, lines: Iterator[tuple[int, str]], indent: str, opened: int) -> str:
        text: list[str] = []
        for _, line in lines:
            if line.strip() == "```":
                return "".join(f"{each}\n" for each in text)
            text.append(line.removeprefix(indent))
        raise ValueError(f"{self.path}:{opened}: the block is not closed")

    def prose(self) -> str:
        """Return the text with blocks and comments blanked, so that line numbers stay."""
        blank = re.compile(r"^ *```.*?^ *```$|<!--.*?-->", re.MULTILINE | re.DOTALL)
        return blank.sub(lambda match: "\n" * match.group().count("\n"), self.text)

    def links(self) -> Iterator[tuple[int, str]]:
        """Yield line and target of links and images."""
        prose = self.prose()
        for match in (*_LINK.finditer(prose), *_IMAGE.finditer(prose)):
            yield prose.count("\n", 0, match.start()) + 1, match.group(1)

    def code_spans(self) -> Iterator[tuple[int, str]]:
        """Yield line and text of `code` in the prose."""
        prose = self.prose()
        for match in _SPAN.finditer(prose):
            yield prose.count("\n", 0, match.start()) + 1, match.group(1)

    def anchors(self) -> set[str]:
        """Return the anchors of the headings, as GitHub and most renderers make them."""
        headings = re.findall(r"^#+ +(.+?) *$", self.prose(), re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def read_pages(root: Path = ROOT) -> list[Page]:
    """Return README.md, CHANGELOG.md and everything in docs/."""
    paths = [root / "README.md", root / "CHANGELOG.md", *sorted((root / "docs").rglob("*.md"))]
    return [Page(path, path.read_text(encoding="utf-8")) for path in paths if path.exists()]


def steps(block: Block) -> list[Step]:
    """Return the commands of a console block: `$ ` starts one, a final backslash continues it."""
    found: list[tuple[list[str], list[str]]] = []
    continues = False
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append(([line.removeprefix("$ ")], []))
        elif not found:
            raise ValueError(f"{block.where}: a console block starts with a `$ ` line")
        elif continues:
            found[-1][0].append(line)
        elif line.strip():
            found[-1][1].append(line)
        continues = line.endswith("\\") and (continues or line.startswith("$ "))
    return [Step("\n".join(command), tuple(shown)) for command, shown in found]

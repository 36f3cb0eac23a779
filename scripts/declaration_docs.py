"""Writes docs/declaration.md from the models in ondine_dagster/spec; `--check` only compares."""

from __future__ import annotations

import sys
from pathlib import Path

from ondine_dagster.spec.reference import render_reference

PAGE = Path(__file__).resolve().parent.parent / "docs" / "declaration.md"


def main(arguments: list[str]) -> int:
    """Write the page, or with `--check` return 1 if it is not up to date."""
    content = render_reference()
    if arguments == ["--check"]:
        if is_current(PAGE, content):
            return 0
        print(f"{PAGE} is not up to date. Run `make docs`.", file=sys.stderr)
        return 1
    PAGE.write_text(content, encoding="utf-8")
    return 0


def is_current(page: Path, content: str) -> bool:
    """Return whether the page holds exactly this content."""
    return page.is_file() and page.read_text(encoding="utf-8") == content


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

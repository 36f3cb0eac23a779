"""The check of the pages finds what a reader would trip over."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from check_docs import problems
from doc_pages import Page, steps

TARGETS = {"demo", "test"}


@click.group()
def cli() -> None: ...


@cli.command()
@click.argument("dataset")
@click.option("--missing/--all")
def run(dataset: str, missing: bool) -> None: ...


@cli.group()
def ledger() -> None: ...


@ledger.command()
def check() -> None: ...


def load(path: Path) -> object:
    if "temprature" in path.read_text():
        raise ValueError("unknown key `temprature`")
    return object()


def problems_of(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "page.md"
    path.write_text(text)
    return problems([Page(path, text)], cli, load, TARGETS)


def fenced(language: str, text: str) -> str:
    return f"<!-- run -->\n\n```{language}\n{text}\n```\n"


GOOD = """<!-- run -->
# The first page

See [below](#the-second-part), [itself](page.md#the-first-page), [the web](https://example.com).
Type `make demo`, then `ondine-dagster run DATASET [--missing] [--all]`.

## The second part

```console
$ ondine-dagster run reviews.yaml \\
    --missing
rows: 3
$ ondine-dagster ledger check | head -1
```

```yaml
type: ondine_dagster.LLMDataset
attributes: {name: reviews}
```

```python
import pandas as pd
```
"""


def test_a_good_page_has_no_problem(tmp_path: Path) -> None:
    assert problems_of(tmp_path, GOOD) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[x](nowhere.md)", "page.md:1: the link nowhere.md leads nowhere"),
        ("![x](nowhere.png)", "nowhere.png leads nowhere"),
        ("[x](#no-part)", "page.md has no heading #no-part"),
        ("Type `make dmeo`.", "the Makefile has no target dmeo"),
        ("Type `ondine-dagster rnu X`.", "page.md:1: `ondine-dagster` has no command rnu"),
        ("`ondine-dagster ledger chekc`", "no command chekc"),
        ("`ondine-dagster run X --mising`", "`ondine-dagster run` has no option --mising"),
        (fenced("console", "$ cat x | ondine-dagster rnu -"), "no command rnu"),
        (fenced("console", "ondine-dagster run X"), "starts with a `$ ` line"),
        ("```console\n$ ls\n```", "page.md:2: nobody runs this"),
        (fenced("bash", "ls"), "write commands as ```console"),
        (fenced("python", "x ="), "does not compile"),
        (fenced("yaml", "a: [b"), "this YAML cannot be read"),
        (
            fenced("yaml", "type: ondine_dagster.LLMDataset\nattributes: {llm: {temprature: 0}}"),
            "page.md:4: this declaration is refused: unknown key `temprature`",
        ),
    ],
)
def test_each_kind_of_mistake_is_found(tmp_path: Path, text: str, problem: str) -> None:
    found = problems_of(tmp_path, text)
    assert len(found) == 1
    assert problem in found[0]


def test_a_block_that_is_not_closed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"page\.md:1: the block is not closed"):
        problems_of(tmp_path, "```yaml\na: 1\n")


def test_comments_belong_to_the_next_block_only() -> None:
    text = "<!-- file: a.csv -->\n\n```csv\nid\n```\n\n```console\n$ ls\na.csv\n```\n"
    first, second = Page(Path("page.md"), text).blocks()
    assert first.note("file") == "a.csv"
    assert second.note("file") is None
    assert [(step.command, step.shown) for step in steps(second)] == [("ls", ("a.csv",))]


def test_what_a_block_shows_is_not_read_as_a_link_or_a_heading() -> None:
    page = Page(Path("page.md"), "```text\n# Title\n[x](nowhere.md) `make dmeo`\n```\n")
    assert list(page.links()) == []
    assert list(page.code_spans()) == []
    assert page.anchors() == set()

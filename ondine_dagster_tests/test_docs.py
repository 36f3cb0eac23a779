"""The pages are run: every command is typed, and every output that a page shows is compared."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from doc_pages import Page, read_pages

from ondine_dagster_tests.doc_runner import PageError, PageRunner, missing_lines

RUN_PAGES = [page for page in read_pages() if page.is_run]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.mark.parametrize("page", RUN_PAGES, ids=lambda page: page.path.name)
def test_the_page_does_what_it_says(page: Page, tmp_path: Path) -> None:
    with PageRunner(page, tmp_path, free_port()) as runner:
        runner.run()


def test_there_are_pages_to_run() -> None:
    assert [page.path.name for page in RUN_PAGES] != []


def run_text(text: str, folder: Path, port: int = 0) -> None:
    with PageRunner(Page(Path("page.md"), text), folder, port) as runner:
        runner.run()


GOOD = """<!-- run port=8177 -->
<!-- file: in/names.csv -->
```csv
name
Zoë at 8177
```

```console
$ cd in
$ export GREETING=hello
```

```console
$ cat names.csv
...
Zoë   at ...
$ echo "$GREETING" \\
    8177
hello 8177
```

<!-- fails -->
```console
$ ls nowhere
... nowhere...
```

<!-- not run: it would never end -->
```console
$ sleep 1000000
```

<!-- background -->
```console
$ sh -c 'echo ready on 8177; exec sleep 1000000'
ready on 8177
```
"""


@pytest.mark.slow
def test_files_state_ports_and_background_commands_work(tmp_path: Path) -> None:
    run_text(GOOD, tmp_path, port=4321)
    assert (tmp_path / "work" / "in" / "names.csv").read_text() == "name\nZoë at 4321\n"


@pytest.mark.parametrize(
    ("block", "difference"),
    [
        ("```console\n$ echo two\none\n```", "the page shows ['one']"),
        ("```console\n$ false\n```", "it ended with 1"),
        ("<!-- fails -->\n```console\n$ true\n```", "it ended with 0"),
        ("<!-- background -->\n```console\n$ true\nready\n```", "the page shows ['ready']"),
        ("```console\n$ printf 'b\\na\\n'\na\nb\n```", "the page shows ['b']"),
    ],
)
def test_a_page_that_is_wrong_fails(tmp_path: Path, block: str, difference: str) -> None:
    with pytest.raises(PageError) as caught:
        run_text(f"<!-- run -->\n\n{block}\n", tmp_path)
    assert difference in str(caught.value)


def test_dots_stand_for_any_text_and_order_counts() -> None:
    output = "rows   5\ntook 0.31 s\ndone\n"
    assert missing_lines(["rows 5", "took ... s", "..."], output) == []
    assert missing_lines(["done", "rows 5"], output) == ["rows 5"]

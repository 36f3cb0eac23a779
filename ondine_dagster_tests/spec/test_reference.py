"""The page "What a declaration may say" is that of the models."""

from __future__ import annotations

from pathlib import Path

import pytest
from declaration_docs import PAGE, is_current, main

from ondine_dagster.spec import Dataset
from ondine_dagster.spec.fields import all_fields
from ondine_dagster.spec.keys import NOT_SUPPORTED_YET
from ondine_dagster.spec.reference import render_reference


def test_the_page_in_docs_is_up_to_date() -> None:
    assert is_current(PAGE, render_reference()), "run `make docs`"


def test_a_stale_page_and_a_missing_page_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "declaration.md"
    monkeypatch.setattr("declaration_docs.PAGE", page)
    assert main(["--check"]) == 1
    assert main([]) == 0
    assert main(["--check"]) == 0
    page.write_text(page.read_text().replace("5000", "6000"))
    assert main(["--check"]) == 1


def test_every_setting_has_a_row_and_every_planned_one_is_named() -> None:
    page = render_reference()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    for field in all_fields(Dataset):
        key, description = f"| `{field.location[-1]}` |", field.info.description or ""
        cells = description.replace("|", "\\|")
        assert any(row.startswith(key) and cells in row for row in rows), field.path
    assert all(f"`{path}`" in page for path in NOT_SUPPORTED_YET)

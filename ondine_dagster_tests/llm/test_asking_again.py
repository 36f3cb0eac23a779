"""Which rejected rows may be asked again: the table of the code, and the one of the page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ondine_dagster.errors import OndineError
from ondine_dagster.llm.asking_again import CHANCES, Chance, retry_options, selection
from ondine_dagster.llm.errors import ErrorClass

PAGE = Path(__file__).resolve().parents[2] / "docs" / "rejected-rows.md"
ON_THE_PAGE = {"yes": Chance.GOOD, "only by name": Chance.BY_NAME, "no": Chance.NONE}


def test_every_class_has_a_chance_and_the_page_says_the_same() -> None:
    assert set(CHANCES) == set(ErrorClass)
    rows = re.findall(r"^\| `(\w+)` \| ([a-z ]+) \|", PAGE.read_text(encoding="utf-8"), re.M)
    assert {ErrorClass(name): ON_THE_PAGE[said] for name, said in rows} == CHANCES


@pytest.mark.parametrize(
    ("names", "error_class", "code", "taken"),
    [
        ([], "transient", "timeout", True),
        (["all"], "row_retryable", "field_missing", True),
        ([], "row", "refused", False),
        ([], "config", "bad_request", False),
        (["row"], "row", "content_filtered", True),
        (["row"], "row", "render_failed", False),
        (["refused"], "row", "refused", True),
        (["refused"], "row", "content_filtered", False),
        (["capacity", "timeout"], "transient", "timeout", True),
        (["capacity", "timeout"], "transient", "server_error", False),
    ],
)
def test_a_row_is_taken_by_its_class_or_its_code(
    names: list[str], error_class: str, code: str, taken: bool
) -> None:
    assert selection(names).takes(error_class, code) is taken


@pytest.mark.parametrize(
    ("rejected", "options"),
    [
        ([("row", "refused"), ("transient", "timeout")], ""),
        ([("row", "truncated"), ("row", "refused")], " --class refused --class truncated"),
        ([("row", "render_failed"), ("config", "bad_request")], None),
        ([], None),
    ],
)
def test_the_options_ask_for_rows_with_a_chance_else_name_those_that_can_be_named(
    rejected: list[tuple[str, str]], options: str | None
) -> None:
    assert retry_options(rejected) == options
    if options is not None:
        chosen = selection(options.replace("--class", "").split())
        assert any(chosen.takes(*why) for why in rejected)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["capcity"], "Did you mean `capacity`?"),
        (["config"], "`config` are never asked again"),
        (["bad_request"], "`bad_request` are never asked again"),
        (["budget_used_up"], "`budget_used_up` are never asked again"),
        (["all", "row"], "name no other with it"),
    ],
)
def test_what_cannot_be_asked_is_refused(names: list[str], sentence: str) -> None:
    with pytest.raises(OndineError) as refused:
        selection(names)
    assert sentence in str(refused.value)

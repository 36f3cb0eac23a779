"""`purge` and `rekey` as a person types them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner, Result

from ondine_dagster.cli.main import cli
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.settings import ENCRYPTION_KEY
from ondine_dagster.storage.lake import Lake
from ondine_dagster_tests.ledger.builders import ask_and_answer

Typed = Callable[..., Result]


@pytest.fixture
def typed(data_dir: Path) -> Typed:
    return lambda *words: CliRunner().invoke(cli, words)


def answer(data_dir: Path, *names: str) -> None:
    ledger = Ledger(data_dir / "ledger.sqlite")
    for name in names:
        ask_and_answer(ledger, name)
    ledger.close()


@pytest.mark.parametrize("command", [("purge", "--older-than", "1d"), ("rekey",)])
def test_without_a_ledger_none_is_made(typed: Typed, data_dir: Path, command: list[str]) -> None:
    result = typed(*command)
    assert result.exit_code == 1
    assert "There is no ledger" in result.output
    assert not data_dir.exists()


def test_purge_says_what_it_removed(typed: Typed, data_dir: Path) -> None:
    answer(data_dir, "a", "b")
    assert "No answer" in typed("purge", "--older-than", "1d").output
    assert "is not an age" in typed("purge", "--older-than", "soon").output
    stranger = typed("purge", "stranger", "--older-than", "0m")
    assert stranger.exit_code == 1
    assert "It knows: reviews." in stranger.output
    typo = typed("purge", "revews", "--older-than", "0m")
    assert (typo.exit_code, "Did you mean reviews?" in typo.output) == (1, True)
    done = typed("purge", "reviews", "--older-than", "0m")
    assert "the texts of 2 answers (6 bytes)" in done.output


def test_rekey_counts_what_is_under_another_key(
    typed: Typed, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENCRYPTION_KEY, "the first key of all")
    answer(data_dir, "a", "b")
    monkeypatch.setenv(ENCRYPTION_KEY, "another key than that")
    refused = typed("rekey")
    assert (refused.exit_code, "give --lost" in refused.output) == (1, True)
    lost = typed("rekey", "--lost")
    assert lost.exit_code == 1
    assert "2 texts under another key" in lost.output
    assert "another key than that" not in refused.output + lost.output
    monkeypatch.setenv("ONDINE_OLD_ENCRYPTION_KEY", "the first key of all")
    found = typed("rekey")
    assert (found.exit_code, "2 texts brought over" in found.output) == (0, True)


def test_rekey_brings_the_lake_over_and_says_what_it_cannot(
    typed: Typed, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(data_dir, "a")
    lake = Lake(data_dir / "lake")
    text = pa.table({"_row_key": ["r"], "messages": ["what was asked"]})
    lake.write("notes", "prompts", "p", text)
    monkeypatch.setenv(ENCRYPTION_KEY, "the first key of all")
    done = typed("rekey")
    assert (done.exit_code, "1 file of the lake brought over" in done.output) == (0, True)
    assert lake.read("notes", "prompts", "p") == text
    monkeypatch.setenv(ENCRYPTION_KEY, "another key than that")
    lost = typed("rekey", "--lost")
    assert lost.exit_code == 1
    assert "1 file of the lake left as before. notes p: the texts in `prompts`" in lost.output

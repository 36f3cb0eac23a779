"""The display of a run on a terminal: a bar with the numbers of the moment."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from rich.console import Console

from ondine_dagster.assets.monitoring.live import LiveStep
from ondine_dagster.cli.progress import JsonDisplay, LiveDisplay
from ondine_dagster.engine.progress import Progress
from ondine_dagster.engine.rows import Outcome


def drawn(display: LiveDisplay) -> str:
    """Return what stands on the terminal now."""
    with display.console.capture() as capture:
        display.console.print(display.render())
    return capture.get()


@pytest.mark.behaviour("A-19")
def test_the_bar_has_rows_rate_money_and_the_time_that_is_left() -> None:
    display = LiveDisplay(Console(file=StringIO(), width=80))
    display.doing("responses")
    assert "responses" in drawn(display)
    display.expect(partitions=4, rows=1000)
    steps = [LiveStep("notes", 2, 500, Progress(), lambda: None) for _ in range(2)]
    for step in steps:
        display.asking(step)
        step.progress.outcomes[Outcome.ANSWERED] = 100
        step.progress.in_flight = 8
        step.progress.cost = 2 * 10**10
        step.progress.reserved = 10**9
        step.finished = 1
    steps[1].progress.keeping_to = "keeping to limits.requests_per_minute"
    text = drawn(display)
    for part in (
        "200 of 1,000 rows",
        "2 of 4 partitions",
        "rows/s",
        "$0.040000 paid",
        "16 requests in flight (at most $0.002000)",
        " left",
        "keeping to limits.requests_per_minute",
    ):
        assert part in text, part


def test_nothing_is_left_when_every_row_has_ended() -> None:
    display = LiveDisplay(Console(file=StringIO(), width=80))
    display.expect(partitions=1, rows=100)
    step = LiveStep("notes", 1, 100, Progress(), lambda: None)
    display.asking(step)
    step.progress.outcomes[Outcome.ANSWERED] = 100
    text = drawn(display)
    assert "100 of 100 rows" in text
    assert "left" not in text


def test_as_json_what_is_red_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    display = JsonDisplay(Console(file=StringIO()))
    display.say("to run: 1 of 1 partition")
    display.say("notes: a partition failed", style="red")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["level"] for line in lines] == ["info", "error"]

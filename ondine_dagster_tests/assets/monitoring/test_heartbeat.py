"""The line that a step logs now and then while it asks."""

from __future__ import annotations

import threading

import pytest

from ondine_dagster.assets.monitoring import heartbeat
from ondine_dagster.assets.monitoring.heartbeat import Heartbeat
from ondine_dagster.assets.monitoring.live import LiveStep
from ondine_dagster.engine.progress import Progress


@pytest.mark.parametrize(("partitions", "told"), [(2, True), (0, False)])
def test_partitions_are_told_where_the_step_writes_some(
    monkeypatch: pytest.MonkeyPatch, partitions: int, told: bool
) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.001)
    monkeypatch.setattr(heartbeat, "BEATS_PER_LINE", 1)
    lines: list[str] = []
    heard = threading.Event()

    def log(line: str) -> None:
        lines.append(line)
        heard.set()

    step = LiveStep("notes", partitions, 5, Progress(), lambda: None)
    with Heartbeat(step, log, lambda: None):
        assert heard.wait(60)
    assert lines[0].startswith("notes: 0 of 5 rows")
    assert ("partitions" in lines[0]) is told

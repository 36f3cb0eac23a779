"""The collector is left as it was found, however many engines ran."""

from __future__ import annotations

import gc

import pytest

from ondine_dagster.engine.garbage import seldom_collected
from ondine_dagster_tests.engine.harness import Harness, questions


def test_the_collector_is_as_before_when_the_last_engine_has_ended() -> None:
    before = gc.get_threshold()
    frozen = gc.get_freeze_count()
    with seldom_collected():
        with seldom_collected():
            assert gc.get_threshold()[0] > before[0]
        assert gc.get_threshold()[0] > before[0]
        assert gc.get_freeze_count() > frozen
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def test_also_after_an_error() -> None:
    before = gc.get_threshold()
    with pytest.raises(ValueError, match="bug"), seldom_collected():
        raise ValueError("bug")
    assert gc.get_threshold() == before


def test_a_collector_that_is_switched_off_stays_so(harness: Harness) -> None:
    before = gc.get_threshold()
    gc.set_threshold(0)
    try:
        run = harness.engine().run([])
        list(run)
        assert gc.get_threshold()[0] == 0
    finally:
        gc.set_threshold(*before)


def test_a_run_leaves_it_alone_afterwards(harness: Harness) -> None:
    before = gc.get_threshold()
    assert len(harness.run(questions(3)).rows) == 3
    assert gc.get_threshold() == before

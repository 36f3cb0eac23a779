"""What the watch sensor makes of a source: when it is taken, and when it is left as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from ondine_dagster.assets.automation.watch import Cursor, Tick, look_at, tick
from ondine_dagster.storage.located import Piece


class Watched:
    """A source and the cursor of a sensor that looks at it; every tick is one of a new process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: str | None = None

    def write(self, name: str, text: str) -> None:
        (self._folder / name).write_text(text)

    def remove(self, name: str) -> None:
        (self._folder / name).unlink()

    def tick(self) -> Tick:
        found = tick(
            Cursor.read(self._kept), look_at(map(Piece.of_file, sorted(self._folder.iterdir())))
        )
        self._kept = found.cursor.text()
        return found


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def test_a_source_is_taken_on_the_second_tick_and_then_not_again(watched: Watched) -> None:
    watched.write("a", "1")
    assert [watched.tick().take for _ in range(4)] == [False, True, False, False]
    watched.write("a", "1, 2")
    assert [watched.tick().take for _ in range(4)] == [False, True, False, False]


def test_a_file_that_is_being_written_is_not_taken_before_it_rests(watched: Watched) -> None:
    watched.write("a", "1")
    watched.tick()
    watched.tick()
    for half in ("2", "2,2", "2,2,2"):
        watched.write("b", half)
        found = watched.tick()
        assert not found.take
        assert "same on the next tick" in found.reason
    assert watched.tick().take


def test_a_source_that_vanishes_is_reported_and_nothing_is_run(watched: Watched) -> None:
    watched.write("a", "1")
    watched.tick()
    watched.tick()
    watched.remove("a")
    for _ in range(3):
        gone = watched.tick()
        assert (gone.take, gone.warning) == (False, True)
        assert "gone" in gone.reason


def test_files_that_are_gone_are_reported_and_only_new_ones_make_a_run(watched: Watched) -> None:
    for name in "abc":
        watched.write(name, name)
    watched.tick()
    watched.tick()
    watched.remove("a")
    for _ in range(2):
        fewer = watched.tick()
        assert (fewer.take, fewer.warning) == (False, True)
        assert "1 of 3 files" in fewer.reason
    watched.write("d", "d")
    assert not watched.tick().take
    assert watched.tick().take


def test_a_source_that_gets_smaller_is_taken_with_a_warning(watched: Watched) -> None:
    watched.write("a", "1, 2, 3")
    watched.tick()
    watched.tick()
    watched.write("a", "1")
    watched.tick()
    smaller = watched.tick()
    assert (smaller.take, smaller.warning) == (True, True)
    assert "1 byte instead of 1 file, 7 bytes" in smaller.reason

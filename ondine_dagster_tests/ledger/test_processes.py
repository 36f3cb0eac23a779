"""Who is alive: lock files, reaping, and what a forked child must not do."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from ondine_dagster.errors import OndineError
from ondine_dagster.ledger import processes
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.processes import ProcessLock
from ondine_dagster.ledger.sealing import sealing
from ondine_dagster_tests.ledger.builders import (
    COST,
    WORST,
    answered,
    counter,
    go,
    key,
    request,
    rows,
    value,
)
from ondine_dagster_tests.ledger.children import Child


def states(ledger: Ledger) -> list[tuple[object, ...]]:
    return list(rows(ledger.database, "SELECT state, count(*) FROM attempts GROUP BY state"))


@pytest.mark.behaviour("A-30")
def test_requests_of_a_killed_process_are_of_unknown_outcome_at_the_next_start(
    path: Path,
) -> None:
    with Child("hold", path, "a", "b", "c") as child:
        child.expect("holding")
        child.kill()
    ledger = Ledger(path)
    assert states(ledger) == [("unknown", 3)]
    assert counter(ledger.database) == (0, 3 * WORST)
    assert value(ledger.database, "SELECT count(*) FROM processes WHERE state='dead'") == 1
    go(ledger, request("a"))
    ledger.close()


def test_a_living_process_keeps_what_it_asks(ledger: Ledger, path: Path) -> None:
    with Child("hold", path, "q") as child:
        child.expect("holding")
        assert ledger.reap() == 0
        assert ledger.reserve(request("q")).taken == [key("q")]
        child.say("answer")
        assert child.finish() == 0
    assert ledger.reserve(request("q")).hits
    assert counter(ledger.database) == (COST, 0)


def test_a_process_that_dies_while_others_wait_is_buried_by_them(
    ledger: Ledger, path: Path
) -> None:
    with Child("hold", path, "q") as child:
        child.expect("holding")
        assert ledger.reserve(request("q")).taken
        child.kill()
        assert ledger.reap() == 1
    assert ledger.reap() == 0
    go(ledger, request("q"))
    assert {file.name for file in (path.parent / "ledger.d").iterdir()} == {ledger._lock.id.hex()}


def test_a_question_is_held_after_too_many_killed_processes(ledger: Ledger, path: Path) -> None:
    for _ in range(3):
        with Child("hold", path, "q") as child:
            child.expect("holding")
            child.kill()
            ledger.reap()
    assert ledger.reserve(request("q", max_unknown=2)).held == {key("q"): 3}
    assert counter(ledger.database) == (0, 3 * WORST)


def test_a_process_that_leaves_marks_its_open_requests_unknown(path: Path) -> None:
    ledger = Ledger(path)
    go(ledger, request("q"))
    ledger.close()
    again = Ledger(path)
    assert states(again) == [("unknown", 1)]
    again.close()


def test_a_process_that_starts_is_never_found_unlocked(
    ledger: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reaped between every two of its steps, a new process is still alive in the end."""
    reaped: list[int] = []

    def after(name: str, function: object) -> None:
        def call(*arguments: object) -> object:
            result = function(*arguments)  # type: ignore[operator]
            reaped.append(processes.reap(ledger.database, path.parent / "ledger.d", b""))
            return result

        monkeypatch.setattr(f"ondine_dagster.ledger.processes.{name}", call)

    after("fcntl.flock", processes.fcntl.flock)
    after("os.rename", os.rename)
    with monkeypatch.context():
        second = Ledger(path)
    monkeypatch.undo()
    assert len(reaped) >= 2
    assert sum(reaped) == 0
    go(second, request("q"))
    assert ledger.reap() == 0
    second.close()


def test_two_reapers_at_once_do_no_harm(path: Path) -> None:
    first, second = Ledger(path), Ledger(path)
    with Child("hold", path, "q") as child:
        child.expect("holding")
        child.kill()
    folder = path.parent / "ledger.d"
    (dead,) = [
        file
        for file in folder.iterdir()
        if file.name not in (first._lock.id.hex(), second._lock.id.hex())
    ]
    with open(dead, "rb") as file:
        processes.fcntl.flock(file, processes.fcntl.LOCK_EX)  # another reaper is at it
        assert first.reap() == 0
    assert first.reap() == 1
    assert second.reap() == 0
    assert states(first) == [("unknown", 1)]
    first.close()
    second.close()


def test_a_process_without_its_lock_file_is_dead_and_says_so(path: Path) -> None:
    """Somebody removed `ledger.d` under a running process."""
    ledger = Ledger(path)
    item = go(ledger, request("sent"))
    shutil.rmtree(path.parent / "ledger.d")
    other = Ledger(path)
    assert states(other) == [("unknown", 1)]
    with pytest.raises(OndineError, match=r"ledger\.d"):
        ledger.reserve(request("q"))
    ledger.settle(answered(item))
    assert other.reserve(request("sent")).hits
    ledger.close()
    other.close()


def test_lock_files_are_gone_after_a_clean_end(tmp_path: Path) -> None:
    lock = ProcessLock(tmp_path / "ledger.d", sealing())
    assert [file.name for file in lock.path.parent.iterdir()] == [lock.id.hex()]
    lock.release()
    assert list(lock.path.parent.iterdir()) == []


# fork


def in_child(do: object) -> int:
    """Run `do` in a forked child; return its exit code."""
    child = os.fork()
    if child == 0:
        try:
            do()  # type: ignore[operator]
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def test_a_forked_child_opens_a_ledger_of_its_own(path: Path) -> None:
    from ondine_dagster.ledger.ledger import close_ledger, open_ledger

    parent = open_ledger(path)
    go(parent, request("parent"))

    def work() -> None:
        mine = open_ledger(path)
        assert mine is not parent
        assert mine.reserve(request("parent")).taken
        mine.settle(answered(go(mine, request("child"))))
        close_ledger(path)

    assert in_child(work) == 0
    assert parent.reserve(request("child")).hits
    close_ledger(path)


def test_a_forked_child_is_refused_by_its_parent_s_ledger_and_does_not_wait(path: Path) -> None:
    ledger = Ledger(path)

    def work() -> None:
        with pytest.raises(OndineError, match="closed"):
            ledger.reserve(request("q"))

    assert in_child(work) == 0
    go(ledger, request("q"))
    ledger.close()


def test_a_forked_child_does_not_keep_its_dead_parent_alive(ledger: Ledger, path: Path) -> None:
    with Child("fork_and_hold", path, "q") as child:
        (orphan,) = child.expect("forked")
        child.expect("holding")
        child.kill_only()
        try:
            assert ledger.reap() == 1
        finally:
            os.kill(int(orphan), 9)
    assert states(ledger) == [("unknown", 1)]

"""What is received while the ledger cannot be written: safe at once, written once, asked once."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ondine_dagster.ledger import writer
from ondine_dagster.ledger.database import LedgerUnavailable
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.spill import Lines, Spill
from ondine_dagster_tests.ledger.bad_disk import (
    UNWRITABLE,
    content,
    die,
    names_in,
    read_only,
    reserved,
)
from ondine_dagster_tests.ledger.builders import (
    COST,
    WORST,
    answered,
    ask_and_answer,
    counter,
    execute,
    hits,
    key,
    problems,
    request,
    rows,
    state,
    value,
)
from ondine_dagster_tests.ledger.children import LONG, Child

# the ledger that cannot be written


@pytest.mark.behaviour("A-7")
@pytest.mark.parametrize("how", UNWRITABLE)
def test_what_comes_in_an_outage_is_safe_and_written_once_the_ledger_works(
    ledger: Ledger, how: str
) -> None:
    items = reserved(ledger, "a", "b")
    with UNWRITABLE[how](ledger):
        for item in items:
            ledger.settle(answered(item, text=LONG))
        assert isinstance(ledger.broken, LedgerUnavailable)
        assert str(ledger._lock.path) in str(ledger.broken)
        assert "What 2 requests brought since is safe" in str(ledger.broken)
        assert [one.attempt for one in content(ledger._lock.spill).settlements] == [
            item.attempt for item in items
        ]
        with pytest.raises(LedgerUnavailable, match="next run pays for none of it"):
            ledger.reserve(request("c"))
        assert counter(ledger.database) == (0, 2 * WORST)
    assert hits(ledger.reserve(request("a"))) == {key("a"): LONG}
    assert hits(ledger.reserve(request("b"))) == {key("b"): LONG}
    assert ledger.broken is None
    assert ledger._lock.spill.empty
    assert counter(ledger.database) == (2 * COST, 0)
    assert value(ledger.database, "SELECT count(*) FROM answers") == 2
    assert value(ledger.database, "SELECT count(*) FROM outbox") == 2


@pytest.mark.behaviour("A-6")
@pytest.mark.behaviour("A-7")
@pytest.mark.parametrize("how", UNWRITABLE)
def test_what_a_killed_process_spilled_is_taken_in_by_the_next(path: Path, how: str) -> None:
    with Child("spill", path, how, "a", "b", "c") as child:
        child.expect("spilled")
        child.kill()
    ledger = Ledger(path)
    assert rows(ledger.database, "SELECT state, count(*) FROM attempts GROUP BY state") == [
        ("settled", 3)
    ]
    for name in "abc":
        assert hits(ledger.reserve(request(name))) == {key(name): LONG}
    assert counter(ledger.database) == (3 * COST, 0)
    assert problems(ledger.database) == []
    assert names_in(path) == [""]
    ledger.close()


def test_a_reaper_that_dies_before_it_deletes_the_spill_does_no_harm(
    ledger: Ledger, path: Path
) -> None:
    with Child("spill", path, "read-only", "a", "b") as child:
        child.expect("spilled")
        child.kill()
    (dead,) = [file for file in ledger._lock.path.parent.iterdir() if file != ledger._lock.path]
    lines = dead.read_bytes()
    for _ in range(2):
        dead.write_bytes(lines)
        execute(
            ledger.database, "UPDATE processes SET state='alive' WHERE id != ?", ledger._lock.id
        )
        assert ledger.reap() == 1
        assert counter(ledger.database) == (2 * COST, 0)
        assert value(ledger.database, "SELECT count(*) FROM answers") == 2
        assert value(ledger.database, "SELECT count(*) FROM outbox") == 2
        assert not dead.exists()


def test_the_spill_of_a_living_process_is_its_own(ledger: Ledger, path: Path) -> None:
    with Child("spill", path, "read-only", "q") as child:
        child.expect("spilled")
        assert ledger.reap() == 0
        assert ledger.reserve(request("q")).taken == [key("q")]
        assert names_in(path) == ["", ""]
        child.kill()
        assert ledger.reap() == 1
    assert ledger.reserve(request("q")).hits


def test_others_need_not_wait_for_the_next_request_of_a_process_that_owes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_AGAIN_SECONDS", 0.01)
    ledger = Ledger(path)
    (item,) = reserved(ledger, "q")
    with read_only(ledger):
        ledger.settle(answered(item))
    give_up = time.monotonic() + 60
    while ledger.broken and time.monotonic() < give_up:
        time.sleep(0.01)
    assert state(ledger, item) == "settled"
    assert ledger._lock.spill.empty
    ledger.close()


def test_a_spill_is_used_again_after_it_was_emptied(ledger: Ledger) -> None:
    for name in ("a", "b", "c"):
        (item,) = reserved(ledger, name)
        with read_only(ledger):
            ledger.settle(answered(item))
            assert len(content(ledger._lock.spill).settlements) == 1
        ask_and_answer(ledger, f"{name} again")
    assert counter(ledger.database) == (6 * COST, 0)


@contextmanager
def no_room(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(Spill, "append", refuse)
        yield


def test_what_not_even_the_spill_takes_is_kept_in_memory_and_nobody_is_told_it_is_safe(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = reserved(ledger, "a", "b")
    with read_only(ledger):
        with (
            no_room(monkeypatch),
            pytest.raises(LedgerUnavailable, match=r"memory of this process only.*No space"),
        ):
            ledger.settle(answered(first))
        assert content(ledger._lock.spill) == Lines()
        ledger.settle(answered(second))  # there is room again: for both
        assert len(content(ledger._lock.spill).settlements) == 2
    assert ledger.reserve(request("a")).hits
    assert ledger.reserve(request("b")).hits


def test_what_is_only_in_memory_is_written_when_the_process_leaves(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(path)
    (item,) = reserved(ledger, "q")
    with read_only(ledger), no_room(monkeypatch), pytest.raises(LedgerUnavailable):
        ledger.settle(answered(item))
    ledger.close()
    assert names_in(path) == []
    again = Ledger(path)
    assert again.reserve(request("q")).hits
    again.close()


def test_a_process_that_leaves_in_an_outage_leaves_its_spill(path: Path) -> None:
    ledger = Ledger(path)
    item, lost = reserved(ledger, "q", "lost")
    with read_only(ledger):
        ledger.settle(answered(item))
        with pytest.raises(LedgerUnavailable, match="is safe in"):
            ledger.close()
    assert names_in(path) == [""]
    again = Ledger(path)
    assert again.reserve(request("q")).hits
    assert state(again, lost) == "unknown"
    assert names_in(path) == [""]
    assert counter(again.database) == (COST, WORST)
    again.close()


def test_a_process_that_leaves_in_an_outage_with_nothing_spilled_leaves_no_file(
    path: Path,
) -> None:
    ledger = Ledger(path)
    (item,) = reserved(ledger, "q")
    with read_only(ledger), pytest.raises(LedgerUnavailable):
        ledger.close()
    assert names_in(path) == []
    again = Ledger(path)
    assert state(again, item) == "unknown"
    again.close()


# a disk that is really full


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of 12 MiB, where we may make one."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root may mount a file system, on Linux")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, name: str = "filler") -> Path:
    """Write a file until there is no byte left on its disk."""
    path = folder / name
    with open(path, "wb", buffering=0) as file:
        for size in (2**16, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError as error:
                assert error.errno == errno.ENOSPC
    return path


@pytest.mark.behaviour("A-7")
def test_a_disk_that_is_really_full_loses_no_answer(small_disk: Path) -> None:
    path = small_disk / "ledger.sqlite"
    ledger = Ledger(path)
    items = reserved(ledger, *range(50))
    filler = fill(small_disk)
    ledger.settle_all([answered(item, text=LONG) for item in items])
    assert "full" in str(ledger.broken)
    assert "Free space" in str(ledger.broken)
    die(ledger)
    fillers = [filler, fill(small_disk, "more")]
    with pytest.raises(LedgerUnavailable, match="Free space"):
        Ledger(path)
    for filler in fillers:
        filler.unlink()
    again = Ledger(path)
    assert len(again.look_up([key(number) for number in range(50)], 100)) == 50
    assert counter(again.database) == (50 * COST, 0)
    assert problems(again.database) == []
    assert [file.name for file in (small_disk / "ledger.d").iterdir()] == [again._lock.id.hex()]
    again.close()

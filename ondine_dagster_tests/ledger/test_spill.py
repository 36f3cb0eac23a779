"""The spill: its lines, its file, and what is done about lines that cannot be used."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from ondine_dagster.ledger import spill as module
from ondine_dagster.ledger.database import LedgerUnavailable
from ondine_dagster.ledger.identity import new_id
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.processes import ProcessLock
from ondine_dagster.ledger.records import NewAnswer, Reservation, Settlement
from ondine_dagster.ledger.sealing import sealing
from ondine_dagster.ledger.spill import Lines, Spill
from ondine_dagster.llm.errors import ErrorCode
from ondine_dagster.llm.provider import Usage, Verdict
from ondine_dagster_tests.ledger.bad_disk import content, die, names_in, read_only, reserved
from ondine_dagster_tests.ledger.builders import (
    answered,
    ask_and_answer,
    key,
    problems,
    request,
    state,
    unknown,
)


def settlement(text: str = "yes") -> Settlement:
    return answered(request("q"), text=text)


@pytest.fixture
def spill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Spill]:
    """Return the small spill of a process that lives."""
    monkeypatch.setattr(module, "ROOM_BYTES", 8192)
    lock = ProcessLock(tmp_path / "ledger.d", sealing())
    yield lock.spill
    lock.release()


# lines


def filled(kind: type[Any], **values: Any) -> Any:
    """Return a `kind` whose fields all differ from their defaults."""
    for field in fields(kind):
        allowed = get_args(get_type_hints(kind)[field.name])
        if field.name not in values:
            values[field.name] = 10**17 if int in allowed else not field.default
            if str in allowed:
                values[field.name] = f"{field.name} \N{GRINNING FACE}\n"
    made = kind(**values)
    assert all(getattr(made, field.name) != field.default for field in fields(kind))
    return made


def test_every_field_of_a_settlement_comes_back(spill: Spill) -> None:
    """Also those that will be added."""
    text = 'Zürich \N{GRINNING FACE}\n"\\\0\u2028'
    answer = filled(
        NewAnswer,
        answer_key=key("q"),
        verdict=Verdict.TRUNCATED,
        text=text,
        cost_share=10**17,
        code=ErrorCode.TRUNCATED,
        flags=("one", "two"),
        usage=filled(Usage),
    )
    item = filled(
        Settlement,
        attempt=new_id(),
        state="settled",
        cost_source="computed",
        usage=filled(Usage),
        answers=(answer, replace(answer, answer_key=key("p"))),
        shares=((key("r"), 3), (key("s"), 4)),
        damages=((key("r"), "pack_missing"),),
    )
    spill.append([item, unknown(request("q"))])
    first, second = content(spill).settlements
    assert first == item
    assert isinstance(first.answers[0].verdict, Verdict)
    assert isinstance(first.answers[0].code, ErrorCode)
    assert second.state == "unknown"


def test_a_torn_last_line_is_no_damage_wherever_it_was_torn(spill: Spill) -> None:
    first, last = settlement(), settlement("no")
    spill.append([first])
    begin = spill._end
    spill.append([last])
    whole = spill.path.read_bytes()
    for end in range(begin, spill._end):
        spill.path.write_bytes(whole[:end] + bytes(len(whole) - end))
        assert content(spill) == Lines((first,), 0)
    spill.path.write_bytes(whole)
    assert content(spill) == Lines((first, last), 0)


@pytest.mark.parametrize("damage", [b"#", b"\n", b"\0\0\0"])
def test_a_damaged_line_in_the_middle_is_counted_and_the_others_are_read(
    spill: Spill, damage: bytes
) -> None:
    items = [settlement(str(number)) for number in range(3)]
    spill.append(items[:1])
    begin = spill._end
    spill.append(items[1:2])
    end = spill._end
    spill.append(items[2:])
    for at in range(begin, end - len(damage)):
        whole = bytearray(spill.path.read_bytes())
        before = whole[at : at + len(damage)]
        if before == damage:
            continue
        whole[at : at + len(damage)] = damage
        spill.path.write_bytes(whole)
        assert content(spill) == Lines((items[0], items[2]), end - begin)
        whole[at : at + len(damage)] = before
        spill.path.write_bytes(whole)


def test_a_line_that_this_version_cannot_read_is_damaged(spill: Spill) -> None:
    spill.append([settlement(), replace(settlement(), state="lost"), settlement()])  # type: ignore[arg-type]
    found = content(spill)
    assert len(found.settlements) == 2
    assert found.damaged > 100


def test_a_spill_grows_over_its_room_and_gives_that_back(spill: Spill) -> None:
    items = [settlement("x" * (module.ROOM_BYTES // 2)) for _ in range(3)]
    for item in items:
        spill.append([item])
    assert spill.path.stat().st_size > module.ROOM_BYTES
    assert content(spill).settlements == tuple(items)
    spill.clear()
    assert spill.path.stat().st_size == module.ROOM_BYTES
    assert content(spill) == Lines()
    spill.append(items[:1])
    assert content(spill).settlements == (items[0],)


def test_an_emptied_spill_keeps_nothing_of_longer_lines(spill: Spill) -> None:
    spill.append([settlement("x" * 1000), settlement("y" * 1000)])
    assert not spill.empty
    spill.clear()
    assert spill.empty
    short = settlement()
    spill.append([short])
    assert content(spill) == Lines((short,), 0)


def test_a_spill_that_could_be_emptied_only_in_part_takes_lines_that_can_be_read(
    spill: Spill, monkeypatch: pytest.MonkeyPatch
) -> None:
    spill.append([settlement("old")])
    write = module._write

    def fail_half_way(descriptor: int, zeros: bytes, offset: int) -> None:
        write(descriptor, zeros[: len(zeros) // 2], offset)
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as failing:
        failing.setattr(module, "_write", fail_half_way)
        with pytest.raises(OSError):
            spill.clear()
    items = [settlement("first"), settlement("second")]
    spill.append(items)
    assert content(spill) == Lines(tuple(items), 0)


def test_a_line_is_on_the_disk_before_anybody_hears_of_it(
    spill: Spill, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Lines] = []
    monkeypatch.setattr(module.os, "fsync", lambda _: synced.append(content(spill)))
    item = settlement()
    spill.append([item])
    assert synced == [Lines((item,), 0)]


# the file


def test_the_room_is_taken_at_the_start_on_every_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*arguments: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "not on this file system")

    for number in range(3):
        lock = ProcessLock(tmp_path / str(number), sealing())
        assert lock.path.read_bytes() == bytes(module.ROOM_BYTES)
        assert lock.path.stat().st_blocks * 512 >= module.ROOM_BYTES
        lock.release()
        if number == 0:
            monkeypatch.setattr(module.os, "posix_fallocate", unsupported, raising=False)
        elif number == 1:
            monkeypatch.delattr(module.os, "posix_fallocate", raising=False)  # a Mac


def test_a_disk_without_room_for_a_spill_is_refused_before_anything_is_paid(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module.os, "posix_fallocate", refuse, raising=False)
    with pytest.raises(LedgerUnavailable, match=r"No space left.*Free space"):
        Ledger(path)
    assert list((path.parent / "ledger.d").iterdir()) == []


def test_a_spill_is_private_and_no_child_inherits_it(spill: Spill) -> None:
    assert stat.S_IMODE(spill.path.stat().st_mode) == 0o600
    assert fcntl.fcntl(spill._file, fcntl.F_GETFD) & fcntl.FD_CLOEXEC


def test_a_spill_that_somebody_removed_takes_nothing(spill: Spill) -> None:
    spill.path.unlink()
    with pytest.raises(FileNotFoundError, match="removed"):
        spill.append([settlement()])


# damage


def test_a_damaged_spill_is_reported_and_kept(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger(path)
    items = reserved(ledger, "a", "b", "c")
    with read_only(ledger):
        for item in items:
            ledger.settle(answered(item, text=f"answer {item.asks[0].row_key}"))
        die(ledger)
    file = ledger._lock.path
    lines = file.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"answer", b"ANSWER")
    file.write_bytes(b"".join(lines))
    caplog.clear()
    again = Ledger(path)
    assert [state(again, item) for item in items] == ["settled", "unknown", "settled"]
    (report,) = caplog.messages
    assert f"{len(lines[1])} bytes of {file} cannot be read" in report
    assert "2 other lines" in report
    assert file.with_suffix(".damaged").read_bytes() == b"".join(lines)
    assert not file.exists()
    assert problems(again.database) == []
    assert again.reap() == 0
    again.close()


def test_an_answer_that_was_being_spilled_at_the_death_is_of_unknown_outcome(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger(path)
    items = reserved(ledger, "a", "b")
    with read_only(ledger):
        ledger.settle_all([answered(item) for item in items])
        die(ledger)
    file = ledger._lock.path
    whole = file.read_bytes().rstrip(b"\0")
    file.write_bytes(whole[:-10] + bytes(100))
    caplog.clear()
    again = Ledger(path)
    assert sorted(state(again, item) for item in items) == ["settled", "unknown"]
    assert caplog.messages == []
    assert names_in(path) == [""]
    again.close()


def poison(item: Reservation) -> Settlement:
    return replace(answered(item), remote_id="\ud83d")  # no database can store that


def test_a_settlement_that_can_never_be_written_keeps_no_other_out(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger(path)
    items = reserved(ledger, "a", "b", "c")
    with read_only(ledger):
        ledger.settle_all([answered(items[0]), poison(items[1]), answered(items[2])])
    ask_and_answer(ledger, "later")
    ask_and_answer(ledger, "and later")
    assert [state(ledger, item) for item in items] == ["settled", "open", "settled"]
    assert caplog.text.count("The ledger refuses how 1 request ended") == 1
    assert items[1].attempt.hex().encode() in ledger._lock.path.with_suffix(".refused").read_bytes()
    assert ledger._lock.spill.empty
    ledger.close()
    again = Ledger(path)
    assert state(again, items[1]) == "unknown"
    assert problems(again.database) == []
    assert names_in(path) == ["", ".refused"]
    again.close()


def test_one_that_can_never_be_written_is_refused_at_the_end_of_its_process(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger(path)
    items = reserved(ledger, "a", "b")
    with read_only(ledger):
        ledger.settle_all([poison(items[0]), answered(items[1])])
    ledger.close()
    assert names_in(path) == [".refused"]
    assert caplog.text.count("The ledger refuses") == 1


def test_a_spilled_settlement_of_a_request_that_is_not_in_the_ledger_keeps_no_process_from_starting(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The ledger was restored from a backup that is older than the request."""
    ledger = Ledger(path)
    items = reserved(ledger, "a", "b")
    with read_only(ledger):
        ledger.settle_all([answered(item) for item in items])
        die(ledger)
    lines = ledger._lock.path.read_bytes().rstrip(b"\0")
    ledger._lock.path.write_bytes(
        lines + module._line(answered(request("never reserved")), sealing())
    )
    again = Ledger(path)
    assert [state(again, item) for item in items] == ["settled", "settled"]
    assert caplog.text.count("The ledger refuses how 1 request ended") == 1
    assert names_in(path) == ["", ".damaged"]
    again.close()

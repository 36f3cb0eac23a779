"""Texts of answers under a key: what stands on the disk, and what becomes of other keys."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ondine_dagster.errors import OndineError
from ondine_dagster.ledger import rekey as rekeying
from ondine_dagster.ledger.identity import keyed
from ondine_dagster.ledger.key_secret import key_secret
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.rekey import Rekeyed, rekey
from ondine_dagster.llm.errors import ErrorCode
from ondine_dagster.settings import ENCRYPTION_KEY, OLD_ENCRYPTION_KEY
from ondine_dagster_tests.ledger.builders import (
    answered,
    ask_and_answer,
    execute,
    go,
    key,
    problems,
    request,
    rows,
    value,
)

OLD, NEW, OTHER = "the first key of all", "another key than that", "nobody has this key"
CANARY = "canary-4711-of-a-customer"


class Keys:
    """The keys in the environment, and ledgers under them."""

    def __init__(self, path: Path, patch: pytest.MonkeyPatch) -> None:
        self.path = path
        self._patch = patch
        self.ledgers: list[Ledger] = []

    def open(self, current: str | None, old: str | None = None, *, any_key: bool = False) -> Ledger:
        """Open the ledger anew under these keys."""
        self.close()
        for name, text in ((ENCRYPTION_KEY, current), (OLD_ENCRYPTION_KEY, old)):
            if text is None:
                self._patch.delenv(name, raising=False)
            else:
                self._patch.setenv(name, text)
        self.ledgers.append(Ledger(self.path, any_key=any_key))
        return self.ledgers[-1]

    def close(self) -> None:
        while self.ledgers:
            ledger = self.ledgers.pop()
            assert problems(ledger.database) == []
            ledger.close()

    def on_disk(self, text: str = CANARY) -> bool:
        """Return whether a text stands somewhere in the data folder."""
        files = [one for one in self.path.parent.rglob("*") if one.is_file()]
        return any(text.encode() in one.read_bytes() for one in files)


@pytest.fixture
def keys(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Keys]:
    opened = Keys(path, monkeypatch)
    yield opened
    opened.close()


def text(ledger: Ledger, name: object) -> str | None:
    """Return an answer, by its key as it was asked or as it was brought over."""
    with ledger.database.read() as connection:
        secret = key_secret(connection)
    both = [key(name)] if secret is None else [key(name), keyed(key(name), secret)]
    (answer,) = ledger.look_up(both, 100).values()
    return answer.text


def unreadable(ledger: Ledger, name: object) -> str:
    """Return why a text cannot be read; its question is answered all the same."""
    (answer,) = ledger.reserve(request(name)).hits.values()
    assert answer.lost is not None
    assert answer.lost.code is ErrorCode.ANSWER_UNREADABLE
    return answer.lost.message


@pytest.mark.behaviour("A-3")
def test_no_byte_of_a_text_is_on_the_disk(keys: Keys) -> None:
    ask_and_answer(keys.open(None), "plain", text=CANARY)
    assert keys.on_disk()
    keys.close()
    keys.path.unlink()
    ledger = keys.open(OLD)
    for number in range(3):
        ask_and_answer(ledger, number, text=f"{CANARY} {number}" * 40)
    assert not keys.on_disk()
    assert text(ledger, 1) == f"{CANARY} 1" * 40
    assert text(keys.open(OLD), 1) == f"{CANARY} 1" * 40
    assert not keys.on_disk(OLD), "nor of the key"


@pytest.mark.behaviour("A-3")
@pytest.mark.parametrize("short", ["", "   ", "fifteen letters"])
def test_a_short_key_is_refused_and_not_shown(keys: Keys, short: str) -> None:
    with pytest.raises(OndineError, match="16 at least") as error:
        keys.open(short)
    assert "fifteen letters" not in str(error.value)
    assert not keys.path.exists()


@pytest.mark.behaviour("A-14")
def test_without_its_key_a_ledger_is_not_opened(keys: Keys) -> None:
    ask_and_answer(keys.open(OLD), "q")
    with pytest.raises(OndineError, match="ONDINE_ENCRYPTION_KEY is not set"):
        keys.open(None)
    with pytest.raises(OndineError, match="is another one") as error:
        keys.open(NEW)
    assert not {OLD, NEW} & set(str(error.value).split("'"))
    assert text(keys.open(OLD), "q") == "yes"


@pytest.mark.behaviour("A-14")
def test_without_the_library_nothing_is_opened(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(OndineError, match=r"ondine_dagster\[encryption\]"):
        keys.open(OLD)
    assert not keys.path.exists()


@pytest.mark.behaviour("A-14")
@pytest.mark.parametrize(
    "damage",
    [
        lambda own, other: own[:-1] + bytes([own[-1] ^ 1]),
        lambda own, other: own[:10],
        lambda own, other: other,
    ],
    ids=["changed", "cut", "another answer's"],
)
def test_what_was_changed_is_said_to_be_and_never_a_miss(
    keys: Keys, damage: Callable[[bytes, bytes], bytes]
) -> None:
    ledger = keys.open(OLD)
    ask_and_answer(ledger, "a", text="the answer to a")
    ask_and_answer(ledger, "b", text="the answer to b")
    (answer, own), (_, other) = rows(
        ledger.database, "SELECT answer, body FROM payloads ORDER BY answer"
    )
    change = "UPDATE payloads SET body = ? WHERE answer = ?"
    execute(ledger.database, change, damage(own, other), answer)
    assert "has changed" in unreadable(ledger, "a")
    assert text(ledger, "b") == "the answer to b"
    assert value(ledger.database, "SELECT count(*) FROM attempts") == 2
    assert rekey(ledger) == Rekeyed(damaged=1)


@pytest.mark.behaviour("A-4")
def test_rekey_brings_everything_along(keys: Keys) -> None:
    ask_and_answer(keys.open(None), "from before", text=f"{CANARY} 0")
    ask_and_answer(keys.open(OLD), "old", text=f"{CANARY} 1")
    assert text(keys.open(OLD), "from before") == f"{CANARY} 0"
    assert keys.on_disk(), "what was there is not encrypted by itself"
    assert rekey(keys.open(OLD)) == Rekeyed(texts=1)
    assert not keys.on_disk()
    assert rekey(keys.open(NEW, OLD, any_key=True)) == Rekeyed(texts=2)
    ledger = keys.open(NEW)
    assert (text(ledger, "from before"), text(ledger, "old")) == (f"{CANARY} 0", f"{CANARY} 1")
    assert rekey(ledger) == Rekeyed()
    assert rekey(keys.open(None, NEW, any_key=True), off=True) == Rekeyed(texts=2)
    assert text(keys.open(None), "old") == f"{CANARY} 1"


@pytest.mark.behaviour("A-4")
def test_a_lost_key_buys_nothing_again_and_comes_back_when_it_is_found(keys: Keys) -> None:
    ask_and_answer(keys.open(OLD), "q")
    with pytest.raises(OndineError, match="give --lost"):
        rekey(keys.open(NEW, any_key=True))
    found = rekey(keys.open(NEW, any_key=True), lost=True)
    ((name, count),) = found.other.items()
    assert count == 1
    ledger = keys.open(NEW)
    assert f"another key ({name})" in unreadable(ledger, "q")
    ask_and_answer(ledger, "new")
    assert text(keys.open(NEW, OLD), "q") == "yes", "both keys are given"
    assert rekey(keys.open(NEW, OLD)) == Rekeyed(texts=1)
    ledger = keys.open(NEW)
    assert (text(ledger, "q"), text(ledger, "new")) == ("yes", "yes")


def test_rekey_wants_to_be_alone(keys: Keys) -> None:
    ledger = keys.open(OLD)
    other = Ledger(keys.path)
    with pytest.raises(OndineError, match="1 other process"):
        rekey(ledger)
    other.close()


@pytest.mark.parametrize("at", ["bring_keys_over", "_texts_brought_over", "beside"])
def test_until_rekey_has_ended_nobody_else_may_use_the_ledger(
    keys: Keys, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """It would write under one key what lies there under another; also where it was killed."""
    ask_and_answer(keys.open(None), "q", text=CANARY)
    refused: list[str] = []

    def cut_short(*_: object, **__: object) -> None:
        with pytest.raises(OndineError, match="rekey` has not ended"):
            Ledger(keys.path)
        refused.append(at)
        raise Killed

    with monkeypatch.context() as patched:
        if at != "beside":
            patched.setattr(rekeying, at, cut_short)
        with pytest.raises(Killed):
            rekey(keys.open(OLD, any_key=True), beside=cut_short)
    assert refused == [at]
    with pytest.raises(OndineError, match="Nothing was sent"):
        keys.open(OLD)
    assert rekey(keys.open(OLD, any_key=True)).texts == (at != "beside")
    assert text(keys.open(OLD), "q") == CANARY
    assert not keys.on_disk()


def test_after_rekey_no_page_holds_what_stood_there_before(keys: Keys) -> None:
    """SQLite moves rows that grow to other pages, and leaves copies of their neighbours behind."""
    ledger = keys.open(None)
    with ledger.database.write() as connection:
        connection.exec_driver_sql("PRAGMA secure_delete=OFF").close()
        connection.exec_driver_sql(f"INSERT INTO datasets VALUES ('copy', '{CANARY}')")
        connection.exec_driver_sql("DELETE FROM datasets")
    ledger.database.compact()
    assert keys.on_disk()
    rekey(keys.open(OLD, any_key=True))
    assert not keys.on_disk()


class Killed(Exception):
    """Stands for the end of a process."""


@pytest.mark.parametrize(
    ("current", "off", "said"), [(None, False, "is not set"), (OLD, True, "unset ONDINE_ENCR")]
)
def test_rekey_says_what_it_misses(keys: Keys, current: str | None, off: bool, said: str) -> None:
    keys.open(OLD)
    with pytest.raises(OndineError, match=said):
        rekey(keys.open(current, any_key=True), off=off)


def test_what_the_ledger_could_not_take_is_sealed_too(keys: Keys) -> None:
    ledger = keys.open(OLD)
    item = go(ledger, request("q"))
    ledger._lock.spill.append([answered(item, text=CANARY)])
    assert not keys.on_disk()
    ledger._writer.close()
    ledger._lock._file.close()  # as if it had died
    ledger.database.close()
    keys.ledgers.clear()
    assert text(keys.open(OLD), "q") == CANARY

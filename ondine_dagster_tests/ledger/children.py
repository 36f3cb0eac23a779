"""Real processes that share a ledger: each runs one function of this file and talks in lines."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from hashlib import sha512
from pathlib import Path
from types import TracebackType
from typing import Self

from ondine_dagster.ledger.ledger import Ledger, close_ledger, open_ledger
from ondine_dagster.ledger.writer import wait_for
from ondine_dagster_tests.ledger.bad_disk import UNWRITABLE
from ondine_dagster_tests.ledger.builders import answered, go, key, request

_ROOT = Path(__file__).resolve().parents[2]
# as long in the file: nothing in it can be compressed away
LONG = "".join(sha512(bytes([n])).hexdigest() for n in range(256))


class Child:
    """A process that runs `main(task, path, ...)`. Its pipes replace every wait by the clock."""

    def __init__(
        self, task: str, path: Path, *arguments: object, prefix: Sequence[str] = ()
    ) -> None:
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-m", __name__, task, str(path), *map(str, arguments)],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if prefix else None,
            text=True,
        )
        self.pid = self._process.pid
        self.errors = ""

    def expect(self, wanted: str) -> list[str]:
        """Read one line, which must begin with `wanted`; return the words after it."""
        assert self._process.stdout is not None
        first, *words = self._process.stdout.readline().split() or [""]
        assert first == wanted, (first, words)
        return words

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def wait(self) -> int:
        """Let it run to its end; keep what it wrote to stderr, where that is a pipe."""
        _, self.errors = self._process.communicate()
        return self._process.returncode

    def finish(self) -> int:
        """Close its input and wait for its end."""
        self._process.communicate()
        return self._process.returncode

    def kill(self) -> None:
        """Kill -9, and wait until it is gone."""
        self._process.kill()
        self._process.communicate()

    def kill_only(self) -> None:
        """Kill -9 without waiting for its pipes: children of its own may hold them."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self.kill()


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def heard() -> str:
    return sys.stdin.readline().strip()


# what a child may do


def open_(path: Path) -> None:
    """Wait for the word, open, leave."""
    say("ready")
    heard()
    Ledger(path).close()


def reserve_and_say_so(path: Path) -> None:
    """Reserve, then write a byte, as the engine would to a socket."""
    ledger = Ledger(path)
    say("reserving")
    ledger.reserve(request("q"))
    say("sent")
    ledger.close()


def hold(path: Path, *names: str) -> None:
    """Reserve questions and wait; answer them when told to."""
    ledger = Ledger(path)
    items = [go(ledger, request(name)) for name in names]
    say("holding", *(item.attempt.hex() for item in items))
    if heard() == "answer":
        ledger.settle_all([answered(item) for item in items])
    ledger.close()


def fork_and_hold(path: Path, name: str) -> None:
    """Fork a child that lives on, then hold a question."""
    ledger = Ledger(path)
    child = os.fork()
    if child == 0:
        signal.pause()
    say("forked", child)
    go(ledger, request(name))
    say("holding")
    signal.pause()


def answer_some(path: Path, count: str, done: str) -> None:
    """Reserve `count` questions, answer the first `done`, and wait to be killed."""
    ledger = Ledger(path)
    items = [go(ledger, request(number, row_key=str(number))) for number in range(int(count))]
    ledger.settle_all([answered(item) for item in items[: int(done)]])
    say("answered", *range(int(done)))
    signal.pause()


def spill(path: Path, how: str, *names: str) -> None:
    """Reserve questions, and receive their long answers while the ledger cannot be written."""
    ledger = Ledger(path)
    items = [go(ledger, request(name)) for name in names]
    with UNWRITABLE[how](ledger):
        ledger.settle_all([answered(item, text=LONG) for item in items])
        say("spilled" if ledger.broken else "written")
        signal.pause()


def record(path: Path, first: str, count: str) -> None:
    """Record calls for the row r1, settled."""
    ledger = open_ledger(path)
    say("ready")
    heard()
    for number in range(int(first), int(first) + int(count)):
        ledger.settle(answered(go(ledger, request(number))))
    close_ledger(path)


def same_questions(path: Path, count: str, seed: str) -> None:
    """Answer of `count` questions what nobody answers or has answered; then say how many."""
    ledger = open_ledger(path)
    say("ready")
    heard()
    say("asked", *_answer_all(ledger, int(count), int(seed)))
    close_ledger(path)


def _answer_all(ledger: Ledger, count: int, seed: int) -> list[int]:
    asked: list[int] = []
    left = [(number + seed * 25) % count for number in range(count)]
    while left:
        now, left = left[:20], left[20:]
        going = []
        items = [request(number) for number in now]
        for number, item, decision in zip(now, items, wait_for(ledger.submit, items), strict=True):
            assert decision is not None
            if decision.go:
                asked.append(number)
                going.append(answered(item, text=f"answer {number}"))
            elif decision.taken:
                left.append(number)
            else:
                assert decision.hits[key(number)].text == f"answer {number}"
        ledger.settle_all(going)
    return asked


_TASKS = {
    "open": open_,
    "reserve_and_say_so": reserve_and_say_so,
    "hold": hold,
    "fork_and_hold": fork_and_hold,
    "answer_some": answer_some,
    "spill": spill,
    "record": record,
    "same_questions": same_questions,
}

if __name__ == "__main__":
    _TASKS[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])

"""Puts rows that were asked again between the rows of their partition that were not."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from ondine_dagster.assets.rows.outcomes import FEED_ROWS, stored_outcome
from ondine_dagster.engine.rows import Chunk, RowOutcome
from ondine_dagster.errors import OndineError
from ondine_dagster.storage.parquet_files import LakeFile

# how a row ended, and the key of its question
Ended = tuple[RowOutcome, bytes | None]
# a row that was asked again, and which of its samples
Asked = tuple[str, tuple[int, ...]]


class Merge:
    """One partition: its file as it was, and the rows `asked`, which come in the same order."""

    def __init__(
        self,
        file: LakeFile,
        partition: str,
        asked: deque[Asked],
        judged: Callable[[Ended, Ended, Sequence[int]], Ended],
    ) -> None:
        self._judged = judged
        self._file = file
        self._partition = partition
        self._asked = asked
        self._rows = rows_of(file)

    def rows_of(self, chunk: Chunk) -> Iterator[Chunk]:
        """Yield the rows up to the last one of `chunk`, and the rest with the last chunk."""
        pairs = self._pairs(chunk)
        while piece := list(islice(pairs, FEED_ROWS)):
            outcomes, keys = zip(*piece, strict=True)
            yield Chunk(self._partition, list(outcomes), list(keys), False, self._file.metadata)
        if chunk.last:
            yield Chunk(self._partition, [], [], last=True, notes=self._file.metadata)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _pairs(self, chunk: Chunk) -> Iterator[Ended]:
        for new in zip(chunk.outcomes, chunk.keys, strict=True):
            wanted, numbers = self._asked.popleft()
            for row in self._rows:
                old = kept(row)
                if row["_row_key"] == wanted:
                    yield self._judged(old, new, numbers)
                    break
                yield old
            else:
                raise OndineError(
                    f"{self._partition} was written anew with other rows while it was asked. What "
                    "was answered is kept: ask again."
                )
        if chunk.last:
            for row in self._rows:
                yield kept(row)


def kept(row: Mapping[str, Any]) -> Ended:
    """Return how a row ended before: its samples, too, were paid by an earlier run."""
    ended = stored_outcome(row)
    samples = tuple(replace(one, kept=True) for one in ended.samples)
    return replace(ended, kept=True, samples=samples), row["answer_key"]


def rows_of(file: LakeFile, names: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file, or some of their columns."""
    for batch in file.iter_batches(FEED_ROWS, names):
        yield from batch.to_pylist()

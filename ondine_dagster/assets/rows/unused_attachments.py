"""Removes files from `attachments/` that no prompt in the lake names any more.

`prompts` says which files belong to a partition. Removing one costs no answer: where a run needs it
after all, `prompts` brings it again.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from ondine_dagster.ledger.sealing import Unreadable
from ondine_dagster.llm.attachments import attachments_in
from ondine_dagster.storage.attachments import AttachmentStore
from ondine_dagster.storage.lake import Lake

_PROMPTS = "prompts"
_HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Unused:
    """How many files were removed, and why others that are old enough were not."""

    files: int = 0
    problem: str | None = None


def remove_unused(lake: Lake, store: AttachmentStore, before_ms: int, now_ms: int) -> Unused:
    """Remove files that nothing names, and that no run has looked at since `before_ms`.

    Milliseconds since the epoch, UTC. What was looked at in the last hour stays: a run may be
    rendering the prompts that name it. Nothing is removed where prompts cannot be read.
    """
    old = store.unused_since(min(before_ms, now_ms - _HOUR_MS))
    if not old:
        return Unused()
    try:
        unused = old - _named(lake)
    except Unreadable as error:
        return Unused(problem=str(error))
    for digest in unused:
        store.remove(digest)
    return Unused(len(unused))


def _named(lake: Lake) -> set[str]:
    """Return the digests of all files that prompts name. Raises Unreadable."""
    named: set[str] = set()
    for dataset in lake.datasets(_PROMPTS):
        for partition in lake.partitions(dataset, _PROMPTS):
            with closing(lake.open(dataset, _PROMPTS, partition)) as file:
                for batch in file.iter_batches(columns=["messages"]):
                    for messages in filter(None, batch.column("messages").to_pylist()):
                        named.update(one.sha256 for one in attachments_in(messages) if one.sha256)
    return named

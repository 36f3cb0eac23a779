"""Why a row's question is another than the one it was asked before: the digests that differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ondine_dagster.assets.shared.partition_counts import RESPONSES
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.engine.rows import Outcome
from ondine_dagster.storage.lake import Lake

_PROMPTS = "prompts"
_CONSTANT = ("model_digest", "sampling_digest", "schema_digest")
_NAMES = ("model", "sampling", "wire schema")
_NOT_ASKED = (Outcome.NOT_ATTEMPTED, Outcome.HELD)


class Earlier:
    """The questions of a partition when it was asked last, as its `prompts` file has them."""

    def __init__(self, pipeline: Pipeline, lake: Lake, partition: str, content_hash: str) -> None:
        """`content_hash` is that of the rows as they are now."""
        self._digests: dict[str, Any] | None = {}
        name = pipeline.name
        if not all(lake.exists(name, asset, partition) for asset in (_PROMPTS, RESPONSES)):
            return  # never asked
        prompts, responses = (
            lake.metadata(name, asset, partition) for asset in (_PROMPTS, RESPONSES)
        )
        same_question = prompts["ondine.question_version"] == pipeline.question_version
        same_rows = prompts["ondine.content_hash"] == content_hash
        changed = _constants_changed(pipeline, lake, partition)
        # the messages are made from prompt and row: which of them was it?
        which = "row" if same_question else "prompt" if same_rows else "prompt or row"
        self._other_messages = _sentence([which, *changed])
        # rendered since, but not asked: the file cannot say what the answers were for
        asked = responses["ondine.question_version"] == pipeline.question_version
        self._same_messages = _sentence(changed or ([] if asked else ["question"]))
        unanswered = int(responses["ondine.unanswered"]) > 0
        if same_question and same_rows and not unanswered:
            self._digests = None
        else:
            self._digests = {
                key: one and pipeline.keys.brought_over(one, prompts)
                for key, one in _pairs(lake, name, _PROMPTS, partition, "messages_digest").items()
            }
        if self._digests and unanswered:
            for key, outcome in _pairs(lake, name, RESPONSES, partition, "outcome").items():
                if outcome in _NOT_ASKED:
                    self._digests.pop(key, None)

    def reasons(
        self, row_keys: Sequence[str], messages: Sequence[bytes | None]
    ) -> list[str | None]:
        """Return for each row why its question differs; None where it does not, or has no answer.

        `messages` are the digests of the messages as they are now.
        """
        if self._digests is None:
            return [self._same_messages] * len(row_keys)
        before = map(self._digests.get, row_keys)
        return [
            None if old is None else self._same_messages if old == new else self._other_messages
            for old, new in zip(before, messages, strict=True)
        ]


def _pairs(lake: Lake, name: str, asset: str, partition: str, column: str) -> dict[str, Any]:
    """Return the values of a column by row."""
    table = lake.read(name, asset, partition, ["_row_key", column])
    return dict(zip(*(each.to_pylist() for each in table.columns), strict=True))


def _constants_changed(pipeline: Pipeline, lake: Lake, partition: str) -> list[str]:
    """Return what differs of the digests that all rows of a file share."""
    first = next(iter(lake.iter_batches(pipeline.name, _PROMPTS, partition, 1, _CONSTANT)), None)
    if first is None:
        return []
    now = (pipeline.model_digest, pipeline.sampling_digest, pipeline.schema_digest)
    before = (column[0].as_py() for column in first.columns)
    return [name for name, old, new in zip(_NAMES, before, now, strict=True) if old != new]


def _sentence(names: Sequence[str]) -> str | None:
    if not names:
        return None
    listed = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return f"{listed} changed"

"""Refuses what Dagster's "re-execute from asset failure" would end in: an asset made on holes.

That retry leaves out every asset of which any partition was finished, and runs what is below it on
the whole range, whatever is missing there.
"""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from ondine_dagster.assets.shared.at_work import keys_of
from ondine_dagster.assets.shared.next_step import DUE
from ondine_dagster.assets.shared.status import DatasetStatus, PartitionState
from ondine_dagster.errors import OndineError
from ondine_dagster.storage.io_manager import RETRIED_TAG
from ondine_dagster.wording import listed, plural

_SHOWN_KEYS = 20


def refuse_holes(run: dg.DagsterRun, status: DatasetStatus, order: Sequence[str]) -> None:
    """Refuse a retry from asset failure while partitions of its run are not complete.

    `order` are the partitions as Dagster has them. Raises OndineError that names them.
    """
    if RETRIED_TAG not in run.tags:
        return
    asked = set(keys_of(run, order))
    incomplete = status.in_state(*DUE, PartitionState.FAILED)
    holes = [key for key in incomplete if key in asked]
    if holes:
        raise OndineError(
            f"{status.dataset}: {plural(len(holes), 'partition')} of the failed run not complete "
            f'({listed(holes, _SHOWN_KEYS)}), which "re-execute from asset failure" leaves '
            f"out. Re-execute the backfill from failure, or run "
            f"`ondine-dagster run {status.dataset} --failed`."
        )

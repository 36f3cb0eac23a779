"""The code location of this project: everything under `defs/`, run in one process."""

# No `from __future__ import annotations`: Dagster reads annotations of definitions at run time.

from pathlib import Path

import dagster as dg


@dg.definitions
def defs() -> dg.Definitions:
    """Return all datasets of the project.

    The executor runs the assets of a run in one process: they share one engine, and a process per
    asset would cost seconds each.
    """
    declared = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
    return dg.Definitions.merge(declared, dg.Definitions(executor=dg.in_process_executor))

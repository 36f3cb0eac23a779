"""`ondine-dagster export`: the results of a dataset as a file, or in a table of a database."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ondine_dagster.assets.export import export_to, told
from ondine_dagster.cli.console import messages
from ondine_dagster.cli.target import Target, find_target
from ondine_dagster.errors import OndineError
from ondine_dagster.spec import format_errors
from ondine_dagster.spec.export import Export
from ondine_dagster.storage.export import ExportResult
from ondine_dagster.wording import plural


def export_command(called: str, options: Mapping[str, Any]) -> None:
    """Write the results to where `options`, or else the declaration, say; tell what went where.

    Raises:
        OndineError: nobody says where, the options do not fit together, or it cannot be written.
    """
    target = find_target(called)
    folder = Path.cwd() if options else target.pipeline.project_root
    for one in [_declared(options)] if options else _of_declaration(target):
        _tell(target, export_to(target.pipeline, target.lake, one, folder))


def _declared(options: Mapping[str, Any]) -> Export:
    try:
        return Export.model_validate(dict(options))
    except ValidationError as error:
        found = "\n".join(one.message for one in format_errors(error))
        found = re.sub(r"`export\.(\w+)`|\b(to_variable)\b", _as_option, found)
        raise OndineError(found) from None


def _as_option(match: re.Match[str]) -> str:
    return f"--{(match[1] or match[2]).replace('_', '-')}"


def _of_declaration(target: Target) -> tuple[Export, ...]:
    declared = target.declared.dataset.export
    if not declared:
        raise OndineError(
            f"{target.name} declares no `export`. Say where its results go, as in "
            f"{target.command(f'export {target.called} --to {target.name}.csv')}"
        )
    return declared


def _tell(target: Target, written: ExportResult) -> None:
    console = messages()
    console.print(told(written), markup=False)
    if written.rejected:
        look = target.query("rejected_rows")
        console.print(
            f"not in it: {plural(written.rejected, 'rejected row')}: {look}", markup=False
        )
    if written.missing:
        go_on = target.command(f"run {target.called}")
        console.print(
            f"not in it: {plural(written.missing, 'row')} without an outcome yet: {go_on}",
            markup=False,
        )

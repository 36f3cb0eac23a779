"""`export`: the results as files or tables, wherever the declaration says, after they changed."""

from collections.abc import Callable
from pathlib import Path

import dagster as dg

from ondine_dagster.assets.keys import asset_spec
from ondine_dagster.assets.monitoring.answer_traces import AnswerTraces
from ondine_dagster.assets.resources import LAKE, LakeResource
from ondine_dagster.assets.shared.events import Metadata
from ondine_dagster.assets.shared.holes import refuse_holes
from ondine_dagster.assets.shared.partitions import known_keys
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.assets.shared.stage import stage
from ondine_dagster.assets.shared.status import dataset_status
from ondine_dagster.errors import OndineError, for_a_person
from ondine_dagster.settings import TRACES
from ondine_dagster.spec.database_url import DatabaseUrl
from ondine_dagster.spec.export import Export, destination, is_url
from ondine_dagster.storage.export import ExportResult, Table
from ondine_dagster.storage.export import export as write_export
from ondine_dagster.storage.lake import Lake
from ondine_dagster.wording import plural

_DESCRIPTION = """The results of all partitions, as the file or the table that the declaration
names; written again as a whole, or merged by key."""


def build_export(pipeline: Pipeline) -> dg.AssetsDefinition:
    """Return the `export` asset of a dataset that declares where its results go."""
    spec = asset_spec(
        pipeline,
        "export",
        _DESCRIPTION,
        kinds={"table"},
        deps=["results", "rejected_rows"],
        automation_condition=(
            dg.AutomationCondition.any_deps_updated() & ~dg.AutomationCondition.in_progress()
        ),
    )

    @dg.multi_asset(name=f"{pipeline.name}__export", specs=[spec], required_resource_keys={LAKE})
    def export(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
        lake_resource: LakeResource = context.resources.ondine_lake
        with stage(context, pipeline):
            lake = lake_resource.lake()
            status = dataset_status(pipeline, lake)
            refuse_holes(context.run, status, known_keys(pipeline, context.instance))
            return dg.MaterializeResult(metadata=_all(pipeline, lake, context.log.info))

    return export


def export_to(pipeline: Pipeline, lake: Lake, declared: Export, folder: Path) -> ExportResult:
    """Write the results where `declared` says; relative paths are below `folder`.

    Raises:
        OndineError: the environment holds no destination, it is the source itself, or it cannot be
            written.
    """
    to = _destination(pipeline, declared, folder)
    if isinstance(to, Table):
        _refuse_source(pipeline, to, folder)
    settings = pipeline.settings()
    traced = settings.variable(TRACES) not in (None, "off")
    traces = AnswerTraces(settings.ledger_path) if traced else None
    return write_export(lake, pipeline.name, to, lineage=declared.lineage, traces=traces)


def look_at(pipeline: Pipeline, declared: Export) -> tuple[str, Path | None]:
    """Say where an export goes, and in which folder it makes files; nothing is written.

    Raises:
        OndineError: the environment holds no destination, it is the source itself, or the server
            cannot be reached.
    """
    to = _destination(pipeline, declared, pipeline.project_root)
    if isinstance(to, Path):
        if to.is_dir():
            raise OndineError(f"{to} is a folder; an export is a file")
        return str(to), to.parent
    _refuse_source(pipeline, to, pipeline.project_root)
    if to.file is None:
        from ondine_dagster.storage.export_postgres import reach

        reach(to.url)
    return str(to), to.file and to.file.parent


def told(written: ExportResult) -> str:
    """Return what was written, as people read it; no secrets."""
    text = f"{plural(written.rows, 'row')} in {written.to}"
    if written.skipped:
        text += f", {written.skipped:,} of them skipped by `when`"
    if written.changes is None:
        return text
    names = ("added", "overwritten", "removed")
    counts = [f"{getattr(written.changes, name)} {name}" for name in names]
    return f"{text}: {', '.join(counts)}"


def _all(pipeline: Pipeline, lake: Lake, say: Callable[[str], None]) -> Metadata:
    """Write all exports; one that fails keeps none of the others from being written."""
    metadata: Metadata = {}
    failures = []
    for number, declared in enumerate(pipeline.dataset.export, start=1):
        try:
            written = export_to(pipeline, lake, declared, pipeline.project_root)
        except (OndineError, OSError) as error:
            reason = for_a_person(error)
            if reason is None:
                raise
            if isinstance(error, OSError):  # which says nothing of the place
                reason = f"Cannot export to {declared.shown(pipeline.name)}: {reason}"
            failures.append(reason)
            continue
        say(told(written))
        prefix = f"export_{number}/" if len(pipeline.dataset.export) > 1 else ""
        metadata |= {f"{prefix}{name}": value for name, value in _metadata(written).items()}
    if failures:
        raise OndineError("\n".join(failures))
    return metadata


def _metadata(written: ExportResult) -> Metadata:
    path = dg.MetadataValue.path if isinstance(written.to, Path) else dg.MetadataValue.text
    found: Metadata = {
        "to": path(str(written.to)),
        "rows": written.rows,
        "rejected": written.rejected,
        "skipped": written.skipped,
        "without_an_outcome": written.missing,
    }
    if written.changes is not None:
        changes = written.changes
        found |= {
            "added": changes.added,
            "overwritten": changes.overwritten,
            "removed": changes.removed,
        }
    return found


def _destination(pipeline: Pipeline, declared: Export, folder: Path) -> Path | Table:
    to = _text(pipeline, declared)
    key = pipeline.dataset.source.key
    if not is_url(to):
        path = folder / to
        if path.suffix.lower() != ".duckdb" or (
            declared.table is None and declared.mode == "replace"
        ):
            return path
        to = f"duckdb:///{path}"
    url = DatabaseUrl.parse(to)
    file = folder / url.path if url.kind == "duckdb" else None
    return Table(url, declared.table or pipeline.name, declared.mode, file, key)


def _text(pipeline: Pipeline, declared: Export) -> str:
    if declared.to is not None:
        return declared.to.get_secret_value()
    name = str(declared.to_variable)
    text = pipeline.settings().environ.get(name, "").strip()
    try:
        return destination(text)
    except ValueError as error:
        what = f"holds what {error}" if text else "is not set"
        raise OndineError(f"{pipeline.name}: the environment variable {name} {what}") from None


def _refuse_source(pipeline: Pipeline, to: Table, folder: Path) -> None:
    """Refuse the table that the rows come from."""
    source = pipeline.dataset.source
    if source.table is None:
        return
    text = source.database.get_secret_value() if source.database is not None else ""
    text = text or pipeline.settings().environ.get(str(source.database_variable), "")
    try:
        url = DatabaseUrl.parse(text)
    except ValueError:
        return  # `snapshot` says so
    if url.kind != to.url.kind or _bare(source.table) != _bare(to.name):
        return
    places = {(one / url.path).resolve() for one in (folder, pipeline.declared_in.parent)}
    same = to.file.resolve() in places if to.file is not None else url.shown == to.url.shown
    if same:
        raise OndineError(f"{to} is the source of {pipeline.name}. Export to another table.")


def _bare(table: str) -> str:
    """Return the name of a table without the schema that is meant where none is named."""
    return table.casefold().removeprefix("public.").removeprefix("main.")

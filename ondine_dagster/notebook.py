"""`enrich`: a table in a notebook or a script, labelled in one call.

The same declaration, assets, ledger and limits as everywhere: the call writes a YAML file and a
table below the data folder and runs them, so that every command of `ondine-dagster` works on what
it has made. Answers that were paid once are never paid again, in whatever cell or process.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click
import yaml
from pydantic import ValidationError

from ondine_dagster.cli.choice import Choice
from ondine_dagster.cli.interrupts import Interrupts
from ondine_dagster.cli.jupyter import NotebookDisplay, in_notebook
from ondine_dagster.cli.progress import Display, display
from ondine_dagster.cli.run import run_dataset
from ondine_dagster.cli.summary import RunSummary, problems
from ondine_dagster.cli.target import Target, find_target
from ondine_dagster.errors import OndineError
from ondine_dagster.llm.prices import money
from ondine_dagster.settings import load_settings
from ondine_dagster.spec import LINEAGE_COLUMNS, Dataset, format_errors
from ondine_dagster.spec.file_places import is_address
from ondine_dagster.spec.upstream import DATASET_NAME
from ondine_dagster.storage.atomic import ensure_folder, write_atomically
from ondine_dagster.storage.frames import as_pandas, from_frame, is_polars
from ondine_dagster.storage.locate import locate, read_rows
from ondine_dagster.storage.outcomes import outcomes
from ondine_dagster.storage.parquet_files import write_table
from ondine_dagster.wording import plural

if TYPE_CHECKING:
    import pyarrow as pa

_FOLDER = "notebook"
_REASONS = ("_outcome", "_error_message")
_TOLD = frozenset({*_REASONS, *LINEAGE_COLUMNS})
_KINDS = {bool: "boolean", int: "integer", float: "number"}
# what is paid is not paid again: only rows whose question is new are asked
_ALL = Choice("all")
_WAIT_SECONDS = 0.2
# Dagster's loggers deadlock where two runs begin at once in one process
_ONE_AT_A_TIME = threading.Lock()


def enrich(
    data: Any,
    *,
    prompt: str | Mapping[str, Any],
    llm: str | Mapping[str, Any],
    fields: Mapping[str, Any] | None = None,
    budget_usd: float | str | None = None,
    sample: int | None = None,
    key: str | Sequence[str] = (),
    name: str | None = None,
    limits: Mapping[str, Any] | None = None,
    lineage: bool = False,
) -> Any:
    """Ask the model about every row of a table, and return the table with the answers.

    Args:
        data: a pandas or Polars DataFrame, a pyarrow Table, or what `source.path` may be: a
            file, a folder, a pattern, an address of an object store.
        prompt: the template, as in `prompt.template`; or the section `prompt` as a mapping.
        llm: one string such as `openai/gpt-4o-mini`, or the section `llm` as a mapping.
        fields: what an answer has: by name a type (`string`, `integer`, `number`, `boolean`), a
            list of allowed values, or a mapping as in `output.fields`. None: plain text, in the
            column `response`.
        budget_usd: the most USD that this call may spend.
        sample: only so many rows from the top, to look at before all are paid; None: all.
        key: the column, or columns, that name a row, as `source.key`.
        name: the dataset's name. Default: one that follows from columns, prompt, fields and model.
        limits: the section `limits` as a mapping.
        lineage: whether the columns that say where an answer is from, and what it cost, are added.

    Returns:
        What was given (a DataFrame of pandas for a path), all rows in their order, with a column
        for each field, `_outcome`, and `_error_message` where a row was rejected. Fields are NULL
        there. What an earlier call has added beside its fields is replaced.

    A call waits for one that is under way in this process, and for one in another process that asks
    the same of a table with these columns.

    Raises:
        OndineError: a wrong declaration, or no row was answered.
    """
    data = _without_earlier(data)
    table = _table(data, sample)
    declared = {
        "prompt": {"template": prompt} if isinstance(prompt, str) else dict(prompt),
        "llm": llm if isinstance(llm, str) else dict(llm),
        "output": {"fields": _fields(fields)},
        "limits": _limits(limits, budget_usd),
    }
    name = name or _name(declared, table.column_names)
    with _ONE_AT_A_TIME, _alone(name) as folder:
        answers = _answers(_declare(folder, name, declared, table, key), lineage=lineage)
    return _joined(data, table, answers)


def _answers(target: Target, *, lineage: bool) -> pa.Table:
    """Run the dataset and return what became of each row; raises OndineError where none has one."""
    summary = _run(target)
    if summary.status.rows and not summary.status.results:
        told = problems(target, summary, _ALL)
        raise OndineError("\n".join([f"{target.name}: no row was answered.", *told]))
    more = LINEAGE_COLUMNS if lineage else ()
    columns = dict.fromkeys((*target.pipeline.dataset.output_columns(), *_REASONS, *more))
    snapshot = target.pipeline.snapshot(target.lake)
    return outcomes(target.lake, snapshot, list(columns))


@contextmanager
def _alone(name: str) -> Iterator[Path]:
    """Keep other processes off the dataset of this name: each would see the other's rows.

    Yields the folder of tables and declarations; raises OndineError for what cannot be a name.
    """
    if not DATASET_NAME.fullmatch(name):
        raise OndineError(
            f"name is {name!r}; it must start with a small letter, and hold only small letters, "
            "digits and _, at most 63."
        )
    folder = load_settings(Path.cwd()).data_dir / _FOLDER
    ensure_folder(folder)
    with open(folder / f"{name}.lock", "ab") as lock:
        told = False
        while not _taken(lock):
            if not told:
                click.echo(f"{name}: waiting for another process that asks the same.", err=True)
                told = True
            time.sleep(_WAIT_SECONDS)
        yield folder


def _taken(lock: IO[bytes]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _declare(
    folder: Path,
    name: str,
    declared: Mapping[str, Any],
    table: pa.Table,
    key: str | Sequence[str],
) -> Target:
    """Write table and declaration; return the dataset that they are."""
    write_table(folder / f"{name}.parquet", table)
    source: dict[str, Any] = {"path": f"{name}.parquet"}
    if key:
        source["key"] = key if isinstance(key, str) else list(key)
    attributes = {"name": name, "source": source, **declared}
    document = {"type": "ondine_dagster.LLMDataset", "attributes": attributes}
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    path = write_atomically(folder / f"{name}.yaml", text.encode())
    return find_target(str(path))


def _fields(fields: Any) -> dict[str, Any]:
    if fields is None:
        return {}
    if not isinstance(fields, Mapping):
        raise OndineError(
            f"fields is {fields!r}; it must be a mapping, such as "
            "{'mood': ['good', 'bad'], 'score': 'integer'}."
        )
    return {one: _field(one, what) for one, what in fields.items()}


def _field(name: str, what: Any) -> dict[str, Any]:
    """Return a field as it is declared, from the short forms too."""
    if isinstance(what, str):
        return {"type": what}
    if isinstance(what, Mapping):
        return dict(what)
    if isinstance(what, Sequence) and what:
        kinds = {_KINDS.get(type(value), "string") for value in what}
        if kinds == {"boolean"}:
            return {"type": "boolean"}
        numbers = kinds <= {"integer", "number"}
        kind = kinds.pop() if len(kinds) == 1 else "number" if numbers else "string"
        return {"type": kind, "enum": list(what)}
    raise OndineError(
        f"fields: {name} is {what!r}; it must be a type (string, integer, number, boolean), a list "
        f"of allowed values, or a mapping such as {{'type': 'integer', 'minimum': 0}}."
    )


def _limits(limits: Mapping[str, Any] | None, budget_usd: float | str | None) -> dict[str, Any]:
    found = dict(limits or {})
    if budget_usd is not None:
        found["budgets"] = [*found.get("budgets", ()), {"usd": str(budget_usd), "per": "run"}]
    return found


def _name(declared: Mapping[str, Any], columns: Sequence[str]) -> str:
    """Return a name that is the same whenever the same is asked of a table with these columns."""
    question = {name: declared[name] for name in ("prompt", "llm", "output")}
    text = json.dumps([question, list(columns)], sort_keys=True, default=str)
    return f"notebook_{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def _run(target: Target) -> RunSummary:
    """Run the dataset in a thread: Dagster bears no event loop in its own, and a notebook has one.

    Raises what it raises, and KeyboardInterrupt after Ctrl-C, when requests in flight have ended.
    """
    shown = NotebookDisplay() if in_notebook() else display(target.settings)
    ended: Future[RunSummary] = Future()
    interrupts = Interrupts()
    arguments = (ended, target, shown, interrupts)
    thread = threading.Thread(target=_settle, args=arguments, name="enrich")
    with shown:
        thread.start()
        try:
            # not by joining the thread: CPython takes it for ended once Ctrl-C came in between
            # (https://github.com/python/cpython/issues/90882)
            while not ended.done():
                wait([ended], _WAIT_SECONDS)
                shown.refresh()
        except KeyboardInterrupt:
            shown.interrupted(target.declared.dataset.limits.drain_seconds)
            interrupts.hear(signal.SIGINT)
            shown.stop()
            wait([ended])
            raise
    summary = ended.result()
    status = summary.status
    shown.say(
        f"{target.name}: {plural(status.results, 'row')} answered, {status.rejected} not; "
        f"{plural(summary.requests, 'request')}, {money(summary.this_run.settled)}"
    )
    for line in problems(target, summary, _ALL):
        shown.say(line, style="red")
    return summary


def _settle(
    ended: Future[RunSummary], target: Target, shown: Display, interrupts: Interrupts
) -> None:
    try:
        ended.set_result(run_dataset(target, _ALL, shown, interrupts))
    except BaseException as error:  # noqa: BLE001 (the caller's thread raises it)
        ended.set_exception(error)


def _without_earlier(data: Any) -> Any:
    """Return a table without what an earlier call has told of its rows."""
    import pandas as pd
    import pyarrow as pa

    if isinstance(data, pa.Table):
        return data.drop_columns([name for name in data.column_names if name in _TOLD])
    if isinstance(data, pd.DataFrame):
        return data.drop(columns=[name for name in data.columns if name in _TOLD])
    return data.drop(_TOLD.intersection(data.columns)) if is_polars(data) else data


def _table(data: Any, sample: Any) -> pa.Table:
    if sample is not None and (not isinstance(sample, int) or sample < 1):
        raise OndineError(f"sample is {sample}; it must be at least 1, or None for all rows.")
    table = _rows_of(str(data)) if isinstance(data, str | Path) else from_frame(data)
    return table if sample is None else table.slice(0, sample)


def _rows_of(path: str) -> pa.Table:
    """Return what a dataset with this `source.path` would read."""
    path = path if is_address(path) else str(Path(path).expanduser())
    declared = {"name": _FOLDER, "source": {"path": path}, "prompt": {"template": "-"}}
    try:
        dataset = Dataset.model_validate({**declared, "llm": "openai/-"})
    except ValidationError as error:
        raise OndineError("\n".join(one.message for one in format_errors(error))) from None
    here = Path.cwd()
    found = locate(dataset, here / _FOLDER, here, lambda: load_settings(here).environ)
    return read_rows(dataset, found)[0]


def _joined(data: Any, table: pa.Table, answers: pa.Table) -> Any:
    """Return the rows that were given, in the form in which they were, with the answers."""
    import pyarrow as pa

    if isinstance(data, pa.Table):
        for name in answers.column_names:
            table = table.append_column(name, answers[name])
        return table
    if is_polars(data):
        import polars as pl

        return data.head(table.num_rows).hstack(pl.DataFrame(answers))
    frame = as_pandas(table) if isinstance(data, str | Path) else data.head(table.num_rows).copy()
    for name, column in as_pandas(answers).items():
        frame[name] = column.array
    return frame

"""Runs of Dagster in this process: one stage or one range of partitions each.

They are recorded in DAGSTER_HOME like any other run, so that the UI shows them. What Dagster would
print is kept out; the lines that our stages log go to the display.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import dagster as dg
from dagster._core.execution.plan.objects import StepFailureData

from ondine_dagster.assets.factory import build_definitions
from ondine_dagster.assets.keys import asset_key
from ondine_dagster.assets.red import RED_PARTITIONS, STOPPED
from ondine_dagster.assets.shared.partitions import range_tags, ranges
from ondine_dagster.assets.snapshot import register_partitions
from ondine_dagster.cli.target import Target
from ondine_dagster.observe.log_lines import FIELDS

# Dagster's cost grows with the partitions of a run, and its events are held in memory.
PARTITIONS_PER_RUN = 1000
_LOGGER = "console"
# what Dagster logs of every step whose checks are logged by us, partition by partition
_CHECKS_OF_OUR_OWN = "did not yield or return expected outputs"
_OnLog = Callable[[int, str], None]
_OnStage = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class RunFailure:
    """Why a run failed, as a person reads it.

    `only_red` where partitions are not complete and others may still succeed.
    """

    message: str
    only_red: bool


class DagsterRuns:
    """Executes stages of one dataset, one Dagster run after another."""

    def __init__(
        self,
        target: Target,
        instance: dg.DagsterInstance,
        tags: Mapping[str, str],
        on_log: _OnLog,
        on_stage: _OnStage,
    ) -> None:
        declared = target.declared
        definitions = build_definitions(
            declared.dataset,
            declared_in=declared.declared_in,
            project_root=declared.project_root,
            loads_asset=False,
        )
        loggers = {
            _LOGGER: _logger(lambda level, text: on_log(level, target.pasteable(text)), on_stage)
        }
        whole = dg.Definitions.merge(definitions, dg.Definitions(loggers=loggers))
        self._job = whole.resolve_implicit_global_asset_job_def()
        self._target = target
        self._pipeline = target.pipeline
        self._instance = instance
        self._tags = tags

    def execute(
        self, stages: Sequence[str], partitions: tuple[str, str] | None = None
    ) -> RunFailure | None:
        """Materialize `stages`, for a range of partitions or without; return why it failed."""
        tags = dict(self._tags)
        if partitions is not None:
            tags |= range_tags(self._pipeline, *partitions)
        result = self._job.execute_in_process(
            run_config={"loggers": {_LOGGER: {}}},
            instance=self._instance,
            asset_selection=[asset_key(self._target.name, stage) for stage in stages],
            tags=tags,
            raise_on_error=False,
        )
        if result.success:
            return None
        failure = _failure(result)
        return replace(failure, message=self._target.pasteable(failure.message))

    def ranges(self, wanted: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Yield `wanted` as ranges of neighbours: one run takes one of them.

        A Dagster home that is new learns of the snapshot's partitions: nothing else is lost with
        an old one.
        """
        register_partitions(self._instance, self._target.lake, self._pipeline)
        return ranges(self._pipeline, self._instance, wanted, PARTITIONS_PER_RUN)


def _failure(result: dg.ExecuteInProcessResult) -> RunFailure:
    messages, only_red = [], True
    for event in result.all_events:
        if not event.is_step_failure:
            continue
        data = event.event_specific_data
        assert isinstance(data, StepFailureData)
        own = data.user_failure_data
        if own is not None:
            messages.append(own.description or own.label)
            only_red &= RED_PARTITIONS in own.metadata and STOPPED not in own.metadata
        else:  # a bug: whoever reads it needs the traceback
            messages.append(data.error.to_string() if data.error else str(event.message))
            only_red = False
    if not messages:
        messages, only_red = [_last_words(result)], False
    return RunFailure("\n".join(messages), only_red)


def _last_words(result: dg.ExecuteInProcessResult) -> str:
    """Return what Dagster says where no step failed: it could not even begin."""
    failures = (event for event in result.all_events if event.is_job_event and event.is_failure)
    return next((event.message or "" for event in failures), "the run failed")


def _logger(on_log: _OnLog, on_stage: _OnStage) -> dg.LoggerDefinition:
    def make(context: dg.InitLoggerContext) -> logging.Logger:
        logger = logging.Logger("ondine_dagster.run", logging.DEBUG)
        logger.addHandler(_Handler(on_log, on_stage))
        return logger

    return dg.LoggerDefinition(make)


class _Handler(logging.Handler):
    """Passes on which step begins, and what our stages log; the rest is Dagster's own."""

    def __init__(self, on_log: _OnLog, on_stage: _OnStage) -> None:
        super().__init__()
        self._on_log = on_log
        self._on_stage = on_stage

    def emit(self, record: logging.LogRecord) -> None:
        meta = getattr(record, "dagster_meta", {})
        event = meta.get("dagster_event")
        if event is None:
            message = meta.get("orig_message", record.getMessage())
            shown = record.levelno >= logging.INFO or hasattr(record, FIELDS)
            if shown and _CHECKS_OF_OUR_OWN not in message:
                self._on_log(record.levelno, message)
        elif event.is_step_start:
            self._on_stage(str(event.step_key).rpartition("__")[2])

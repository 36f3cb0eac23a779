"""Judges a dataset at the end of a step, whether that failed or not."""

from __future__ import annotations

from collections.abc import Collection

import dagster as dg

from ondine_dagster.assets.budgets import BudgetWatch
from ondine_dagster.assets.checks import log_verdicts
from ondine_dagster.assets.resources import LakeResource
from ondine_dagster.assets.shared.partitions import step_keys
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.assets.verdicts.facts import Facts, read_facts
from ondine_dagster.assets.verdicts.field_verdicts import field_verdicts
from ondine_dagster.assets.verdicts.verdicts import SNAPSHOT, Verdict, partition_verdicts
from ondine_dagster.errors import OndineError


def judge_step(
    context: dg.AssetExecutionContext,
    pipeline: Pipeline,
    wanted: Collection[str],
    budgets: BudgetWatch | None,
) -> list[Verdict]:
    """Log and return the verdicts on the stages `wanted`, and on what is left to label.

    What cannot be judged, such as a damaged file of another partition, is a warning: it must not
    take the place of the reason why a step failed, nor fail one that did its work.
    """
    try:
        facts = _facts(context, pipeline)
    except OndineError as error:
        context.log.warning(
            f"{pipeline.name}: the checks could not be evaluated: {pipeline.scrub(str(error))}"
        )
        return []
    found = [*partition_verdicts(facts), *field_verdicts(facts)]
    verdicts = [one for one in found if one.asset in (*wanted, SNAPSHOT)]
    if budgets is not None:
        verdicts += budgets.verdicts(pipeline.name)
    log_verdicts(context, pipeline, verdicts, facts.covers)
    return verdicts


def _facts(context: dg.AssetExecutionContext, pipeline: Pipeline) -> Facts:
    resource: LakeResource = context.resources.ondine_lake
    lake = resource.lake()
    return read_facts(pipeline, lake, pipeline.snapshot(lake), step_keys(context))

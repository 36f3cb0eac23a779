"""`ondine-dagster plan`: what a run would do and cost. Asks nobody and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rich.console import Console
from rich.text import Text

from ondine_dagster.assets.planning.forecast import (
    BudgetForecast,
    Duration,
    budget_forecast,
    durations,
)
from ondine_dagster.assets.planning.plan import DatasetPlan, plan_rows
from ondine_dagster.assets.rows.cleaned import cleaned_text
from ondine_dagster.assets.rows.outlook import Need
from ondine_dagster.assets.rows.samples import samples_remark
from ondine_dagster.assets.shared.declared_columns import check_source_columns
from ondine_dagster.assets.shared.status import DatasetStatus, PartitionState, dataset_status
from ondine_dagster.assets.snapshot import upstream_gap
from ondine_dagster.cli.budgets import standings_of
from ondine_dagster.cli.choice import Choice, Work, choose
from ondine_dagster.cli.console import aligned, output, seconds
from ondine_dagster.cli.summary import retry_of_rejected, states
from ondine_dagster.cli.target import Target, find_target
from ondine_dagster.ledger.budgets import amount_of, described
from ondine_dagster.ledger.clock import now_ms
from ondine_dagster.ledger.coverage import reading
from ondine_dagster.ledger.estimates import Recorded, answer_tokens, compared, find, tells_length
from ondine_dagster.ledger.learnt import ASSUMED_BYTES_PER_TOKEN
from ondine_dagster.ledger.rates import used_today
from ondine_dagster.ledger.records import ProviderKey
from ondine_dagster.ledger.totals import Spent, spent
from ondine_dagster.llm.free_tiers import free_tier
from ondine_dagster.llm.prices import money
from ondine_dagster.llm.pricing import Pricing
from ondine_dagster.llm.provider import Provider, at_once
from ondine_dagster.storage.preview import preview_snapshot
from ondine_dagster.wording import plural

_REMARKS = {
    Need.NEW: "never asked",
    Need.STALE: "asked before, but not what would be asked now",
    Need.CUT: "cut off under a lower ceiling: asked again (counted as long as the ceiling)",
    Need.PAID: "answered, or failed for good",
    Need.ASKING: "another run is asking right now",
    Need.HELD: "too many requests of unknown outcome",
    Need.NOT_RENDERED: "no prompt: `ondine-dagster preview` says why",
    Need.SKIPPED: "`when` is not true: not asked",
}
_NAMES = {Need.PAID: "already paid", Need.ASKING: "being asked"}


@dataclass(frozen=True, slots=True)
class _Plan:
    """What `plan` shows.

    `last` is the last run with what it was expected to use, `today` what the day's caps have had.
    """

    target: Target
    choice: Choice
    status: DatasetStatus
    work: Work
    rows: DatasetPlan
    last: tuple[Recorded, Spent] | None
    today: tuple[int, int]


def plan_command(called: str, choice: Choice) -> None:
    """Print what a run of `choice` would do with the source as it is now."""
    plan = _made(find_target(called), choice)
    console = output()
    for section in _sections(plan):
        console.print(section)
        console.print()
    _next(console, plan)


def _made(target: Target, choice: Choice) -> _Plan:
    pipeline, lake = target.pipeline, target.lake
    with (
        preview_snapshot(lake, pipeline.dataset, pipeline.source()) as (aside, snapshot),
        reading(target.settings.ledger_path) as connection,
    ):
        check_source_columns(pipeline, snapshot.source_columns)
        status = dataset_status(pipeline, lake, snapshot)
        work = choose(choice, status, pipeline, lake)
        if choice.partitions:  # the others are not looked at
            named = set(choice.partitions)
            kept = tuple(one for one in status.partitions if one.partition in named)
            status = replace(status, partitions=kept)
        looked_at = {one.partition for one in status.partitions}
        rows = plan_rows(
            pipeline, lake, (aside, snapshot), looked_at, frozenset(work.whole), connection
        )
        last, today = None, (0, 0)
        if connection is not None:
            provider = pipeline.provider
            key = ProviderKey(provider.name, provider.base_url, provider.model)
            today = used_today(connection, key, now_ms())
        if connection is not None and (recorded := find(connection, target.name)):
            last = recorded, spent(connection, target.name, f"run:{recorded.run_scope}")
    return _Plan(target, choice, status, work, rows, last, today)


def _sections(plan: _Plan) -> Iterator[Text]:
    yield _rows(plan)
    if plan.rows.stale:
        yield _titled("Stale, and what asking again costs", _stale(plan))
    yield _costs(plan)
    yield Text("\n").join(Text(line) for line in _remarks(plan))
    if plan.rows.run.requests:
        yield _titled("Time, the longest counts", _time(plan))
        if budgets := [budget_forecast(one, plan.rows.run) for one in standings_of(plan.target)]:
            yield _titled("Budgets", _budgets(budgets))


def _titled(title: str, body: Text) -> Text:
    return Text.assemble((f"{title}\n", "bold"), body)


def _rows(plan: _Plan) -> Text:
    status, found = plan.status, plan.rows
    lines = [("rows", f"{status.rows + status.unassigned:,}", "as the source is now")]
    if status.unassigned:
        lines.append(("  no partition", f"{status.unassigned:,}", "rejected by the snapshot"))
    for need, remark in _REMARKS.items():
        if count := found.rows.get(need, 0):
            lines.append((f"  {_NAMES.get(need, need)}", f"{count:,}", remark))
    if found.repeated:
        remark = "of those to ask have the question of another row: asked once"
        lines.append(("  repeated", f"{found.repeated:,}", remark))
    lines.append(("partitions", f"{len(status.partitions):,}", states(status)))
    return _titled(plan.target.name, aligned(lines, right=(1,)))


def _stale(plan: _Plan) -> Text:
    lines = [
        (
            f"  {one.reason}",
            plural(one.rows, "row"),
            money(one.estimate.expected),
            f"at most {money(one.estimate.most)}",
        )
        for one in plan.rows.stale
    ]
    return aligned(lines, right=(1, 2))


def _costs(plan: _Plan) -> Text:
    """Return what the planned run costs, beside what `run --all` would."""
    whole, again = len(plan.work.whole), len(plan.work.reparse)
    columns = [(f"run{plan.choice.options}", whole, again, plan.rows.run)]
    if plan.choice == Choice():
        columns.append(("run --all", len(plan.status.partitions), 0, plan.rows.everything))
    titles, wholes, agains, estimates = zip(*columns, strict=True)
    lines = [
        ("", *titles),
        ("partitions", *(f"{count:,}" for count in wholes)),
    ]
    if again:
        lines.append(("  only parsed again, $0", *(f"{count:,}" for count in agains)))
    lines += [
        ("requests", *(f"{one.requests:,}" for one in estimates)),
        ("prompt tokens", *(f"{one.prompt_tokens:,}" for one in estimates)),
        ("completion tokens", *(f"{one.completion_tokens:,}" for one in estimates)),
        ("expected", *(money(one.expected) for one in estimates)),
        ("at most", *(money(one.most) for one in estimates)),
    ]
    batch = Pricing(plan.target.declared.dataset.llm).prices.batch
    if batch is not None:
        jobs = (f"about {money(round(one.expected * batch))}" for one in estimates)
        lines.append(("as a batch job (not built yet)", *jobs))
    return aligned(lines, right=range(1, len(columns) + 1))


def _tokens(found: DatasetPlan, provider: Provider) -> str:
    """Return what is assumed of a request and of an answer, and why."""
    answer = answer_tokens(found.learnt, found.by_form, provider.ceiling)
    by_form = f"{answer:.3g} per answer, a quarter of llm.max_tokens"
    if found.by_form is not None:
        by_form = f"{answer:.3g} per answer, by its form"
    if found.learnt is None:
        return (
            f"assumed, as {provider.identity} has not answered yet: one for "
            f"{ASSUMED_BYTES_PER_TOKEN} bytes of a request, and {by_form}"
        )
    packed = found.everything.rows > found.everything.requests
    used = (found.learnt.together if packed else None) or found.learnt
    said = f"{used.tokens_per_byte:.3g} per byte of a request"
    learnt = f"learnt from {plural(found.learnt.answers, 'answer')} of {provider.identity}"
    if not tells_length(used, found.by_form):
        return f"{said}, {learnt} for other datasets, and {by_form}"
    single = " to a single row" if packed and used is found.learnt else ""
    return f"{said} and {used.completion_tokens:.3g} per answer{single}, {learnt}"


def _remarks(plan: _Plan) -> Iterator[str]:
    target, found = plan.target, plan.rows
    if gap := upstream_gap(target.pipeline, target.lake):
        yield gap
    if remark := samples_remark(target.pipeline):
        yield remark
    provider = target.pipeline.provider
    if found.everything.requests and not found.everything.most:
        yield f"{provider.model} is free: its prices are 0."
    yield f"Tokens: {_tokens(found, provider)}."
    yield "At most: every request costs its worst case. Requests of unknown outcome come on top."
    asked = found.run if found.run.requests else found.everything
    if asked.rows > asked.requests:
        yield (
            f"Packs: about {asked.rows / asked.requests:.3g} rows per request. At most, each row "
            "is asked three times: in a pack, in one of half the size, and alone."
        )
    if plan.last is not None and plan.last[1].requests:
        recorded, paid = plan.last
        rows = None if target.pipeline.packing is None else recorded.asked
        said = compared(recorded.estimate, paid.requests, paid.settled, rows)
        yield f"The last run: {said}."
    yield from found.remarks
    if found.cleaned:
        yield f"Rows that prompt.clean changes: {cleaned_text(found.cleaned)}."
    moved = {url: count for url, count in found.servers.items() if url != provider.base_url}
    for url, count in sorted(moved.items()):
        yield (
            f"{plural(count, 'row')} that are paid were answered by {url}, not by "
            f"{provider.base_url}: nothing is paid again because of that."
        )
    if held := found.rows.get(Need.HELD):
        yield f"{plural(held, 'row')} held: {target.command(f'ledger unknown {target.name}')}"


def _time(plan: _Plan) -> Text:
    dataset, found = plan.target.declared.dataset, plan.rows
    concurrency = at_once(plan.target.pipeline.provider, dataset.limits.concurrency)
    limits = dataset.limits.model_copy(update={"concurrency": concurrency})
    tier = free_tier(dataset.llm)
    lines = [
        (f"  {_length(one)}", one.why)
        for one in durations(found.run, limits, found.learnt, tier, plan.today)
    ]
    if not lines:
        return Text("  not known: no rate is declared, and this server has not answered yet")
    return aligned(lines)


def _length(duration: Duration) -> str:
    return plural(duration.days, "day") if duration.days else seconds(duration.seconds)


def _budgets(forecasts: Sequence[BudgetForecast]) -> Text:
    lines = []
    for one in forecasts:
        unit = one.standing.limit.unit
        expected, most = amount_of(unit, one.expected), amount_of(unit, one.most)
        needs = f"needs {expected}" + (f", at most {most}" if most != expected else "")
        left = f"{amount_of(unit, one.standing.left)} left"
        lines.append((f"  {described(one.standing.limit)}", left, needs, _verdict(one)))
    return aligned(lines)


def _verdict(forecast: BudgetForecast) -> str:
    if forecast.sure:
        return "enough"
    if forecast.stops_after is None:
        return "may stop it"
    if not forecast.stops_after:
        return f"will stop it before the first {forecast.counted}"
    return f"will stop it after about {plural(forecast.stops_after, forecast.counted)}"


def _next(console: Console, plan: _Plan) -> None:
    run = f"run {plan.target.called}"
    rejected = {one.partition for one in plan.status.partitions if one.too_many_rejected}
    if (
        rejected.issuperset((*plan.work.whole, *plan.work.reparse))
        and plan.work.partitions
        and not plan.rows.run.requests
    ):
        again = retry_of_rejected(plan.target, plan.status)
        said = "Nothing to ask, and too many rows are rejected. "
        if again is not None:
            console.print(Text.assemble((f"{said}Ask again for those: ", "bold"), again))
            return
        options = plan.choice.options
        said += "No retry asks for them: mend the rows or the declaration, and run it: "
    elif plan.work.partitions:
        said, options = "Nothing was asked. Run it: ", plan.choice.options
    elif plan.status.in_state(PartitionState.STALE):
        said, options = "Nothing to run but what is stale. Renew it: ", " --all"
    else:
        console.print(Text("Nothing to run: every partition is done.", style="bold"))
        return
    console.print(Text.assemble((said, "bold"), plan.target.command(f"{run}{options}")))

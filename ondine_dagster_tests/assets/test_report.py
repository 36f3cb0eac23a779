"""The report: its page is read as a browser reads it, its numbers are compared with the bill."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ondine_dagster.assets.reporting import charts as charts_module
from ondine_dagster.assets.reporting.charts import Chart, draw_charts, label_bars, quantile
from ondine_dagster.assets.reporting.report_data import FieldFigures, ReportData, collect
from ondine_dagster.assets.reporting.report_page import page
from ondine_dagster.assets.verdicts.check_results import latest_results
from ondine_dagster.ledger.totals import Spent, Unsettled
from ondine_dagster.ledger.usage import KeyUsage, Usage
from ondine_dagster.simulator import Simulator
from ondine_dagster_tests.workbench import RESULTS, Bench, MakeBench, numbered

SCRIPT = "<script>alert(1)</script>"
FIELDS = {
    "topic": {"type": "string"},
    "mood": {"type": "string", "enum": ["good", "bad"]},
    "score": {"type": "integer", "minimum": 0, "maximum": 10, "column": "stars"},
    "sure": {"type": "boolean", "required": False},
}
LABELS = [SCRIPT, "a | b", "c\nd", "$x$", "日本語"]


class Page(HTMLParser):
    """What is in a page: tables by id, pictures, and whatever could fetch or run something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.pictures: list[str] = []
        self.tags: Counter[str] = Counter()
        self.addresses: list[str] = []
        self._rows: list[list[str]] | None = None
        self._in_cell = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        given = dict(attrs)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag == "table":
            self._rows = self.tables.setdefault(str(given["id"]), [])
        elif tag == "tr" and self._rows is not None:
            self._rows.append([])
        self._in_cell = tag in ("td", "th")
        if self._in_cell and self._rows is not None:
            self._rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        if self._in_cell and self._rows is not None:
            self._rows[-1][-1] += data


def size(png: bytes) -> tuple[int, int]:
    """Return width and height of a picture."""
    assert png.startswith(b"\x89PNG\r\n")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def labelled(count: int) -> list[dict[str, str]]:
    rows = numbered(count)
    for n, row in enumerate(rows):
        row["text"] = f"[[token={LABELS[n % len(LABELS)]}]] row {n}"
    return rows


def metadata(bench: Bench) -> dict[str, Any]:
    event = bench.events("report")[-1].asset_materialization
    assert event is not None
    return {name: value.value for name, value in event.metadata.items()}


def data_of(bench: Bench) -> ReportData:
    with bench.ledger.database.read() as connection:
        return collect(bench.pipeline, bench.lake, bench.status(), connection)


def test_values_and_reasons_are_scrubbed_as_all_that_is_shown(make_bench: MakeBench) -> None:
    rows = [
        {"id": str(n), "text": f"[[token={who}@example.com]]"} for n, who in enumerate(["a", "b"])
    ]
    output = {"fields": {"mail": {"type": "string"}}}
    for privacy, expected in (
        ({}, {"[EMAIL]": 2}),
        ({"shown": False}, {"a@example.com": 1, "b@example.com": 1}),
    ):
        bench = make_bench(rows, output=output, privacy=privacy)
        bench.run_missing()
        (field,) = data_of(bench).fields
        assert field.values == expected


def test_numbers_are_those_of_the_bill_and_of_the_lake(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    rows = labelled(25)
    rows[3]["text"] = "[[fault=refusal]] row 3"
    bench = make_bench(rows, output={"fields": FIELDS}, limits={"max_rejected": 1})
    bench.snapshot()
    bench.run()
    bench.run("rows-00000")  # nothing is paid again: the report must not lose what was paid
    bench.report()
    totals, shown = simulator.bill.totals, metadata(bench)
    assert (shown["rows"], shown["results"], shown["rejected"]) == (25, 24, 1)
    assert shown["settled_usd"] == pytest.approx(totals.picodollars / 1e12)
    assert shown["tokens"] == totals.prompt_tokens + totals.completion_tokens
    assert shown["reused_share"] == 0.4  # 10 of 25

    path = Path(shown["report_file"])
    assert path == bench.lake.root / "notes" / "report" / "report.html"
    text = path.read_text(encoding="utf-8")
    seen = Page(text)
    assert seen.tags["script"] == 0
    assert all(one.startswith("data:image/png;base64,") for one in seen.addresses)
    assert len(seen.addresses) == 4
    paid = f"${totals.picodollars / 1e12:,.6f}"
    assert seen.tables["money"][1] == ["paid", f"{totals.requests:,}", paid]
    fields = {row[0]: row[1:] for row in seen.tables["fields"]}
    topics = Counter(row["topic"] for row in bench.rows(RESULTS))
    assert f"{SCRIPT}: {topics[SCRIPT]}" in fields["topic"][3]
    assert fields["topic"][2] == "5"
    moods = Counter(row["mood"] for row in bench.rows(RESULTS))
    assert all(f"{mood}: {count}" in fields["mood"][3] for mood, count in moods.items())
    assert seen.tables["rejected"][1][2] == "1"
    assert seen.tables["keys"][1][0] == "demo-model"
    assert seen.tables["keys"][1][4] == paid
    partitions = seen.tables["partitions"][1:]
    assert [row[0] for row in partitions] == bench.partitions()
    assert sum(int(row[7].replace(",", "")) for row in partitions) == shown["tokens"]


def test_charts_are_small_wide_and_the_same_each_time(make_bench: MakeBench) -> None:
    bench = make_bench(labelled(20), output={"fields": FIELDS})
    bench.snapshot()
    bench.run()
    bench.report()
    shown = metadata(bench)
    names = [name for name in shown if name.startswith("chart_")]
    assert names == ["chart_partitions", "chart_labels", "chart_requests", "chart_spend"]
    assert all(shown[name].startswith("![") for name in names)
    data = data_of(bench)
    drawn = draw_charts(data)
    for chart, again in zip(drawn, draw_charts(data), strict=True):
        assert chart.png == again.png, chart.name
        assert len(chart.png) <= charts_module.MOST_BYTES
        assert size(chart.png)[0] >= 700


def drawn(data: ReportData) -> tuple[list[Chart], Page]:
    """Draw and write everything: no matter what is missing or large, it must work."""
    made = draw_charts(data)
    for chart in made:
        assert len(chart.png) <= charts_module.MOST_BYTES, chart.name
    return made, Page(page(data, made))


def test_before_anything_has_run_the_report_says_so(make_bench: MakeBench) -> None:
    bench = make_bench(numbered(12))
    bench.snapshot()
    bench.report()
    shown = metadata(bench)
    assert (shown["rows"], shown["waiting"], shown["settled_usd"]) == (12, 12, 0)
    assert [name for name in shown if name.startswith("chart_")] == ["chart_partitions"]
    text = Path(shown["report_file"]).read_text(encoding="utf-8")
    assert "2 of 2 partitions have not run yet." in text


def test_where_all_rows_are_rejected_the_reasons_are_shown(make_bench: MakeBench) -> None:
    bench = make_bench(
        numbered(4, "[[fault=refusal]] row {n}"), output={"fields": FIELDS},
        limits={"max_rejected": 1, "pilot_rows": 0},
    )  # fmt: skip
    bench.snapshot()
    bench.run()
    made, seen = drawn(data_of(bench))
    assert [chart.name for chart in made] == ["partitions", "requests", "spend"]
    assert seen.tables["rejected"][1][2] == "4"
    assert seen.tables["fields"][1][2:] == ["", "0", ""]


def test_a_dataset_without_partitions_and_rows_that_fit_none_are_reported(
    make_bench: MakeBench,
) -> None:
    whole = make_bench(numbered(5), partitions="none")
    whole.snapshot()
    whole.run()
    made, seen = drawn(data_of(whole))
    assert [row[:4] for row in seen.tables["partitions"][1:]] == [["all", "done", "5", "5"]]
    assert made[0].name == "partitions"

    listed = {"values": {"column": "text", "listed": ["good"]}}
    bench = make_bench(
        [{"id": n, "text": text} for n, text in enumerate(["good", "bad", "good"])],
        name="listed", source={"path": "listed.csv", "key": "id"}, partitions=listed,
    )  # fmt: skip
    bench.snapshot()
    bench.report()
    assert metadata(bench)["unassigned_rows"] == 1
    text = Path(metadata(bench)["report_file"]).read_text(encoding="utf-8")
    assert "1 row of the source fits no partition" in text


def test_missing_values_huge_numbers_and_thousands_of_labels(make_bench: MakeBench) -> None:
    bench = make_bench(numbered(2))
    bench.snapshot()
    bench.run()
    data = data_of(bench)
    many = Counter({f"label {n} {SCRIPT} $ _^{{": 10 for n in range(10_000)})
    fields = [
        FieldFigures("many", "string", 100_000, 99_000, 10_000, many, None),
        FieldFigures("huge", "number", 3, 3, 3, None, (-1.7e308, 0.0, 1e300, 1.7e308)),
        FieldFigures("none", "string", 3, 0, 0, Counter(), None),
        FieldFigures("empty", "string", 3, 3, 1, Counter({"": 3}), None),
        FieldFigures("large", "integer", 2, 2, 1, Counter({str(2**63 - 1): 2}), (2.0**63,) * 4),
    ]
    partition = data.status.partitions[0]
    status = replace(
        data.status,
        unassigned=7,
        partitions=tuple(replace(partition, partition=f"p{n:06}") for n in range(3000)),
    )
    made, seen = drawn(
        replace(
            data,
            status=status,
            fields=fields,
            used={one.partition: Usage(10**9, 10**12, 10**18) for one in status.partitions},
            keys=[KeyUsage(f"m{n}\n{SCRIPT}", None, Usage(1, 1, 10**18)) for n in range(40)],
            latencies=Counter({0: 1, 10**9: 1}),
            money=Spent(10**18, 10**18, 10**9, 10**12),
            unsettled=Unsettled(1, 1, 1, 1),
        )
    )
    assert [chart.name for chart in made] == ["partitions", "labels", "requests", "spend"]
    assert seen.tags["script"] == 0
    assert len(seen.tables["partitions"]) == 101
    bars = label_bars(fields[0])
    assert bars[-2:] == [("(9,990 others)", 99_900), ("(no value)", 1000)]
    assert len(bars) == 12


def test_quantiles_count_every_request() -> None:
    took = Counter({10: 90, 100: 9, 1000: 1})
    assert [quantile(took, share) for share in (0.5, 0.9, 0.95, 0.99, 1.0)] == [
        10, 10, 100, 100, 1000,
    ]  # fmt: skip


def test_the_last_word_of_each_check_is_shown(make_bench: MakeBench) -> None:
    bench = make_bench(numbered(2))
    asset = bench.key(RESULTS)
    specs = [dg.AssetCheckSpec(name, asset=asset) for name in ("fine", "mood_filled", "never")]

    answers = iter((True, False))

    @dg.multi_asset_check(specs=specs[:2])
    def judge() -> Iterator[dg.AssetCheckResult]:
        yield dg.AssetCheckResult(check_name="fine", passed=True)
        yield dg.AssetCheckResult(
            check_name="mood_filled",
            passed=next(answers),
            severity=dg.AssetCheckSeverity.WARN,
            description=f"rows-00000: 40 % filled {SCRIPT}",
        )

    job = dg.Definitions(asset_checks=[judge]).resolve_implicit_global_asset_job_def()
    for _ in range(2):
        job.execute_in_process(instance=bench.instance)
    found = latest_results(bench.instance, specs)
    assert [(one.name, one.passed) for one in found] == [("fine", True), ("mood_filled", False)]
    bench.snapshot()
    _, seen = drawn(replace(data_of(bench), checks=found))
    assert seen.tables["checks"][1:] == [
        ["results", "mood_filled", "warn", f"rows-00000: 40 % filled {SCRIPT}"],
        ["results", "fine", "passed", ""],
    ]

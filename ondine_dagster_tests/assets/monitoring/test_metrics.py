"""What Prometheus gets: the file of the last run, and the page of the ledger, in its own format."""

from __future__ import annotations

import threading
from dataclasses import replace
from http.client import HTTPConnection
from typing import Any

import pytest
from click.testing import CliRunner
from doc_pages import ROOT
from prometheus_client.parser import text_string_to_metric_families

from ondine_dagster.cli.main import cli
from ondine_dagster.cli.metrics import make_server
from ondine_dagster.engine.latencies import Latencies
from ondine_dagster.errors import OndineError
from ondine_dagster.observe import metrics
from ondine_dagster.observe.metrics import Metric, Page, merged
from ondine_dagster.simulator import Simulator
from ondine_dagster_tests.workbench import MakeBench, numbered


def read(text: str) -> dict[tuple[str, ...], float]:
    """Return the samples of a page by name and label values, as Prometheus' own parser does."""
    families = list(text_string_to_metric_families(text))
    names = [one.name for one in families]
    assert len(set(names)) == len(names), "a metric is told of twice"
    assert all(one.type != "unknown" and one.documentation for one in families)
    samples = [sample for one in families for sample in one.samples]
    found = {(one.name, *one.labels.values()): one.value for one in samples}
    assert len(found) == len(samples)
    return found


def get(server: Any, path: str) -> tuple[int, str, str | None]:
    connection = HTTPConnection("127.0.0.1", server.server_address[1], timeout=30)
    connection.request("GET", path)
    reply = connection.getresponse()
    return reply.status, reply.read().decode(), reply.headers["Content-Type"]


def test_a_run_leaves_its_numbers_and_the_ledger_serves_all(
    make_bench: MakeBench, simulator: Simulator
) -> None:
    rows = numbered(8)
    rows[1]["text"] += " [[fault=429 times=1 retry_after=0]]"
    rows[2]["text"] = "[[fault=refusal]] row"
    simulator.settings = replace(simulator.settings, latency_ms=50)
    bench = make_bench(rows, partitions={"rows": 4})
    bench.snapshot()
    run = bench.run()
    bill = simulator.bill.totals
    usd = bill.picodollars / 10**12
    (path,) = (bench.data / "metrics").iterdir()
    assert path.name == "ondine_notes.prom"
    last = read(path.read_text())
    assert last["ondine_last_run_rows", "notes", "ok"] == 7
    assert last["ondine_last_run_rows", "notes", "rejected"] == 1
    assert last["ondine_last_run_partitions", "notes", "finished"] == 2
    assert last["ondine_last_run_requests", "notes"] == 9
    assert last["ondine_last_run_retries", "notes"] == 1
    assert last["ondine_last_run_success", "notes"] == 1
    assert last["ondine_last_run_cost_usd", "notes"] == pytest.approx(usd, rel=1e-9)
    assert last["ondine_dataset_cost_usd_total", "notes"] == pytest.approx(usd, rel=1e-9)
    assert last["ondine_dataset_requests_total", "notes"] == bill.charged == 8
    latency = "ondine_last_run_request_duration_seconds"
    assert last[f"{latency}_bucket", "notes", "+Inf"] == last[f"{latency}_count", "notes"] == 8
    assert last[f"{latency}_bucket", "notes", "0.04"] == 0  # the server takes 50 ms
    assert last[f"{latency}_bucket", "notes", "163.84"] == 8
    assert 0.4 <= last[f"{latency}_sum", "notes"] < 8 * 163
    assert run.run_id not in path.read_text()
    server = make_server(bench.pipeline.settings(), "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        status, text, kind = get(server, "/metrics")
        assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert get(server, "/other")[0] == 404
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    found = read(text)
    model = ("notes", "openai_compatible", "demo-model")
    assert found["ondine_requests_total", *model, "settled", "ok"] == 7
    assert found["ondine_requests_total", *model, "settled", "refused"] == 1
    assert found["ondine_requests_total", *model, "released", "rate_limited"] == 1
    assert found["ondine_cost_usd_total", *model] == pytest.approx(usd, rel=1e-9)
    assert found["ondine_tokens_total", *model, "prompt"] == bill.prompt_tokens
    latency = "ondine_request_duration_seconds"
    buckets = {key[-1]: count for key, count in found.items() if key[0] == f"{latency}_bucket"}
    assert len(buckets) == 17 and list(buckets.values()) == sorted(buckets.values())
    assert (buckets["0.04"], buckets["163.84"], buckets["+Inf"]) == (0, 8, 8)
    ((took,),) = bench.attempts("sum(t_end - t_open)", where="state = 'settled'")
    assert found[f"{latency}_sum", *model] == took / 1000
    assert found["ondine_traces_waiting",] == 0
    assert found.items() >= last.items()
    assert "r1" not in {value for key in found for value in key}  # row keys are no labels
    printed = CliRunner().invoke(cli, ["metrics"])
    assert printed.exit_code == 0, printed.output
    assert read(printed.stdout) == found
    # a run that fails says so
    bench.declare(bench.dataset.model_dump(exclude_unset=True) | {"limits": {"max_rejected": 0}})
    bench.run(raise_on_error=False)
    assert read(path.read_text())["ondine_last_run_success", "notes"] == 0


def test_numbers_that_cannot_be_left_fail_no_run(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(numbered(2))
    bench.snapshot()
    bench.data.mkdir(exist_ok=True)
    (bench.data / "metrics").write_text("a file in the place of the folder")
    run = bench.run()
    said = [one.user_message for one in bench.instance.all_logs(run.run_id)]
    assert [one for one in said if one.startswith("notes: no metrics of this run")]
    assert run.success


def test_a_port_that_is_taken_is_said(make_bench: MakeBench) -> None:
    settings = make_bench(numbered(1)).pipeline.settings()
    with (
        make_server(settings, "127.0.0.1", 0) as first,
        pytest.raises(OndineError, match="cannot be listened on: Address already in use"),
    ):
        make_server(settings, "127.0.0.1", first.server_address[1])


def test_without_a_ledger_there_are_no_numbers() -> None:
    assert CliRunner().invoke(cli, ["metrics"]).stdout == ""


def test_labels_are_escaped_and_pages_of_two_datasets_are_one() -> None:
    metric = Metric("ondine_x", "gauge", "Of a test.")
    first, second = Page(), Page()
    first.add(metric, 1, dataset='a"\\\n')
    second.add(metric, 2.5, dataset="b")
    text = merged([first.text(), second.text()])
    assert read(text) == {("ondine_x", 'a"\\\n'): 1, ("ondine_x", "b"): 2.5}


def test_a_histogram_counts_a_request_in_the_first_class_that_holds_it() -> None:
    latencies = Latencies()
    for ms in (0, 10, 11, 327_680, 327_681):
        latencies.add(ms)
    page = Page()
    page.histogram(metrics.LATENCY, latencies)
    found = {key[1:] or key: value for key, value in read(page.text()).items()}
    assert [found[one,] for one in ("0.01", "0.02", "163.84", "327.68", "+Inf")] == [2, 3, 3, 4, 5]
    assert found["ondine_request_duration_seconds_sum",] == 655.382


def test_every_metric_is_on_the_page() -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text()
    found = [one for one in vars(metrics).values() if isinstance(one, Metric)]
    assert len(found) > 10
    for metric in found:
        assert f"`{metric.name}`" in page

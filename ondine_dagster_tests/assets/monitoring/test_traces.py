"""Traces of whole runs: what arrives, where it is found, and that no host changes a result."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner, Result

from ondine_dagster.assets.automation.traces_sensor import traces_sensors
from ondine_dagster.assets.monitoring import traces
from ondine_dagster.assets.monitoring.traces import END_SECONDS, Tracing
from ondine_dagster.cli.main import cli
from ondine_dagster.errors import OndineError
from ondine_dagster.ledger.ledger import Ledger, close_ledger
from ondine_dagster.ledger.tracing import trace_id
from ondine_dagster.simulator import Simulator
from ondine_dagster.storage.lake import Lake
from ondine_dagster_tests.observe.pushing import destination, fill, states
from ondine_dagster_tests.observe.trace_host import Says, TraceHost
from ondine_dagster_tests.workbench import (
    PROMPTS,
    RESPONSES,
    RESULTS,
    Bench,
    MakeBench,
    declaration,
    numbered,
    write_rows,
)

_TEXT = "[[token=t{n}]] row {n}"
LINK = "http://traces.example.com/{trace_id}"
_OF_ONE_RUN = ("_latency_ms",)  # differs between any two runs


@pytest.fixture
def nowhere() -> Iterator[str]:
    """Return an address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{free.getsockname()[1]}"


def want_traces(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("ONDINE_TRACES", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    monkeypatch.setenv("ONDINE_TRACES_LINK", LINK)


@pytest.mark.behaviour("E-3")
def test_a_run_is_found_at_the_trace_host(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = numbered(24, _TEXT)
    for row in rows[::5]:
        row["text"] += " [[fault=429 times=1 retry_after=0]]"
    with TraceHost() as host:
        want_traces(monkeypatch, host.url)
        bench = make_bench(rows)
        bench.snapshot()
        run = bench.run()
    keys = bench.partitions()
    for key in keys:
        trace = trace_id(run.run_id, "notes", key).hex()
        (root,) = [one for one in host.roots if one.trace_id == trace]
        mine = [one for one in host.requests if one.trace_id == trace]
        assert {one.parent_id for one in mine} == {root.span_id}
        assert {one["session.id"] for one in (root, *mine)} == {run.run_id}
        for event in [one for one in bench.events(RESPONSES) if one.partition_key == key]:
            assert event.asset_materialization is not None
            shown = event.asset_materialization.metadata
            assert shown["trace_id"].value == trace
            assert shown["trace"].value == LINK.replace("{trace_id}", trace)
    # every request is there once, also those that were refused, with what was asked and answered
    assert sorted(one["ondine.attempt_id"] for one in host.requests) == sorted(
        row.id.hex() for row in bench.attempts("id")
    )
    assert len(host.requests) == 24 + 5
    refused = [one for one in host.requests if one.status]
    assert {one["error.type"] for one in refused} == {"rate_limited"}
    again = [one["ondine.attempt"] for one in host.requests if one["ondine.attempt"] > 1]
    assert len(again) == len(refused)
    answers = {row["_row_key"]: row["text"] for row in bench.rows(RESPONSES)}
    for one in host.requests:
        (sent,) = json.loads(one["gen_ai.input.messages"])
        number = one["ondine.row_key"].removeprefix("r")
        assert sent["parts"][0]["content"].startswith(_TEXT.replace("{n}", number))
        if not one.status:
            (came,) = json.loads(one["gen_ai.output.messages"])
            assert came["parts"][0]["content"] == answers[one["ondine.row_key"]] == f"t{number}"


@pytest.mark.behaviour("E-3b")
def test_results_are_the_same_with_no_trace_host_at_all_and_nothing_is_lost(
    tmp_path: Path,
    instance: dg.DagsterInstance,
    simulator: Simulator,
    monkeypatch: pytest.MonkeyPatch,
    nowhere: str,
) -> None:
    write_rows(tmp_path / "notes.csv", numbered(15))
    found = []
    for name in ("off", "down"):
        if name == "down":
            want_traces(monkeypatch, nowhere)
        monkeypatch.setenv("ONDINE_DATA_DIR", str(tmp_path / name))
        bench = Bench(declaration(simulator), tmp_path, tmp_path / name, instance)
        bench.snapshot()
        run = bench.run()
        found.append([_without_times(row) for row in bench.rows(RESULTS)])
        warnings = [
            entry.user_message
            for entry in instance.all_logs(run.run_id)
            if entry.level >= 30 and entry.user_message.startswith("Traces")
        ]
        assert len(warnings) == (name == "down")
    assert found[0] == found[1]
    assert len(found[0]) == 15
    assert "15 requests waiting to be sent; nothing is lost" in warnings[0]
    assert "ondine-dagster traces push" in warnings[0]
    with TraceHost() as host:
        want_traces(monkeypatch, host.url)
        sent = _cli("traces", "push")
        assert sent.exit_code == 0, sent.output
    assert "15 requests sent" in sent.output
    assert len(host.requests) == 15
    # the prompts are those of then: the same file, or the same answer key
    assert all("gen_ai.input.messages" in one.attributes for one in host.requests)
    close_ledger(tmp_path / "off" / "ledger.sqlite")
    close_ledger(tmp_path / "down" / "ledger.sqlite")


def _without_times(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in _OF_ONE_RUN}


def _cli(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


@pytest.mark.behaviour("E-3b")
def test_traces_that_cannot_be_sent_stop_a_run_before_it_asks_anything(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch, simulator: Simulator
) -> None:
    bench = make_bench(numbered(3))
    bench.snapshot()
    monkeypatch.setenv("ONDINE_TRACES", "langfuse")
    run = bench.run(raise_on_error=False)
    assert not run.success
    (failure,) = run.get_step_failure_events()
    own = failure.step_failure_data.user_failure_data
    assert own is not None
    assert "LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY must be set" in str(own.description)
    assert simulator.bill.totals.charged == 0


# without a run


@pytest.fixture
def ledger(data_dir: Path) -> Iterator[Ledger]:
    ledger = Ledger(data_dir / "ledger.sqlite")
    yield ledger
    ledger.close()


def test_the_sensor_sends_what_waits(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert traces_sensors(tmp_path) == []
    fill(ledger.database, 30)
    with TraceHost(Says(500), Says()) as host:
        want_traces(monkeypatch, host.url)
        (sensor,) = traces_sensors(tmp_path)
        assert traces_sensors(tmp_path) == [sensor], "all datasets bring the same one"
        said = [_tick(sensor) for _ in range(3)]
    assert "30 waiting" in said[0]
    assert "answers 500" in said[0]
    assert said[1:] == ["30 requests sent, 0 waiting.", "0 requests sent, 0 waiting."]
    assert len(host.requests) == 30


def _tick(sensor: dg.SensorDefinition) -> str:
    with dg.DagsterInstance.ephemeral() as instance:
        data = sensor.evaluate_tick(dg.build_sensor_context(instance))
    return str(data.skip_message)


def test_status_says_what_waits_and_what_stands_in_the_way(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, nowhere: str
) -> None:
    assert "ONDINE_TRACES is not set" in _cli("traces", "status").output
    assert _cli("traces", "push").exit_code == 1
    want_traces(monkeypatch, nowhere)
    fill(ledger.database, 7)
    failed = _cli("traces", "push")
    assert failed.exit_code == 1
    assert "7 requests still waiting" in failed.output
    said = _cli("traces", "status").output
    assert "waiting     7" in said
    assert "Connection refused" in said
    with TraceHost() as host:
        want_traces(monkeypatch, host.url)
        assert _cli("traces", "push").exit_code == 0
        assert _cli("traces", "push", "--since", "2h").exit_code == 0
        assert "No request waits to be sent" in _cli("traces", "push").output
        everything = _cli("traces", "push", "--all")
    assert "7 requests to send again" in everything.output
    assert "7 requests sent" in everything.output
    assert set(host.counts().values()) == {2}
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")  # it tells the rest all the same
    said = _cli("traces", "status").output
    assert "sent as http/protobuf only" in said
    assert "exported    7" in said
    assert "all was sent" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--since", "soon"], "--since soon is not an age"), (["--all", "--since", "2h"], "exclude")],
)
def test_a_mistake_is_told_in_a_sentence(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str, nowhere: str
) -> None:
    want_traces(monkeypatch, nowhere)
    refused = _cli("traces", "push", *arguments)
    assert refused.exit_code
    assert words in refused.output
    assert "Traceback" not in refused.output


def test_doctor_knows_where_traces_go(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    want_traces(monkeypatch, "http://collector.internal:4318")
    assert "warn  traces" in _cli("doctor").output
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT")
    refused = _cli("doctor")
    assert "FAIL  traces" in refused.output
    assert "OTEL_EXPORTER_OTLP_ENDPOINT is not set" in refused.output


def test_a_long_run_sends_while_it_goes_on_and_the_roots_at_its_end(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces, "_EVERY_SECONDS", 0.01)
    with TraceHost() as host:
        with Tracing(ledger.database, Lake(tmp_path), destination(host.url), print):
            for number in range(0, 30, 10):
                fill(ledger.database, 10, first=number)
                while states(ledger.database).get(0):
                    pass
            assert len(host.requests) == 30
            assert host.roots == []
        assert len(host.roots) == 1


def test_a_run_waits_for_a_host_no_longer_than_a_few_seconds(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces, "END_SECONDS", 0.3)
    fill(ledger.database, 10)
    said: list[str] = []
    with (
        TraceHost(Says(seconds=1.5)) as host,
        Tracing(ledger.database, Lake(tmp_path), destination(host.url), said.append),
    ):
        pass
    assert END_SECONDS <= 5
    (warning,) = said
    assert "no answer within" in warning
    assert states(ledger.database) == {0: 10}


def test_trouble_is_a_warning_and_a_bug_of_ours_is_not_hidden(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def fails(error: Exception) -> None:
        def push(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(traces, "push", push)
        with Tracing(ledger.database, Lake(tmp_path), destination(), said.append):
            pass

    fails(OndineError("The ledger is full."))
    assert said == [
        "Traces could not be sent: The ledger is full. Send them later: ondine-dagster traces push"
    ]
    with pytest.raises(TypeError, match="a bug"):
        fails(TypeError("a bug"))


def test_prompts_that_were_rendered_anew_are_not_shown_as_sent(make_bench: MakeBench) -> None:
    """The row's prompt in the lake is another by now; what was sent is not known any more."""
    bench = make_bench(numbered(3))
    bench.snapshot()
    bench.run(assets=("raw_rows", PROMPTS))
    (partition,) = bench.partitions()
    rows = {row["_row_key"]: row for row in bench.rows(PROMPTS)}
    written = bench.lake.path("notes", PROMPTS, partition).stat().st_mtime_ns // 1_000_000
    wanted = {
        "r0": (rows["r0"]["answer_key"], written - 1000),  # the same question
        "r1": (b"another", written - 1000),
        "r2": (b"of the fallback", written + 1000),  # asked after the file was written
    }
    find = traces._messages_in(bench.lake)
    assert set(find("notes", partition, wanted)) == {"r0", "r2"}
    assert find("notes", "no such partition", wanted) == {}

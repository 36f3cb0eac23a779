"""The server around the answers: its URLs, keys, latency, and its life in thread and foreground."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from ondine_dagster.simulator import Simulator
from ondine_dagster_tests.simulator.clients import ask, body

ROOT = Path(__file__).parents[2]


def test_models_lists_the_model_and_any_model_is_accepted(
    simulator_factory: Callable[..., Simulator],
) -> None:
    simulator = simulator_factory(model="small-model")
    models = httpx.get(f"{simulator.base_url}/models").json()
    assert [entry["id"] for entry in models["data"]] == ["small-model"]
    assert ask(simulator, "hello", model="quite-another").json()["model"] == "quite-another"


def test_a_required_key_is_required(simulator_factory: Callable[..., Simulator]) -> None:
    simulator = simulator_factory(api_key="k-1")
    url = f"{simulator.base_url}/chat/completions"
    wrong = httpx.post(url, json=body("hello"), headers={"authorization": "Bearer k-2"})
    right = httpx.post(url, json=body("hello"), headers={"authorization": "Bearer k-1"})
    assert (wrong.status_code, right.status_code) == (401, 200)
    assert ask(simulator, "without a key").status_code == 401
    assert httpx.get(f"{simulator.base_url}/models").status_code == 401
    totals = simulator.bill.totals
    assert (totals.requests, totals.charged, totals.refused) == (3, 1, 2)


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"[]",
        b'{"messages": [{"role": "user", "content": "hello"}]}',
        b'{"model": "m"}',
        b'{"model": "m", "messages": []}',
        b'{"model": "m", "messages": ["hello"]}',
        b'{"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 0}',
    ],
)
def test_a_request_that_is_none_is_refused_with_400(simulator: Simulator, data: bytes) -> None:
    response = httpx.post(f"{simulator.base_url}/chat/completions", content=data)
    assert response.status_code == 400
    assert response.json()["error"]["message"]
    assert simulator.bill.totals.refused == 1


def test_unknown_urls_and_methods_are_refused_in_json(simulator: Simulator) -> None:
    assert httpx.get(f"{simulator.url}/v2/other").json()["error"]["message"]
    assert httpx.get(f"{simulator.base_url}/chat/completions").status_code == 404
    assert simulator.bill.totals.requests == 0


def test_a_reply_takes_the_latency_and_a_jitter_by_prompt(
    simulator_factory: Callable[..., Simulator],
) -> None:
    simulator = simulator_factory(latency_ms=40, jitter_ms=20)
    settings = simulator.settings
    delays = [settings.delay_seconds(f"{n:064x}", 1) for n in range(50)]
    assert min(delays) >= 0.04
    assert max(delays) < 0.06
    assert len(set(delays)) == 50
    assert delays == [settings.delay_seconds(f"{n:064x}", 1) for n in range(50)]
    started = time.monotonic()
    ask(simulator, "hello")
    assert time.monotonic() - started >= 0.04


def test_two_simulators_run_side_by_side(simulator_factory: Callable[..., Simulator]) -> None:
    one, other = simulator_factory(), simulator_factory()
    ask(one, "hello")
    assert one.base_url != other.base_url
    assert (one.bill.totals.requests, other.bill.totals.requests) == (1, 0)


def test_a_stopped_simulator_listens_no_more() -> None:
    with Simulator() as simulator:
        url = simulator.url
        assert httpx.get(f"{url}/health").json() == {"status": "ok"}
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health")


def test_a_taken_port_is_refused_with_what_to_do(simulator: Simulator) -> None:
    port = int(simulator.url.rsplit(":", 1)[1])
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}.*another port"):
        Simulator(port=port).__enter__()


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_the_foreground_server_says_its_url_and_ends_cleanly(kind: signal.Signals) -> None:
    code = "from ondine_dagster.simulator import serve; print(serve(port=0).totals.answered)"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        url = line.split()[1]
        assert httpx.post(f"{url}/chat/completions", json=body("hello")).status_code == 200
        process.send_signal(kind)
        out, err = process.communicate(timeout=30)
    assert line.startswith("simulator: http://127.0.0.1:")
    assert (process.returncode, out, err) == (0, "1\n", "")

"""The manifest of a run says what has to be known to explain it later, also where it failed."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from decimal import Decimal
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from ondine_dagster.ledger.identity import digest
from ondine_dagster_tests.workbench import REJECTED, RESULTS, Bench, MakeBench, numbered


def manifest(bench: Bench, run_id: str) -> dict[str, Any]:
    path = bench.data / "manifests" / f"{run_id}.json"
    content: dict[str, Any] = json.loads(path.read_text())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return content


def test_versions_declaration_prices_counts_and_money(
    make_bench: MakeBench, charged: Callable[[], int], tmp_path: Path
) -> None:
    (tmp_path / "prompt.txt").write_text("Label: {{ text }}")
    bench = make_bench(
        numbered(11) + numbered(1, "[[fault=refusal]] row {n}", first=11),
        prompt={"template_file": "prompt.txt"},
    )
    bench.snapshot()
    ran = bench.run(tags={"ondine/call": "the whole", "mine": "not told"})
    told = manifest(bench, ran.run_id)
    assert told["run"]["id"] == ran.run_id and told["run"]["outcome"] == "success"
    assert told["versions"]["dagster"] == version("dagster")
    declared = told["declaration"]
    assert declared["content"]["llm"]["name"] == "demo-model"
    assert declared["sha256"] == digest(declared["content"]).hex()
    assert declared["prompt"]["template"] == "Label: {{ text }}"  # of the file as it was
    assert declared["question_version"] == bench.pipeline.question_version
    assert told["models"]["llm"]["price_version"] == bench.pipeline.provider.price_version
    llm = told["models"]["llm"]
    assert llm["sampling"] == bench.dataset.llm.sampling
    prices = {name: Decimal(price) for name, price in llm["prices_usd"].items()}
    assert prices == {
        "request": 0,
        "million_input_tokens": Decimal("0.15"),
        "million_cached_input_tokens": Decimal("0.15"),
        "million_cache_write_tokens": Decimal("0.15"),
        "million_output_tokens": Decimal("0.6"),
    }
    source = told["snapshot"]
    assert source["version"] == bench.pipeline.snapshot(bench.lake).version
    file = tmp_path / "notes.csv"
    assert (source["source"], source["rows"]) == (str(file), 12)
    assert source["sha256"] == {"notes.csv": sha256(file.read_bytes()).hexdigest()}
    tags = told["run"]["tags"]
    assert tags["ondine/call"] == "the whole" and "dagster/asset_partition_range_end" in tags
    assert told["counts"] == {
        "rows": 12,
        "results": 11,
        "skipped": 0,
        "rejected": 1,
        "waiting": 0,
        "reused": 0,
        "partitions": 2,
        "red": 0,
    }
    assert told["partitions"]["rows-00001"]["codes"] == {"refused": 1}
    assert charged() == 12
    good, refused = told["requests"]["by_state"]
    assert (good["error"], good["requests"]) == (None, 11)
    assert (refused["error"], refused["requests"]) == ("refused", 1)
    assert (
        good.items() >= {"state": "settled", "kind": "first", "model_served": "demo-model"}.items()
    )
    [(cost,)] = bench.attempts("sum(cost)")
    assert sum(Decimal(one["cost_usd"]) for one in (good, refused)) * 10**12 == cost > 0

    event = bench.events("responses")[-1].asset_materialization
    assert event is not None
    assert event.metadata["manifest"].value == str(bench.data / "manifests" / f"{ran.run_id}.json")

    file.write_text(file.read_text().replace("\r\n", "\n"))  # the same rows, written otherwise
    bench.snapshot()
    # answers that are read again have one as well, and it counts no requests
    again = bench.run(assets=(RESULTS, REJECTED))
    told = manifest(bench, again.run_id)
    assert told["run"]["assets"] == [RESULTS, REJECTED] and told["requests"] == {}
    assert told["counts"]["results"] == 11
    assert told["snapshot"]["sha256"] == {"notes.csv": sha256(file.read_bytes()).hexdigest()}
    assert told["snapshot"]["version"] == source["version"]
    assert told["snapshot"]["sha256"] != source["sha256"]


def test_a_run_that_stops_says_why_and_a_full_disk_stops_none(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = tmp_path / "reader_of_manifest.py"
    code.write_text("def read(answer):\n    return answer\n")
    bench = make_bench(
        numbered(4),
        limits={"budgets": [{"requests": 2, "per": "total"}]},
        output={"function": "reader_of_manifest:read"},
    )
    bench.snapshot()
    told = manifest(bench, bench.run(raise_on_error=False).run_id)
    assert told["run"]["outcome"] == "failure" and told["run"]["stopped"] == "budget_used_up"
    assert (told["counts"]["waiting"], told["counts"]["red"]) == (2, 1)
    assert told["declaration"]["code_sha256"] == sha256(code.read_bytes()).hexdigest()

    def full(path: Path, content: bytes) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ondine_dagster.assets.audit.manifest.write_atomically", full)
    rich = make_bench(numbered(2), name="rich")
    rich.snapshot()
    assert rich.run().success

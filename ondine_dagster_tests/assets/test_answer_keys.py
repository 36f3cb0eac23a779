"""Answer keys under the secret of a ledger: whatever becomes of the encryption, nothing is paid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ondine_dagster.assets.audit.explain import explain_row
from ondine_dagster.assets.audit.replay import MODE_TAG
from ondine_dagster.assets.planning.plan import plan_rows
from ondine_dagster.assets.rows.outlook import Need
from ondine_dagster.assets.shared.partition_counts import TRIO
from ondine_dagster.errors import OndineError
from ondine_dagster.ledger.coverage import reading
from ondine_dagster.ledger.identity import answer_key, text_digest
from ondine_dagster.ledger.key_secret import KEYS_NOTE, key_secret
from ondine_dagster.ledger.ledger import Ledger, close_ledger
from ondine_dagster.ledger.rekey import rekey
from ondine_dagster.settings import ENCRYPTION_KEY, OLD_ENCRYPTION_KEY
from ondine_dagster.storage.keyed_files import key_files
from ondine_dagster.storage.rekeyed_files import rekey_files
from ondine_dagster_tests.workbench import Bench, MakeBench, numbered

FIRST, SECOND, THIRD = "the first key of all", "another key than that", "and a third one now"
SetKeys = Callable[..., None]


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> SetKeys:
    """Set the key and the old one, as before a new process: the ledger is closed."""

    def put(current: str | None, old: str | None = None) -> None:
        close_ledger(data_dir / "ledger.sqlite")
        for name, value in ((ENCRYPTION_KEY, current), (OLD_ENCRYPTION_KEY, old)):
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)

    return put


def secret_of(bench: Bench) -> bytes | None:
    with reading(bench.data / "ledger.sqlite") as connection:
        assert connection is not None
        return key_secret(connection)


def rekeyed(bench: Bench, **options: bool) -> None:
    """Rekey ledger and lake, as the command does."""
    close_ledger(bench.data / "ledger.sqlite")
    ledger = Ledger(bench.data / "ledger.sqlite", any_key=True)
    rekey(ledger, **options)
    ledger.close()
    secret = secret_of(bench)
    if secret is not None:
        key_files(bench.lake.root, secret)
    rekey_files(bench.lake.root)


def plain_hashes(bench: Bench) -> set[bytes]:
    """Return what gives away to who guesses a prompt that it was asked."""
    pipeline = bench.pipeline
    messages = [text_digest(row["messages"]) for row in bench.rows("prompts")]
    more = pipeline.model_digest, pipeline.sampling_digest, pipeline.schema_digest
    hashes = {answer_key(one, *more, number) for one in messages for number in range(2)}
    return {*messages, *hashes}


def with_a_hash(bench: Bench, hashes: set[bytes]) -> set[str]:
    """Return the folders in whose files one of these stands."""
    close_ledger(bench.data / "ledger.sqlite")
    found = set()
    for path in (one for one in bench.data.rglob("*") if one.is_file()):
        content = path.read_bytes()
        if path.suffix == ".parquet":
            cells = [list(row.values()) for row in pq.read_table(path).to_pylist()]
            content += repr(cells).encode() + b"".join(_bytes_in(cells))
        if any(one in content or one.hex().encode() in content for one in hashes):
            found.add(path.parent.name)
    return found


def _bytes_in(cells: Any) -> list[bytes]:
    if isinstance(cells, bytes):
        return [cells]
    if isinstance(cells, dict):
        cells = list(cells.values())
    return [one for cell in cells for one in _bytes_in(cell)] if isinstance(cells, list) else []


def test_encryption_on_rotated_off_and_its_key_lost_pay_nothing_again(
    make_bench: MakeBench, charged: Callable[[], int], keys: SetKeys
) -> None:
    bench = make_bench(numbered(3), samples=2)
    bench.snapshot()
    assert bench.run().success
    assert charged() == 6
    tables = {asset: bench.rows(asset) for asset in ("results", "rejected_rows")}
    hashes = plain_hashes(bench)
    assert with_a_hash(bench, hashes) == {"data", "prompts", "responses", "results"}

    def paid_again() -> int:
        """Render and ask all anew, and plan it."""
        assert bench.run().success
        lake, snapshot, all_keys = (
            bench.lake,
            bench.pipeline.snapshot(bench.lake),
            bench.partitions(),
        )
        with reading(bench.ledger.path) as connection:
            plan = plan_rows(bench.pipeline, lake, (lake, snapshot), all_keys, all_keys, connection)
        assert plan.rows == {Need.PAID: 3}
        return charged()

    keys(FIRST)
    assert paid_again() == 0
    assert secret_of(bench) is None, "what is there has plain keys until it is brought over"
    rekeyed(bench)
    secret = secret_of(bench)
    assert secret is not None
    assert with_a_hash(bench, hashes) == set()
    assert bench.run(assets=TRIO).success, "with prompts as they were brought over"
    assert bench.run(assets=TRIO, tags={MODE_TAG: "replay"}).success
    assert paid_again() == 0
    assert with_a_hash(bench, hashes) == set()
    lines = {row["_row_key"]: row["_answer_key"] for row in bench.rows("results")}
    before = {row["_row_key"]: row["_answer_key"] for row in tables["results"]}
    assert set(lines.values()).isdisjoint(before.values())

    keys(SECOND, FIRST)
    rekeyed(bench)
    keys(SECOND)
    assert paid_again() == 0
    story = explain_row(bench.pipeline, bench.lake, bench.ledger.path, "r1")
    assert [one.question for one in story.requests] == ["sample 1", "sample 2"]

    keys(None, SECOND)
    rekeyed(bench, off=True)
    keys(None)
    assert paid_again() == 0
    assert secret_of(bench) == secret, "it stays"

    keys(FIRST)
    rekeyed(bench)
    keys(THIRD)
    rekeyed(bench, lost=True)
    assert not bench.run(raise_on_error=False).success
    assert charged() == 0
    keys(THIRD, FIRST)
    rekeyed(bench)
    keys(THIRD)
    assert paid_again() == 0
    assert bench.contradictions() == []


@pytest.mark.slow
def test_a_new_ledger_under_a_key_has_no_plain_hash_from_the_first_answer_on(
    make_bench: MakeBench, charged: Callable[[], int], keys: SetKeys, simulator: Any
) -> None:
    """Also with a fallback and a retry, which make keys of their own."""
    keys(FIRST)
    llm = {
        "provider": "openai_compatible",
        "name": "demo-model",
        "base_url": simulator.base_url,
        "prices": {"input_per_million_usd": "0.15", "output_per_million_usd": "0.60"},
    }
    rows = [*numbered(2), {"id": "no", "text": "[[fault=refusal times=1]][[token=late]]"}]
    bench = make_bench(rows, llm={**llm, "fallback": {**llm, "name": "larger-model"}})
    bench.snapshot()
    assert bench.run().success
    paid = charged()
    assert bench.run().success
    assert charged() == 0
    bench.retry(raise_on_error=False)
    paid += charged()
    assert bench.run().success
    assert charged() == 0
    assert with_a_hash(bench, plain_hashes(bench)) == set()
    for asset in ("prompts", *TRIO):
        assert KEYS_NOTE in bench.lake.metadata("notes", asset, bench.partitions()[0])


def test_prompts_with_other_keys_are_refused_before_anything_is_sent(
    make_bench: MakeBench, charged: Callable[[], int], keys: SetKeys
) -> None:
    """As where the ledger was brought over and the lake not, as the command was cut short."""
    bench = make_bench(numbered(2))
    bench.snapshot()
    assert bench.run().success
    assert charged() == 2
    keys(FIRST)
    ledger = Ledger(bench.data / "ledger.sqlite", any_key=True)
    rekey(ledger)
    ledger.close()
    refused = bench.run(assets=TRIO, raise_on_error=False)
    (failure,) = [event for event in refused.all_events if event.is_step_failure]
    assert "`ondine-dagster rekey`" in str(failure.event_specific_data)
    assert bench.run().success
    assert charged() == 0


def test_a_ledger_with_two_kinds_of_keys_is_refused_until_it_is_brought_over(
    make_bench: MakeBench,
    charged: Callable[[], int],
    keys: SetKeys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Cut short after any step, it goes on where it was: no key is brought over twice."""
    from ondine_dagster.ledger import key_secret as bringing

    bench = make_bench(numbered(3))
    bench.snapshot()
    assert bench.run().success
    charged()
    keys(FIRST)
    step, steps = bringing._step, 0

    def cut_short(connection: Any, most: int) -> bool:
        nonlocal steps
        steps += 1
        if steps % 2 == 0:
            raise KeyboardInterrupt
        return step(connection, 2)

    monkeypatch.setattr(bringing, "_step", cut_short)
    path = bench.data / "ledger.sqlite"
    for _ in range(5):
        ledger = Ledger(path, any_key=True)
        with pytest.raises(KeyboardInterrupt):
            rekey(ledger)
        ledger.close()
        with reading(path) as connection, pytest.raises(OndineError, match="has not ended"):
            assert connection is not None
            key_secret(connection)
    assert not bench.run(raise_on_error=False).success
    close_ledger(path)
    monkeypatch.setattr(bringing, "_step", step)
    rekeyed(bench)
    assert bench.run().success
    assert charged() == 0
    assert bench.contradictions() == []

"""`privacy:` in runs: what leaves, what comes back, what is kept, what is shown.

The server repeats what it is asked, so that whatever it was sent would come back and be kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from dagster._serdes import serialize_value

import ondine_dagster.assets.shared.pipeline as pipeline_module
from ondine_dagster import patterns
from ondine_dagster.assets.audit.explain import explain_row
from ondine_dagster.assets.audit.replay import MODE_TAG
from ondine_dagster.assets.audit.verify import read_drift
from ondine_dagster.assets.rows import redaction
from ondine_dagster.assets.rows.redaction import at_rest
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.ledger.ledger import close_ledger
from ondine_dagster.patterns import OwnPattern, PatternTooSlow
from ondine_dagster.privacy.detectors import VERSION
from ondine_dagster.spec import Dataset
from ondine_dagster_tests.assets.monitoring.test_traces import want_traces
from ondine_dagster_tests.end_to_end.test_canary_key import everything_kept
from ondine_dagster_tests.engine.raw_server import Peer, RawServer, reply
from ondine_dagster_tests.llm.contract.providers import PRICES
from ondine_dagster_tests.observe.trace_host import TraceHost
from ondine_dagster_tests.spec.declarations import attributes
from ondine_dagster_tests.workbench import (
    PROMPTS,
    REJECTED,
    RESPONSES,
    RESULTS,
    Bench,
    MakeBench,
    write_rows,
)

CANARIES = {
    "mail": "canary.jane@example.org",
    "phone": "+49 171 5550142",
    "card": "4012 8888 8888 1881",
    "iban": "GB29NWBK60161331926819",
    "ssn": "219-09-9999",
    "ip": "203.0.113.77",
    "customer": "KD-774411",
}
SENTENCE = "; ".join(CANARIES.values())
PATTERNS = {"customer": "KD-[0-9]{6}"}


class Echo:
    """Answers each question with its last message, as text or in the field `said`."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.received = b""
        self.refuses: str | None = None  # all but this model refuse what says so

    def __call__(self, peer: Peer) -> None:
        while True:
            request = peer.request()
            self.received += request
            document = json.loads(request.partition(b"\r\n\r\n")[2])
            text = document["messages"][-1]["content"]
            self.asked.append(text)
            answer = json.dumps({"said": text}) if "response_format" in document else text
            message = {"content": answer}
            if self.refuses not in (None, document["model"]) and "REFUSE" in text:
                message = {"content": None, "refusal": "no"}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            usage = {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}
            body = {"model": document["model"], "choices": [choice], "usage": usage}
            peer.send(reply(json.dumps(body).encode(), "Content-Type: application/json"))


@pytest.fixture
def echo() -> Iterator[tuple[Echo, str]]:
    server = Echo()
    with RawServer(server) as listening:
        yield server, f"http://{listening.address}/v1"


def asking(url: str, **sections: Any) -> dict[str, Any]:
    llm = {
        "provider": "openai_compatible",
        "name": "demo-model",
        "base_url": url,
        "prices": PRICES,
    }
    return {"llm": llm, "limits": {"preflight": False}, **sections}


def said(bench: Bench) -> list[tuple[str, str]]:
    return [(row["text"], row["response"]) for row in bench.rows(RESULTS)]


def test_the_provider_sees_placeholders_and_the_row_gets_its_values_back(
    make_bench: MakeBench, echo: tuple[Echo, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, url = echo
    texts = ["Write to ana@example.com.", "Write to bob@example.org.", "Nothing here."]
    rows = [{"id": f"r{n}", "text": text} for n, text in enumerate(texts)]
    bench = make_bench(rows, **asking(url, privacy={"prompt": "placeholders"}))
    bench.run_missing()
    assert said(bench) == [(text, text) for text in texts]
    # two rows that differ only in an address are one question: it is asked and paid once
    assert sorted(server.asked) == ["Nothing here.", "Write to [EMAIL_1]."]
    assert [row["text"] for row in bench.rows(RESPONSES)] == [
        "Write to [EMAIL_1].",
        "Write to [EMAIL_1].",
        "Nothing here.",
    ]
    assert b"@example" not in server.received

    # parsed again, and asked about anew in another order: all is paid already
    bench.declare({**bench.dataset.model_dump(exclude_defaults=True), "output": {"column": "said"}})
    bench.run(assets=(RESULTS, REJECTED))
    assert [row["said"] for row in bench.rows(RESULTS)] == texts
    write_rows(bench.folder / "notes.csv", [{"new": "x", **row} for row in reversed(rows)])
    bench.run_missing()
    assert [row["said"] for row in bench.rows(RESULTS)] == texts[::-1]
    bench.run(tags={MODE_TAG: "replay"})
    assert [row["said"] for row in bench.rows(RESULTS)] == texts[::-1]
    assert len(server.asked) == 2

    # detectors of a later version may number other values: none is put in another's place
    monkeypatch.setattr(redaction, "VERSION", VERSION + 1)
    monkeypatch.setattr(pipeline_module, "DETECTORS_VERSION", VERSION + 1)
    bench.declare(
        {**bench.dataset.model_dump(exclude_defaults=True), "output": {"column": "again"}}
    )
    with pytest.raises(dg.Failure, match="Materialize `prompts` and `responses` too"):
        bench.run(assets=(RESULTS, REJECTED))
    bench.run()
    assert [row["again"] for row in bench.rows(RESULTS)] == texts[::-1]
    assert len(server.asked) == 2


def test_values_come_back_by_the_rules_under_which_was_asked(
    make_bench: MakeBench, echo: tuple[Echo, str]
) -> None:
    """A declaration that looks for something else today has other numbers: they must not mix."""
    _, url = echo
    text = "KD-774411 is ana@example.com, not bob@example.org."
    privacy = {"prompt": "placeholders", "patterns": {"email_of": "ana@[a-z.]+"}}
    bench = make_bench([{"id": "r", "text": text}], **asking(url, privacy=privacy))
    bench.run_missing()
    declared = bench.dataset.model_dump(exclude_defaults=True)
    bench.declare({**declared, "privacy": {"prompt": "placeholders"}, "output": {"column": "said"}})
    bench.run(assets=(RESULTS, REJECTED))
    assert [row["said"] for row in bench.rows(RESULTS)] == [text]


def test_a_form_that_a_field_must_have_is_that_of_the_value(
    make_bench: MakeBench, echo: tuple[Echo, str]
) -> None:
    """Neither the pilot nor another asking takes a placeholder for a wrong answer."""
    server, url = echo
    rows = [{"id": f"r{n}", "text": f"{n}a@example.com" if n else "no address"} for n in range(3)]
    field = {"type": "string", "accept": {"pattern": r"\S+@\S+\.com"}}
    output = {"fields": {"said": field}, "reask": 1}
    sections = asking(url, output=output, privacy={"prompt": "placeholders"})
    sections["limits"] |= {"max_rejected": 1}
    bench = make_bench(rows, **sections)
    bench.run_missing()
    assert [row["said"] for row in bench.rows(RESULTS)] == ["1a@example.com", "2a@example.com"]
    assert [row["id"] for row in bench.rows(REJECTED)] == ["r0"]
    assert server.asked.count("[EMAIL_1]") == 1
    before = len(server.asked)
    bench.retry()
    assert "[EMAIL_1]" not in server.asked[before:], "only the row without an address goes again"


@pytest.mark.parametrize("format", ["json", "csv"])
def test_packs_carry_placeholders_too(make_bench: MakeBench, format: str) -> None:
    rows = [{"id": f"r{n}", "text": f"Fine, says {n}@example.com."} for n in range(6)]
    output = {"fields": {"summary": {"type": "string"}}}
    bench = make_bench(
        rows,
        output=output,
        batching={"rows_per_request": 3, "format": format},
        privacy={"prompt": "placeholders"},
        prompt={"template": "Write to help@example.com. {{ text }}"},
    )
    bench.run_missing()
    prompts = [json.loads(row["messages"])[-1]["content"] for row in bench.rows(PROMPTS)]
    assert set(prompts) == {"Write to help@example.com. Fine, says [EMAIL_1]."}
    said = [row["summary"] for row in bench.rows(RESULTS)]
    assert len(said) == 6
    for row, text in zip(rows, said, strict=True):
        address = row["text"].rsplit(" ", 1)[1].rstrip(".")
        assert address in text or "help@example.com" in text
        assert "[EMAIL" not in text


def test_samples_and_a_fallback_get_the_values_of_their_row_back(
    make_bench: MakeBench, echo: tuple[Echo, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also from an encrypted ledger, in a replay, and where `verify` compares."""
    monkeypatch.setenv("ONDINE_ENCRYPTION_KEY", "a key for these tests")
    server, url = echo
    server.refuses = "big-model"
    texts = ["Write to ana@example.com, not bob@example.org.", "REFUSE me@example.net."]
    sections = asking(url, samples=2, privacy={"prompt": "placeholders"})
    sections["llm"] |= {"temperature": 1, "fallback": {"name": "big-model", "prices": PRICES}}
    sections["limits"] |= {"max_rejected": 1}
    bench = make_bench([{"id": f"r{n}", "text": text} for n, text in enumerate(texts)], **sections)
    bench.run_missing()
    assert said(bench) == [(texts[0], texts[0])]
    bench.retry(classes="refused")
    expected = [(text, text) for text in texts]
    assert said(bench) == expected and "big-model" in str(bench.rows(RESPONSES)[1])
    assert b"@example" not in server.received
    assert b"EMAIL_1" not in (bench.data / "ledger.sqlite").read_bytes()

    paid = len(server.asked)
    bench.run(tags={MODE_TAG: "replay"})
    assert said(bench) == expected and len(server.asked) == paid
    bench.run(assets=(RESPONSES, RESULTS, REJECTED), tags={MODE_TAG: "verify"})
    found = read_drift(bench.lake, "notes")
    assert found is not None and found.rows == {"match": 1, "mismatch": 0, "indeterminate": 0}
    assert len(server.asked) == paid + 1 and b"@example" not in server.received
    assert said(bench) == expected


def test_what_comes_about_between_cells_is_removed_and_cut_off_values_are_too(
    make_bench: MakeBench, echo: tuple[Echo, str]
) -> None:
    server, url = echo
    rows = [{"id": "a", "text": "jane.doe", "long": "x ana@example.com"}]
    prompt = {
        "template": "{{ text }}@example.org {{ long | upper | truncate(12, True) }} {{ long }}",
        "clean": {"long": {"truncate_tokens": 6}},
    }
    sections = asking(url, prompt=prompt, privacy={"prompt": "placeholders"})
    make_bench(rows, **sections).run_missing()
    (asked,) = server.asked
    assert asked.startswith("[EMAIL] X [EMAIL_1]")
    assert "ana" not in asked.lower()


@pytest.mark.parametrize("how", ["placeholders", "remove"])
def test_personal_data_is_nowhere_but_in_the_source(
    how: str,
    make_bench: MakeBench,
    echo: tuple[Echo, str],
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """At rest too: in the ledger, the lake, events, logs, output, and in what left the process."""
    server, url = echo
    rows = [{"id": "r1", "text": SENTENCE, **CANARIES}, {"id": "r2", "text": "bad", **CANARIES}]
    field = {"type": "string", "accept": {"pattern": r".*;.*"}}
    sections = asking(
        url,
        prompt={"system": "Be brief.", "template": "{{ text }} {{ mail if id == 'r2' }}"},
        output={"fields": {"said": field}},
        checks={"fields": {"said": {"allowed": ["nothing"]}}},
        privacy={"prompt": how, "patterns": PATTERNS, "at_rest": True},
    )
    sections["limits"] |= {"max_rejected": 0}
    with TraceHost() as host:
        want_traces(monkeypatch, host.url)
        bench = make_bench(rows, **sections)
        bench.snapshot()
        run = bench.run(raise_on_error=False)
        bench.report()
    assert len(server.asked) == len(host.requests) == 2
    assert len(bench.rows(RESULTS)) == len(bench.rows(REJECTED)) == 1
    close_ledger(bench.data / "ledger.sqlite")
    told = [serialize_value(entry) for entry in instance.all_logs(run.run_id)]
    told += [record.getMessage() for record in caplog.records]
    told += capfd.readouterr()
    kept = [
        *everything_kept(bench.data),
        ("events, logs, output", " ".join(told).encode()),
        ("sent", server.received),
        ("traces", repr(host.spans).encode()),
    ]
    source = ("/snapshot/", "/raw_rows/")
    places = [(where, content) for where, content in kept if not any(s in where for s in source)]
    assert len(places) > 8
    for canary in (*CANARIES.values(), "canary.jane", "5550142"):
        for where, content in places:
            at = content.find(canary.encode())
            assert at < 0, f"{where}: {content[max(0, at - 200) : at + 100]!r}"
    assert any(SENTENCE.encode() in content for where, content in kept if source[1] in where)


@pytest.mark.behaviour("E-3")
def test_traces_are_scrubbed_as_the_dataset_declares_it_also_by_a_later_push(
    make_bench: MakeBench, echo: tuple[Echo, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a dataset declares is known to whoever sends its traces: its prompts note it."""
    server, url = echo
    rows = [{"id": CANARIES["mail"], "text": f"{SENTENCE} and KD-1"}]
    bench = make_bench(rows, **asking(url, privacy={"patterns": PATTERNS}))
    with TraceHost() as host:
        want_traces(monkeypatch, host.url)
        bench.run_missing()
        assert SENTENCE in server.asked[0], "the provider is sent all of it"
        (sent,) = host.requests
        told = repr(sent)
        assert not [one for one in CANARIES.values() if one in told]
        assert "[CUSTOMER] and KD-1" in told
        assert sent["ondine.row_key"] == "[EMAIL]"


def test_what_is_shown_is_scrubbed_unless_it_is_declared_otherwise(make_bench: MakeBench) -> None:
    rows = [{"id": "r1", "text": f"Fine, says {CANARIES['mail']}."}]
    for privacy, is_there in ({}, False), ({"shown": False}, True):
        bench = make_bench(rows, privacy=privacy)
        bench.snapshot()
        bench.run()
        for asset in (PROMPTS, RESULTS):
            event = bench.events(asset)[-1].asset_materialization
            assert event is not None
            shown = repr(event.metadata)
            assert (CANARIES["mail"] in shown.replace("\\", "")) is is_there, asset
            assert ("EMAIL" in shown) is not is_there


def test_keys_of_rows_and_cells_are_scrubbed_wherever_they_are_shown(
    make_bench: MakeBench,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """In failures of the source and of replay, in examples of `drift`, in the story of a row."""
    monkeypatch.setenv("ONDINE_LOG_FORMAT", "json")
    monkeypatch.setenv("ONDINE_LOG_LEVEL", "debug")
    texts = ["[[token=a]]", "[[token=a]]", "[[fault=refusal]]", "x"]
    rows = [
        {"id": f"canary.key{n}@example.org", "text": f"{text} {SENTENCE}"}
        for n, text in enumerate(texts)
    ]
    bench = make_bench([rows[0], *rows])
    with pytest.raises(dg.Failure, match=r"not unique: 1 keys occur .*\[EMAIL\]' in rows 1, 2"):
        bench.snapshot()
    write_rows(bench.folder / "notes.csv", rows)
    bench.run_missing()
    assert len(bench.rows(REJECTED)) == 1
    with bench.ledger.database.write() as connection:
        connection.exec_driver_sql("UPDATE payloads SET body = CAST('old' AS BLOB)")
    bench.run(assets=(RESPONSES, RESULTS, REJECTED), tags={MODE_TAG: "verify"})
    bench.report()
    declared = bench.dataset.model_dump(exclude_defaults=True)
    bench.declare({**declared, "prompt": {"template": "Other {{ text }}"}})
    with pytest.raises(dg.Failure, match=r"row \[EMAIL\] \(prompt changed\)"):
        bench.run(tags={MODE_TAG: "replay"})
    story = explain_row(bench.pipeline, bench.lake, bench.data / "ledger.sqlite", rows[1]["id"])
    # a request for the row itself names it by the key that was asked about
    requests = repr(story.requests).replace(f"for_row={rows[1]['id']!r}", "")
    told = [requests, repr(story.row), *capfd.readouterr()]
    told += [
        serialize_value(one) for run in instance.get_runs() for one in instance.all_logs(run.run_id)
    ]
    told += [record.getMessage() for record in caplog.records]
    for kind in ("html", "prom", "json"):
        told += [one.read_text(encoding="utf-8") for one in bench.data.rglob(f"*.{kind}")]
    said = " ".join(told)
    assert said.count("[EMAIL]") > 30
    for canary in ("canary.", *list(CANARIES.values())[1:-1]):
        at = said.find(canary)
        assert at < 0, said[max(0, at - 300) : at + 100]


def test_at_rest_is_switched_on_and_off_without_asking(
    make_bench: MakeBench, echo: tuple[Echo, str]
) -> None:
    server, url = echo
    bench = make_bench(
        [{"id": "r", "text": CANARIES["mail"]}], **asking(url, privacy={"prompt": "placeholders"})
    )
    bench.run_missing()
    version, declared = (
        bench.pipeline.local_version,
        bench.dataset.model_dump(exclude_defaults=True),
    )
    whole = (CANARIES["mail"], CANARIES["mail"])
    for switched_on, expected in (True, ("[EMAIL]", "[EMAIL_1]")), (False, whole):
        privacy = {"prompt": "placeholders", "at_rest": switched_on}
        bench.declare({**declared, "privacy": privacy})
        assert (bench.pipeline.local_version != version) is switched_on
        bench.run(assets=(RESULTS, REJECTED))
        assert said(bench) == [expected]
    assert len(server.asked) == 1


def test_at_rest_columns_of_every_type_keep_their_type(tmp_path: Path) -> None:
    privacy = {"prompt": "remove", "at_rest": True}
    pipeline = Pipeline(
        Dataset.model_validate(attributes(privacy=privacy)), tmp_path / "defs.yaml", tmp_path
    )
    card, mail = 4111111111111111, CANARIES["mail"]
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    rows = [
        {
            "n": card,
            "t": mail,
            "l": [mail],
            "s": {"n": card, "t": "x"},
            "d": at,
            "f": 1.5,
            "b": True,
            "g": float(card),
            "m": Decimal(card),
        },
        dict.fromkeys("ntlsdfbgm") | {"n": 7, "g": 1.0, "m": Decimal("1.00")},
    ]
    table = pa.Table.from_pylist(rows)
    kept = at_rest(pipeline, table)
    assert kept.schema == table.schema
    scrubbed = {"n": None, "t": "[EMAIL]", "l": ["[EMAIL]"], "s": {"n": None, "t": "x"}, "g": None}
    scrubbed |= {"m": None}
    assert kept.to_pylist() == [rows[0] | scrubbed, rows[1]]


def test_a_declaration_without_privacy_asks_what_it_always_asked(
    make_bench: MakeBench, tmp_path: Path
) -> None:
    """Nobody pays again for a section that says what is the default."""
    bench = make_bench([{"id": "r", "text": "x"}])
    declared = bench.dataset.model_dump(exclude_defaults=True)
    same = Pipeline(
        bench.dataset.model_validate({**declared, "privacy": {"detect": ["email"]}}),
        tmp_path / "defs.yaml",
        tmp_path,
    )
    assert same.question_version == bench.pipeline.question_version
    assert same.local_version == bench.pipeline.local_version


def test_a_row_that_cannot_be_searched_in_time_is_not_sent_and_not_written(
    make_bench: MakeBench, echo: tuple[Echo, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, url = echo
    privacy = {"prompt": "placeholders", "patterns": {"code": "(x+x+)+y"}}
    rows = [{"id": "good", "text": "xxy"}, {"id": "bad", "text": "x" * 5000}]
    monkeypatch.setattr(patterns, "MOST_SECONDS", 0.03)
    bench = make_bench(rows, **asking(url, privacy=privacy))
    bench.run_missing()
    assert server.asked == ["[CODE_1]"]
    assert [row["id"] for row in bench.rows(RESULTS)] == ["good"]
    (bad,) = bench.rows(REJECTED)
    assert (bad["_error_code"], bad["_error_class"]) == ("pattern_too_slow", "row")
    assert "privacy.patterns" in bad["_error_message"]

    # too slow only when its values are put back: no answer with placeholders passes for one
    def too_slow(_: OwnPattern, text: str) -> list[tuple[int, int]]:
        raise PatternTooSlow(text)

    monkeypatch.setattr(OwnPattern, "spans", too_slow)
    bench.run(assets=(RESULTS, REJECTED))
    assert bench.rows(RESULTS) == []
    assert {row["_error_code"] for row in bench.rows(REJECTED)} == {"pattern_too_slow"}

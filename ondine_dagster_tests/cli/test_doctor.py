"""`doctor`: what is in place, what is not, and what is never shown."""

from __future__ import annotations

from io import FileIO

import pytest

from ondine_dagster.cli import doctor
from ondine_dagster_tests.cli.typing_person import Person, miscount


def test_doctor_finds_everything_in_place_and_makes_nothing(person: Person) -> None:
    person.write(2)
    result = person.types("doctor", str(person.declared_in))
    assert result.exit_code == 0, result.stdout
    assert "FAIL" not in result.stdout
    for what in ("versions", "data folder", "ledger", "DAGSTER_HOME", "source", "model", "key"):
        assert f"ok    {what}" in result.stdout
    assert str(person.settings.data_dir) in result.stdout
    assert not person.settings.data_dir.exists()
    assert person.simulator.bill.totals.requests == 0


def test_doctor_looks_at_declared_exports_and_makes_none(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    (person.folder / "there.csv").mkdir()
    (person.folder / "in_the_way").write_text("")
    server = "postgresql://me:hidden@127.0.0.1:1/shop"
    declared = [
        {"to": "new/out.csv"},
        {"to": "there.csv"},
        {"to": "in_the_way/out.csv"},
        {"to_variable": "WAREHOUSE_URL"},
        {"to_variable": "SHOP_URL"},
    ]
    monkeypatch.delenv("WAREHOUSE_URL", raising=False)
    monkeypatch.setenv("SHOP_URL", server)
    person.write(2, export=declared)
    result = person.types("doctor", str(person.declared_in))
    shown = [line for line in result.stdout.splitlines() if line[6:13] == "export "]
    assert result.exit_code == 1
    assert "hidden" not in result.output
    good, folder, unwritable, unset, server_is_down = shown
    assert good == f"ok    export       {person.folder / 'new/out.csv'}"
    assert folder.startswith("FAIL") and folder.endswith("is a folder; an export is a file")
    assert unwritable.startswith("FAIL") and "no file can be written" in unwritable
    assert unset.startswith("FAIL") and unset.endswith("WAREHOUSE_URL is not set")
    assert server_is_down.startswith("FAIL") and "127.0.0.1:1/shop" in server_is_down
    assert not (person.folder / "new").exists()


def test_doctor_sees_a_full_disk(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "TemporaryFile", lambda **_: FileIO("/dev/full", "w"))
    result = person.types("doctor")
    assert result.exit_code == 1
    assert "no file can be written" in result.stdout
    assert "No space left" in result.stdout


def test_doctor_never_shows_a_key(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_COMPATIBLE_API_KEY", "sk-very-secret")
    person.write(2)
    for arguments in ((), (str(person.declared_in),)):
        result = person.types("doctor", *arguments)
        assert "OPENAI_COMPATIBLE_API_KEY is set" in result.stdout
        assert "secret" not in result.output


def test_doctor_counts_several_keys(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_COMPATIBLE_API_KEY", "sk-secret-1,sk-secret-2\nsk-secret-3")
    person.write(2)
    for arguments in ((), (str(person.declared_in),)):
        result = person.types("doctor", *arguments)
        assert "OPENAI_COMPATIBLE_API_KEY is set (3 keys)" in result.stdout
        assert "secret" not in result.output


def test_doctor_wants_a_key_for_a_server_elsewhere(person: Person) -> None:
    person.write(1, llm={**LLM, "base_url": "https://example.com/v1"})
    result = person.types("doctor", str(person.declared_in))
    assert result.exit_code == 1
    assert "FAIL  key          OPENAI_COMPATIBLE_API_KEY is not set" in result.stdout


def test_doctor_tells_of_an_identity_and_misses_the_variable_of_a_header(person: Person) -> None:
    azure = {"provider": "azure", "azure": {"credential": "managed_identity"}}
    there = {**LLM, **azure, "base_url": person.simulator.base_url}
    person.write(1, llm=there)
    result = person.types("doctor", str(person.declared_in))
    assert "tokens of managed_identity are fetched before the first row" in result.stdout
    person.write(1, llm={**there, "header_variables": {"X-Gateway": "GATEWAY_TOKEN"}})
    result = person.types("doctor", str(person.declared_in))
    assert result.exit_code == 1
    assert "GATEWAY_TOKEN is not set: llm.header_variables sends it as" in result.stdout


LLM = {
    "provider": "openai_compatible",
    "name": "demo-model",
    "prices": {"input_per_million_usd": "0.15", "output_per_million_usd": "0.60"},
}


def test_doctor_goes_on_after_the_first_fault(person: Person) -> None:
    person.write(1)
    (person.folder / "notes.csv").unlink()
    person.settings.data_dir.write_text("in the way")
    result = person.types("doctor", str(person.declared_in))
    assert result.exit_code == 1
    assert "FAIL  data folder" in result.stdout
    assert "FAIL  source" in result.stdout
    assert "ok    model" in result.stdout


def test_doctor_says_what_the_model_costs_and_who_says_so(person: Person) -> None:
    known = {"provider": "openai_compatible", "name": "gpt-4o-mini"}
    person.write(1)
    declared = person.types("doctor", str(person.declared_in)).stdout
    assert "$0.15 in and $0.6 out per million tokens (declared)" in declared
    person.write(1, llm={**known, "base_url": "https://api.openai.com/v1"})
    in_table = person.types("doctor", str(person.declared_in)).stdout
    assert "$0.15 in and $0.6 out per million tokens (price table of 20" in in_table


def test_a_model_without_a_price_asks_nobody(person: Person) -> None:
    person.write(1, llm={**LLM, "base_url": person.simulator.base_url, "prices": None})
    result = person.types("doctor", str(person.declared_in))
    assert result.exit_code == 1
    assert f"FAIL  model        {person.declared_in}: `llm.prices` is missing" in result.stdout
    result = person.runs()
    assert result.exit_code == 1
    assert "what does demo-model cost? Give its prices" in result.output
    assert person.simulator.bill.totals.requests == 0


def test_doctor_finds_a_ledger_that_does_not_add_up(person: Person) -> None:
    person.write(2)
    person.runs()
    miscount(person)
    result = person.types("doctor")
    assert result.exit_code == 1
    assert "FAIL  ledger" in result.stdout


def test_doctor_says_that_a_run_would_be_refused_for_its_encryption_key(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONDINE_ENCRYPTION_KEY", "too short")
    assert "needs 16 at least" in person.types("doctor").stdout, "before there is a ledger"
    monkeypatch.setenv("ONDINE_ENCRYPTION_KEY", "the first key of all")
    person.write(2)
    person.runs()
    assert "adds up, new texts encrypted (" in person.types("doctor").stdout
    for key, said in (("another key than that", "is another one"), (None, "is not set")):
        if key is None:
            monkeypatch.delenv("ONDINE_ENCRYPTION_KEY")
        else:
            monkeypatch.setenv("ONDINE_ENCRYPTION_KEY", key)
        result = person.types("doctor")
        assert result.exit_code == 1
        (line,) = [one for one in result.stdout.splitlines() if one.startswith("FAIL  ledger")]
        assert f"ONDINE_ENCRYPTION_KEY {said}" in " ".join(line.split())

"""`status`, `export`, `doctor`, `ledger` and `simulate`, and how all commands fail."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from ondine_dagster.cli import doctor
from ondine_dagster.cli.simulate import fault_plan
from ondine_dagster.errors import OndineError
from ondine_dagster.ledger.ledger import close_ledger, open_ledger
from ondine_dagster.simulator import FaultPlan
from ondine_dagster_tests.cli.typing_person import Person, Terminal

REFUSED = "[[fault=refusal]] no"


def words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def with_an_unknown_request(person: Person) -> str:
    """Run one row whose connection breaks after the request was read; return the request's id."""
    person.write(1, limits={"max_attempts": 1, "max_unknown": 0})
    person.simulator.fail(FaultPlan(rates={"reset_after": 1.0}))
    assert "1 request of unknown outcome" in person.runs().stdout
    person.simulator.fail(FaultPlan())
    (line,) = person.types("ledger", "unknown").stdout.splitlines()
    return line.split()[0]


# status


def test_status_shows_partitions_rows_by_outcome_and_money(person: Person) -> None:
    rows = [{"id": f"r{n}", "text": REFUSED if n == 3 else f"row {n}"} for n in range(15)]
    person.write(rows)
    person.runs()
    result = person.types("status", str(person.declared_in))
    assert result.exit_code == 0
    shown = words(result.stdout)
    assert ["rows-00000", "done", "10", "9", "1", "0"] in shown
    assert ["rows-00001", "done", "5", "5", "0", "0"] in shown
    assert ["rejected", "1", "1", "refused"] in shown
    money = person.simulator.bill.totals.picodollars / 10**12
    assert ["paid", f"${money:.6f}", "15", "requests"] in shown


def test_status_tells_open_and_unknown_money_from_paid(person: Person) -> None:
    with_an_unknown_request(person)
    shown = words(person.types("status", str(person.declared_in)).stdout)
    assert ["paid", "$0", "0", "requests"] in shown
    (unknown,) = [line for line in shown if line[:1] == ["unknown,"]]
    assert unknown[-2:] == ["1", "request"] and unknown[-3] != "$0"
    assert ["rows-00000", "failed", "1", "0", "1", "0"] in shown


def test_status_before_the_first_run_says_what_to_do(person: Person) -> None:
    person.write(1)
    result = person.types("status", str(person.declared_in))
    assert result.exit_code == 1
    assert "ondine-dagster run notes" in result.stderr


# export


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_export_writes_the_results_and_says_what_is_not_in_them(
    person: Person, suffix: str
) -> None:
    person.write([{"id": "a", "text": "fine"}, {"id": "b", "text": REFUSED}])
    person.runs()
    to = person.folder / f"out{suffix}"
    result = person.types("export", str(person.declared_in), "--to", to.name)
    assert result.exit_code == 0
    assert f"1 row in {to}" in result.stderr
    assert "1 rejected row" in result.stderr
    assert to.stat().st_size > 0


def test_an_exported_header_reads_like_the_source(person: Person) -> None:
    person.write(2)
    person.runs()
    person.types("export", str(person.declared_in), "--to", "out.csv")
    assert (person.folder / "out.csv").read_text().splitlines()[0] == "id,text,response"
    person.types("export", str(person.declared_in), "--to", "out.csv", "--lineage")
    assert "_model_served" in (person.folder / "out.csv").read_text().splitlines()[0]


# doctor


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


@pytest.mark.parametrize(
    "command", [("doctor",), ("ledger", "check"), ("sql", "from ledger.spend")]
)
def test_a_damaged_ledger_is_one_readable_message(person: Person, command: tuple[str, ...]) -> None:
    person.settings.data_dir.mkdir()
    person.settings.ledger_path.write_bytes(b"no database at all, " * 100)
    result = person.types(*command)
    assert result.exit_code == 1
    assert str(person.settings.ledger_path) in result.output
    assert "Restore it from a backup" in result.output


# ledger


def miscount(person: Person) -> None:
    ledger = open_ledger(person.settings.ledger_path)
    with ledger.database.write() as connection:
        connection.exec_driver_sql("UPDATE spend SET settled = settled + 1 WHERE unit = 'usd'")
    close_ledger(person.settings.ledger_path)


def test_ledger_check_says_whether_it_adds_up(person: Person) -> None:
    assert "There is no ledger" in person.types("ledger", "check").stderr
    person.write(2)
    person.runs()
    good = person.types("ledger", "check")
    assert (good.exit_code, good.stderr) == (0, "")
    miscount(person)
    bad = person.types("ledger", "check")
    assert bad.exit_code == 1
    assert "counters say settled" in bad.stdout


def test_unknown_requests_are_listed_with_row_and_money(person: Person) -> None:
    attempt = with_an_unknown_request(person)
    for arguments in ((), ("notes",), (str(person.declared_in),)):
        listed = person.types("ledger", "unknown", *arguments)
        assert attempt in listed.stdout and "row r0" in listed.stdout
        assert f"ledger resolve {attempt} --free" in listed.stderr


@pytest.mark.parametrize("outcome", ["free", "charged"])
def test_a_person_settles_an_unknown_request(person: Person, outcome: str) -> None:
    attempt = with_an_unknown_request(person)
    assert person.runs("--all").exit_code == 1  # held: max_unknown is 0
    done = person.types("ledger", "resolve", attempt, f"--{outcome}")
    assert done.exit_code == 0, done.output
    assert f"1 request settled as {outcome}: $0.00" in done.stdout
    assert person.types("ledger", "check").exit_code == 0
    assert person.runs("--all").exit_code == 0
    assert person.asks("select count(*) as n from notes.results") == "n\n1\n"
    counted = person.asks("select count(*) as n from ledger.attempts where cost_usd > 0")
    assert counted == f"n\n{1 if outcome == 'free' else 2}\n"


def test_resolve_refuses_what_it_does_not_know(person: Person) -> None:
    attempt = with_an_unknown_request(person)
    assert person.types("ledger", "resolve", attempt).exit_code == 2
    strange = person.types("ledger", "resolve", "00", "--free")
    assert (strange.exit_code, "00" in strange.stderr) == (1, True)


# simulate


def test_simulate_answers_fails_as_told_and_prints_its_bill(
    start: Callable[..., Terminal],
) -> None:
    terminal = start("simulate", "--port", "0", "--fault", "503: 100%", "--input-price", "2")
    terminal.wait_for("simulator: http://127.0.0.1:")
    url = terminal.output.split()[1]
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
    request = Request(f"{url}/chat/completions", json.dumps(body).encode())
    with pytest.raises(OSError, match="503"):
        urlopen(request, timeout=10)
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.ends() == 0
    assert "bill: 0 of 1 requests charged, $0.000000" in terminal.output


def test_simulate_takes_limits_and_token_rules(start: Callable[..., Terminal]) -> None:
    options = "--rpm 1 --tpm 5000 --capacity 9 --rate-headers openai --tokens-per-byte"
    more = "--reasoning-tokens 7 --ignore-ceiling --model my-model"
    terminal = start("simulate", "--port", "0", *options.split(), *more.split())
    terminal.wait_for("simulator: http://127.0.0.1:")
    url = terminal.output.split()[1]
    message = {"role": "user", "content": "[[token=abc]]"}
    body = {"model": "m", "messages": [message], "max_tokens": 2}
    request = Request(f"{url}/chat/completions", json.dumps(body).encode())
    with urlopen(request, timeout=10) as reply:
        usage = json.load(reply)["usage"]
        assert reply.headers["x-ratelimit-limit-tokens"] == "5000"
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (13, 7 + 3)
    with urlopen(f"{url}/models", timeout=10) as reply:
        assert [one["id"] for one in json.load(reply)["data"]] == ["my-model"]
    with pytest.raises(OSError, match="429"):
        urlopen(request, timeout=10)
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.ends() == 0


def test_a_port_that_is_taken_is_said(person: Person) -> None:
    port = person.simulator.url.rpartition(":")[2]
    result = person.types("simulate", "--port", port)
    assert result.exit_code == 1
    assert f"127.0.0.1:{port}" in result.stderr and "choose another port" in result.stderr


def test_faults_are_written_with_their_share() -> None:
    plan = fault_plan(3, ["429 retry_after=1: 5%", "stall: 0.01"])
    assert plan == FaultPlan(3, {"429 retry_after=1": 0.05, "stall": 0.01})


@pytest.mark.parametrize("text", ["429", "429: much", "nothing_known: 5%", "429: 200%", ": 5%"])
def test_a_fault_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(OndineError, match="--fault"):
        fault_plan(0, [text])


def test_a_price_that_is_no_number_is_refused(person: Person) -> None:
    result = person.types("simulate", "--output-price", "cheap")
    assert (result.exit_code, "--output-price cheap" in result.stderr) == (1, True)


def test_simulate_refuses_a_key_and_ends_a_day(start: Callable[..., Terminal]) -> None:
    terminal = start(
        "simulate", "--port", "0", "--key", "bad: 401", "--rpd", "1", "--burst", "503: 1"
    )
    terminal.wait_for("simulator: http://127.0.0.1:")
    url = terminal.output.split()[1]
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}]}).encode()

    def ask(key: str) -> None:
        request = Request(f"{url}/chat/completions", body, {"authorization": f"Bearer {key}"})
        urlopen(request, timeout=10).close()

    with pytest.raises(OSError, match="401"):
        ask("bad")
    ask("good")
    with pytest.raises(OSError, match="429"):
        ask("good")
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.ends() == 0


def test_simulate_lists_the_faults_of_a_provider(person: Person) -> None:
    result = person.types("simulate", "--list-faults", "--shape", "anthropic")
    assert (result.exit_code, "pause_turn" in result.stdout) == (0, True)
    assert "zero_cost" not in result.stdout  # Anthropic tells no costs
    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert lines["length"].endswith("(billed)")
    assert not lines["context_length"].endswith("(billed)")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--fault", "pause_turn: 5%"), "shape openai has no fault `pause_turn`"),
        (("--key", "key-1: stall"), "is no refusal"),
        (("--key", "key-1"), '"key-1: 401"'),
        (("--burst", "429: 80%", "--burst-for", "40"), "--burst-for must be less"),
        (("--burst", "pause_turn: 80%"), "shape openai has no fault"),
    ],
)
def test_what_the_provider_cannot_do_is_refused_at_the_start(
    person: Person, options: tuple[str, ...], says: str
) -> None:
    result = person.types("simulate", *options)
    assert (result.exit_code, says in result.stderr) == (1, True)


def test_a_protocol_that_the_simulator_does_not_speak_is_refused(person: Person) -> None:
    result = person.types("simulate", "--shape", "openay")
    assert (result.exit_code, "known: anthropic" in result.stderr) == (1, True)


# all of them


@pytest.mark.parametrize("command", ["run", "status", "export", "doctor"])
def test_a_name_outside_of_a_project_is_refused_with_what_to_do(
    person: Person, command: str
) -> None:
    options = ("--to", "x.csv") if command == "export" else ()
    result = person.types(command, "reviews", *options)
    assert result.exit_code == 1
    assert "give the path of a YAML file" in result.output


def test_a_name_is_found_in_the_project_above(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    (person.folder / "pyproject.toml").write_text('[tool.dg.project]\nroot_module = "shop"\n')
    place = person.folder / "shop" / "defs" / "notes"
    place.mkdir(parents=True)
    person.declare(place / "defs.yaml")
    monkeypatch.chdir(place)
    result = person.types("status", "notes")
    assert "has no snapshot yet" in result.stderr


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from ondine_dagster.cli.main import cli\n"
        "assert CliRunner().invoke(cli, ['--help']).exit_code == 0\n"
        "heavy = {'dagster', 'duckdb', 'pydantic', 'pyarrow', 'rich', 'sqlalchemy'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"


def test_commands_in_messages_name_the_data_folder_where_the_folder_here_has_another(
    person: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ONDINE_DATA_DIR")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    (person.folder / "pyproject.toml").write_text("[tool.dg]\n")
    person.write(1)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    result = person.runs()
    assert f"ONDINE_DATA_DIR={person.folder / 'data'} " in result.stdout

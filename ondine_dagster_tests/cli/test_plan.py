"""`ondine-dagster plan`: what it says of rows, money, time, budgets, and that it does nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ondine_dagster.ledger.ledger import open_ledger
from ondine_dagster.simulator import FaultPlan
from ondine_dagster_tests.cli.typing_person import Person
from ondine_dagster_tests.workbench import numbered, write_rows

pytestmark = pytest.mark.slow

LABELS = {"fields": {"label": {"type": "string", "enum": ["good", "bad"]}}}
SCORES = {"fields": {"score": {"type": "integer", "minimum": 0, "maximum": 9}}}


def plan(person: Person, *options: str) -> str:
    result = person.types("plan", "notes.yaml", *options)
    assert result.exit_code == 0, result.output
    return result.stdout


def numbers(text: str, name: str) -> list[str]:
    """Return the words after `name` on its line; none where there is no such line."""
    found = re.search(rf"^ *{re.escape(name)}  +(.*)$", text, re.MULTILINE)
    return found.group(1).split() if found else []


def dollars(word: str) -> float:
    return float(word.removeprefix("$"))


def llm(person: Person, **changed: Any) -> dict[str, Any]:
    prices = {"input_per_million_usd": "0.15", "output_per_million_usd": "0.60"}
    return {
        "provider": "openai_compatible",
        "name": "demo-model",
        "base_url": person.simulator.base_url,
        "prices": prices,
        **changed,
    }


def content(folder: Path) -> dict[str, bytes]:
    """Return all files; a reader of SQLite may leave its own two beside a ledger."""
    return {
        str(path): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(("-wal", "-shm"))
    }


# nothing happens


@pytest.mark.behaviour("B-6")
def test_before_the_first_run_everything_is_new_and_nothing_is_made(person: Person) -> None:
    person.write(25)
    shown = plan(person)
    assert numbers(shown, "rows")[0] == "25"
    assert numbers(shown, "new")[0] == "25"
    assert numbers(shown, "partitions")[:3] == ["3", "3", "missing"]
    assert numbers(shown, "requests") == ["25", "25"]
    assert "has not answered yet: one for 4 bytes of a request, and 256 per answer" in shown
    assert "not known: no rate is declared" in shown
    assert not person.settings.data_dir.exists()
    assert person.simulator.bill.totals.requests == 0


def test_nothing_is_asked_and_nothing_changes(person: Person) -> None:
    person.write(25)
    person.runs()
    paid, before = person.simulator.bill.totals.requests, content(person.settings.data_dir)
    person.write(40, prompt={"template": "Label: {{ text }}"})
    assert numbers(plan(person), "rows")[0] == "40"
    plan(person, "--all")
    assert content(person.settings.data_dir) == before
    assert person.simulator.bill.totals.requests == paid
    with person.dagster() as instance:
        assert len(instance.get_dynamic_partitions("notes")) == 3


def test_it_ends_with_the_run_that_does_what_is_left_to_do(person: Person) -> None:
    person.write(25)
    assert plan(person).splitlines()[-1].startswith("Nothing was asked. Run it: ")
    person.runs()
    assert "Nothing to run: every partition is done." in plan(person)
    person.write(25, prompt={"template": "Label: {{ text }}"})
    last_line = plan(person).splitlines()[-1]
    assert last_line.startswith("Nothing to run but what is stale.")
    assert last_line.endswith(" --all")


def test_it_works_in_a_project_by_name(person: Person) -> None:
    person.write(3)
    (person.folder / "pyproject.toml").write_text(
        '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "shop"\n'
    )
    defs = person.folder / "shop" / "defs" / "notes"
    defs.mkdir(parents=True)
    person.declared_in.rename(defs / "defs.yaml")
    result = person.types("plan", "notes")
    assert result.exit_code == 0, result.output
    assert numbers(result.stdout, "new")[0] == "3"


def test_a_prompt_that_names_no_column_is_refused(person: Person) -> None:
    person.write(3, prompt={"template": "{{ txet }}"})
    result = person.types("plan", "notes.yaml")
    assert result.exit_code == 1
    assert "the prompt names txet" in result.stderr


def test_options_that_contradict_are_a_usage_error(person: Person) -> None:
    person.write(3)
    assert person.types("plan", "notes.yaml", "--all", "--partition", "x").exit_code == 2


# rows


@pytest.mark.behaviour("B-6")
def test_new_rows_beside_paid_ones(person: Person) -> None:
    person.write(15)
    person.runs()
    person.write(22)
    shown = plan(person)
    assert numbers(shown, "already paid")[0] == "15"
    assert numbers(shown, "new")[0] == "7"
    assert numbers(shown, "requests") == ["7", "7"]
    before = person.paid
    person.runs()
    assert person.paid - before == 7
    shown = plan(person)
    assert numbers(shown, "requests") == ["0", "0"]
    assert "Time" not in shown


def test_a_changed_row_is_asked_by_the_next_run_and_says_so(person: Person) -> None:
    person.write(12)
    person.runs()
    rows = numbered(12)
    rows[3]["text"] = "something else"
    write_rows(person.folder / "notes.csv", rows)
    shown = plan(person)
    assert numbers(shown, "row changed")[:2] == ["1", "row"]
    assert numbers(shown, "requests") == ["1", "1"]
    assert "1 changed" in shown


@pytest.mark.behaviour("B-6")
@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"prompt": {"template": "Label: {{ text }}"}}, "prompt changed"),
        ({"output": LABELS}, "wire schema changed"),
        (
            {"output": LABELS, "prompt": {"template": "{{ text }}!"}},
            "prompt and wire schema changed",
        ),
    ],
)
def test_stale_rows_are_told_by_reason_with_their_price(
    person: Person, changed: dict[str, Any], reason: str
) -> None:
    person.write(15)
    person.runs()
    person.declare(**changed)
    shown = plan(person)
    assert numbers(shown, "stale")[0] == "15"
    rows, _, price, *_, most = numbers(shown, reason)
    assert rows == "15"
    assert numbers(shown, "requests") == ["0", "15"]
    assert numbers(shown, "expected") == ["$0", price]
    assert numbers(shown, "at most") == ["$0", most]
    assert numbers(plan(person, "--all"), "requests") == ["15"]


def test_model_and_sampling_are_reasons_too(person: Person) -> None:
    person.write(5)
    person.runs()
    person.declare(llm=llm(person, name="other-model", temperature=0))
    assert numbers(plan(person), "model and sampling changed")[0] == "5"


def test_partitions_asked_under_different_questions_have_their_own_reasons(
    person: Person,
) -> None:
    person.write(20, output=LABELS)
    person.runs()
    person.declare(output=SCORES)
    person.runs("--partition", "rows-00000")
    person.declare(output=SCORES, prompt={"template": "Rate: {{ text }}"})
    shown = plan(person)
    assert numbers(shown, "prompt changed")[0] == "10"
    assert numbers(shown, "prompt and wire schema changed")[0] == "10"


def test_a_question_that_changes_back_is_paid(person: Person) -> None:
    person.write(8)
    person.runs()
    person.declare(prompt={"template": "Label: {{ text }}"})
    person.runs("--all")
    person.declare()
    shown = plan(person)
    assert numbers(shown, "already paid")[0] == "8"
    assert "1 stale" in shown
    assert numbers(shown, "requests") == ["0", "0"]


def test_rows_with_one_question_are_asked_once(person: Person) -> None:
    person.write([{"id": f"r{n}", "text": f"text {n % 3}"} for n in range(25)])
    shown = plan(person)
    assert numbers(shown, "repeated")[0] == "22"
    assert numbers(shown, "requests") == ["3", "3"]
    person.runs()
    assert person.paid == 3


def test_rows_that_cannot_be_rendered_need_no_request(person: Person) -> None:
    person.write([{"id": "a", "text": "x"}, {"id": "b", "text": " "}])
    shown = plan(person)
    assert numbers(shown, "not rendered")[0] == "1"
    assert numbers(shown, "requests") == ["1", "1"]


def test_answers_that_were_cut_are_asked_again_under_a_raised_ceiling(person: Person) -> None:
    rows = [{"id": "a", "text": "[[token=" + "long" * 20 + "]]"}, {"id": "b", "text": "b"}]
    person.write(rows, llm=llm(person, max_tokens=5))
    person.runs()
    assert numbers(plan(person), "already paid")[0] == "2"
    person.declare(llm=llm(person, max_tokens=5, raised_max_tokens=400))
    shown = plan(person)
    assert numbers(shown, "cut")[0] == "1"
    assert numbers(shown, "requests") == ["1", "1"]
    assert numbers(shown, "completion tokens") == ["400", "400"]


def test_held_rows_are_told_with_the_way_out(person: Person) -> None:
    person.write(1, limits={"max_attempts": 1, "on_unknown": "hold"})
    person.simulator.fail(FaultPlan(rates={"reset_after": 1.0}))
    person.runs()
    person.simulator.fail(FaultPlan())
    shown = plan(person)
    assert numbers(shown, "held")[0] == "1"
    assert "ledger unknown notes" in shown
    assert numbers(shown, "requests") == ["0", "0"]


# partitions


def test_named_partitions_are_planned_alone(person: Person) -> None:
    person.write(25)
    shown = plan(person, "--partition", "rows-00002")
    assert numbers(shown, "rows")[0] == "5"
    assert numbers(shown, "requests") == ["5"]
    assert shown.rstrip().endswith("run notes.yaml --partition rows-00002")
    refused = person.types("plan", "notes.yaml", "--partition", "rows-0000")
    assert refused.exit_code == 1
    assert "has no partition rows-0000 in" in refused.stderr


def test_what_is_only_parsed_again_costs_nothing(person: Person) -> None:
    person.write(12, output=LABELS)
    person.runs()
    column = {**LABELS["fields"]["label"], "column": "verdict"}
    person.declare(output={"fields": {"label": column}})
    shown = plan(person)
    assert numbers(shown, "only parsed again, $0") == ["2", "0"]
    assert numbers(shown, "requests") == ["0", "0"]


# money


@pytest.mark.behaviour("B-6")
def test_the_expected_price_is_near_the_bill_once_the_model_has_answered(person: Person) -> None:
    person.write(60, output=LABELS)
    person.runs("--partition", "rows-00000")
    before = person.simulator.bill.totals.picodollars
    shown = plan(person)
    assert "learnt from 10 answers" in shown
    expected, most = dollars(numbers(shown, "expected")[0]), dollars(numbers(shown, "at most")[0])
    person.runs()
    paid = (person.simulator.bill.totals.picodollars - before) / 10**12
    assert abs(expected - paid) / paid < 0.1
    assert paid < most


@pytest.mark.behaviour("B-6")
def test_the_first_expectation_is_near_where_the_form_of_the_answers_tells_their_length(
    person: Person,
) -> None:
    person.write(10, output=LABELS)
    shown = plan(person)
    assert "per answer, by its form." in shown
    expected = dollars(numbers(shown, "expected")[0])
    person.runs()
    paid = person.simulator.bill.totals.picodollars / 10**12
    assert paid / 2 < expected < 2 * paid  # the simulator charges nothing for the schema


@pytest.mark.behaviour("B-6")
def test_a_run_shows_what_was_expected_of_it_and_the_next_plan_says_how_near_it_came(
    person: Person,
) -> None:
    person.write(12)
    person.runs("--partition", "rows-00000")
    shown = person.runs().stdout
    (line,) = re.findall(r"^Expected \$[\d.]+ \(at most \$[\d.]+\), was \$[\d.]+.*\.$", shown, re.M)
    assert f"The last run: e{line[1:]}" in plan(person)
    assert "Expected" not in person.runs().stdout  # nothing was asked


def test_the_runs_of_one_call_add_up(person: Person) -> None:
    person.write(30)
    person.runs("--partition", "rows-00000", "--partition", "rows-00002")
    ledger = open_ledger(person.settings.ledger_path)
    with ledger.database.read() as connection:
        found = connection.exec_driver_sql("SELECT requests FROM estimates").all()
    assert [tuple(row) for row in found] == [(20,)]


def test_a_price_of_batch_jobs_is_told_where_it_is_known(person: Person) -> None:
    known = llm(person, name="gpt-4o-mini", base_url="https://api.openai.com/v1", prices=None)
    person.write(5, llm=known)
    shown = plan(person)
    _, batch, *_ = numbers(shown, "as a batch job (not built yet)")
    expected = dollars(numbers(shown, "expected")[0])
    assert dollars(batch) == pytest.approx(expected / 2, abs=1e-6)


@pytest.mark.behaviour("B-5")
def test_a_free_model_costs_nothing_and_its_daily_cap_is_told(person: Person) -> None:
    free = {"input_per_million_usd": 0, "output_per_million_usd": 0}
    url = "https://openrouter.ai/api/v1"
    person.write(120, llm=llm(person, name="some/model:free", base_url=url, prices=free))
    shown = plan(person)
    assert "some/model:free is free" in shown
    assert numbers(shown, "expected") == ["$0", "$0"]
    assert re.search(r"3 days +free model: 20 a minute, 50 a day", shown)
    assert re.search(r"6 min 00 s +free model: 20 a minute, 1,000 a day", shown)


# time, budgets, places


def test_declared_rates_say_how_long_it_takes(person: Person) -> None:
    person.write(30, limits={"requests_per_minute": 10, "requests_per_day": 20})
    shown = plan(person)
    assert re.search(r"Time.*\n +2 days +20 requests a day\n +3 min 00 s +10 requests a m", shown)


def test_a_daily_cap_that_is_used_up_is_said(person: Person) -> None:
    person.write(20, limits={"requests_per_day": 12})
    assert person.runs().exit_code == 1
    assert re.search(r"2 days +12 requests a day \(12 used today\)", plan(person))


def test_budgets_say_whether_they_stop_the_run(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONDINE_BUDGET_USD_PER_DAY", "100")
    budgets = [{"usd": "0.01", "per": "month"}, {"requests": 4, "per": "run"}]
    person.write(30, limits={"budget_usd": "0.0001", "budgets": budgets})
    shown = plan(person)
    assert re.search(r"\$0\.0001 in total .* will stop it before the first request", shown)
    assert re.search(r"\$0\.01 per month .* may stop it", shown)
    assert re.search(r"4 requests per run .* will stop it after about 4 requests", shown)
    assert re.search(r"\$100\.00 per day over all datasets .* enough", shown)


def test_answers_of_another_server_are_told_and_count(person: Person) -> None:
    person.write(6)
    person.runs()
    person.declare(llm=llm(person, base_url="https://new.example.com/v1"))
    shown = plan(person)
    assert numbers(shown, "already paid")[0] == "6"
    assert f"6 rows that are paid were answered by {person.simulator.base_url}" in shown

"""The ledger as a whole: one per process and file, names of datasets, look-ups."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ondine_dagster.errors import OndineError
from ondine_dagster.ledger.ledger import Ledger, close_ledger, open_ledger
from ondine_dagster.llm.provider import Verdict
from ondine_dagster_tests.ledger.builders import (
    answered,
    ask_and_answer,
    execute,
    go,
    key,
    released,
    request,
    rows,
    value,
)


def test_a_process_opens_a_file_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = open_ledger(path)
    monkeypatch.chdir(path.parent)
    assert open_ledger(Path("ledger.sqlite")) is ledger
    close_ledger(path)
    again = open_ledger(path)
    assert again is not ledger
    close_ledger(path)
    close_ledger(path)


@pytest.mark.behaviour("B-10")
@pytest.mark.parametrize("removed", [".", "ledger.d"])
def test_a_ledger_whose_files_were_removed_is_opened_anew(path: Path, removed: str) -> None:
    ask_and_answer(open_ledger(path), "q")
    shutil.rmtree(path.parent / removed)
    again = open_ledger(path)
    ask_and_answer(again, "later")
    assert bool(again.look_up([key("q")], 100)) == (removed == "ledger.d")
    close_ledger(path)
    other = Ledger(path)  # and what is written now is where others find it
    assert other.look_up([key("later")], 100)
    other.close()


def test_a_link_to_a_ledger_is_that_ledger(path: Path, tmp_path: Path) -> None:
    """Else two processes would lock different files and bury each other."""
    ledger = open_ledger(path)
    link = tmp_path / "link.sqlite"
    link.symlink_to(path)
    assert open_ledger(link) is ledger
    other = Ledger(link)
    assert other.reap() == 0
    assert ledger.reap() == 0
    other.close()
    close_ledger(link)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["data", "link.sqlite"]


def test_a_ledger_that_cannot_be_registered_leaves_nothing_open(path: Path) -> None:
    Ledger(path).close()
    other = Ledger(path)
    execute(other.database, "DROP TABLE processes")
    with pytest.raises(OndineError, match="processes"):
        Ledger(path)
    assert [file.name for file in (path.parent / "ledger.d").iterdir()] == [other._lock.id.hex()]
    with pytest.raises(OndineError):
        other.close()
    assert list((path.parent / "ledger.d").iterdir()) == []


def test_key_states_tell_answered_from_open(ledger: Ledger) -> None:
    ask_and_answer(ledger, "answered")
    item = go(ledger, request("open"))
    cut = ask_and_answer(ledger, "cut", verdict=Verdict.TRUNCATED)
    found = ledger.key_states([key(name) for name in ("answered", "open", "cut", "nobody")])
    assert set(found.answers) == {key("answered"), key("cut")}
    assert found.answers[key("cut")].attempt == cut.attempt
    assert found.open == {key("open")}
    ledger.settle(released(item))


def test_a_purged_answer_is_a_hit_without_text(ledger: Ledger) -> None:
    ask_and_answer(ledger, "q")
    execute(ledger.database, "DELETE FROM payloads")
    execute(ledger.database, "UPDATE answers SET payload_state = 'purged'")
    (answer,) = ledger.reserve(request("q")).hits.values()
    assert answer.text is None


def test_a_text_in_a_codec_of_the_future_is_no_miss(ledger: Ledger) -> None:
    ask_and_answer(ledger, "q")
    execute(ledger.database, "UPDATE payloads SET codec = 9")
    with pytest.raises(OndineError, match="codec 9"):
        ledger.look_up([key("q")], 100)
    with pytest.raises(OndineError, match="codec 9"):
        ledger.reserve(request("q"))
    assert value(ledger.database, "SELECT count(*) FROM attempts") == 1


def test_many_keys_are_looked_up_in_one_call(ledger: Ledger) -> None:
    for number in range(30):
        ask_and_answer(ledger, number)
    assert len(ledger.look_up([key(number) for number in range(3000)], 100)) == 30
    assert ledger.look_up([], 100) == {}


# names of datasets


def declared(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.touch()
    return path


def test_a_second_declaration_of_a_name_is_refused_with_both(
    ledger: Ledger, tmp_path: Path
) -> None:
    first, second = declared(tmp_path, "a.yaml"), declared(tmp_path / "sub", "b.yaml")
    ledger.bind_dataset("reviews", first)
    ledger.bind_dataset("reviews", first)
    ledger.bind_dataset("others", second)
    with pytest.raises(OndineError) as caught:
        ledger.bind_dataset("reviews", second)
    assert str(first) in str(caught.value)
    assert str(second) in str(caught.value)


def test_a_declaration_that_moved_takes_its_name_along(ledger: Ledger, tmp_path: Path) -> None:
    first, second = declared(tmp_path, "a.yaml"), declared(tmp_path, "b.yaml")
    ledger.bind_dataset("reviews", first)
    first.unlink()
    ledger.bind_dataset("reviews", second)
    assert rows(ledger.database, "SELECT name, path FROM datasets") == [("reviews", "../b.yaml")]


def test_one_declaration_through_a_link_is_one_declaration(ledger: Ledger, tmp_path: Path) -> None:
    first = declared(tmp_path / "project", "a.yaml")
    (tmp_path / "link").symlink_to(tmp_path / "project")
    ledger.bind_dataset("reviews", first)
    ledger.bind_dataset("reviews", tmp_path / "link" / "a.yaml")


def test_a_project_can_be_moved_as_a_whole(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    ledger = Ledger(before / "data" / "ledger.sqlite")
    ledger.bind_dataset("reviews", declared(before, "a.yaml"))
    ledger.settle(answered(go(ledger, request("q"))))
    ledger.close()
    before.rename(after)
    declared(before, "a.yaml")  # somebody else's
    moved = Ledger(after / "data" / "ledger.sqlite")
    moved.bind_dataset("reviews", after / "a.yaml")
    assert moved.look_up([key("q")], 100)
    moved.close()

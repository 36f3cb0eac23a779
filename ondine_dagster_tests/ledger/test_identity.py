"""Identity: what decides an answer has one digest for ever, and ids sort by time."""

from __future__ import annotations

import os
import threading

import pytest

from ondine_dagster.ledger.identity import (
    KEY_VERSION,
    KEYED_VERSION,
    answer_key,
    canonical_json,
    digest,
    keyed,
    new_id,
    text_digest,
)

MESSAGES = [
    {"role": "system", "content": "Sortiere."},
    {"role": "user", "content": 'Grüße 😀 "x"\n'},
]


def test_digests_are_what_they_were_in_the_first_release() -> None:
    assert KEY_VERSION == 1
    assert (
        digest(MESSAGES).hex() == "fdc7bfafb901ce5ccd17c843bc5f14b75eaa451de86f694c0bd39355a4a0cd6c"
    )
    assert (
        digest({"temperature": 0.5, "seed": 7}).hex()
        == "170858c92dbf2d0861ae1c08265a7b138110e73c971516aa446746f7a3e250e4"
    )
    assert digest(None).hex() == "74234e98afe7498fb5daf1f36ac2d78acc339464f950703b8c019892f982b90b"


def test_answer_keys_are_what_they_were_in_the_first_release() -> None:
    parts = [digest(part) for part in (MESSAGES, "openai_compatible/m", {}, None)]
    assert (
        answer_key(*parts).hex()
        == "0c6c1c5802cb5e0d7c6583876d618516a9ff95c0902139cb2ac63ec70cef6df7"
    )
    assert (
        answer_key(*parts, sample=1).hex()
        == "72c90c0f696dc22b05203e1bba68d837ec457ab45dffb827f637fedb1e842874"
    )


def test_keys_under_a_secret_are_what_they_were_in_their_first_release() -> None:
    """Made of the plain ones: what was paid under these is found by bringing them over."""
    assert KEYED_VERSION == 2
    parts = [digest(part) for part in (MESSAGES, "openai_compatible/m", {}, None)]
    secret = bytes(range(32))
    for sample, expected in enumerate(
        (
            "322f78f2445145683346c0a95ee88f01e5e726e875835c8c6cbf33cef42764f2",
            "93ea7d4a3f0c6a09b3c1048aded5f3d6e267e3b9a50fe3f8f5a2c1fdc460c4db",
        )
    ):
        assert answer_key(*parts, sample, secret).hex() == expected
        assert keyed(answer_key(*parts, sample), secret).hex() == expected
    assert answer_key(*parts, 0, bytes(32)) != answer_key(*parts, 0, secret)


def test_every_part_decides_the_answer_key() -> None:
    parts = [digest(name) for name in ("messages", "model", "sampling", "schema")]
    keys = {answer_key(*parts), answer_key(*parts, sample=1)}
    for index in range(4):
        changed = [*parts[:index], digest("other"), *parts[index + 1 :]]
        keys.add(answer_key(*changed))
    assert len(keys) == 6


def test_canonical_json_has_one_form_for_one_value() -> None:
    assert canonical_json({"b": 1.0, "a": [0.0, -0.0, 0.5, True, None, "é"]}) == (
        '{"a":[0,0,0.5,true,null,"é"],"b":1}'
    )
    assert canonical_json({"a": 1, "b": 2}) == canonical_json({"b": 2.0, "a": 1.0})
    assert text_digest(canonical_json(MESSAGES)) == digest(MESSAGES)


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": float("-inf")}])
def test_values_without_a_json_form_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(value)


def test_ids_of_many_threads_are_unique_and_sort_by_time() -> None:
    made: list[list[bytes]] = [[] for _ in range(8)]
    start = threading.Barrier(8)

    def make(mine: list[bytes]) -> None:
        start.wait()
        mine.extend(new_id() for _ in range(2000))

    threads = [threading.Thread(target=make, args=(mine,)) for mine in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one for mine in made for one in mine}) == 16_000
    for mine in made:
        assert mine == sorted(mine)
        assert {len(one) for one in mine} == {16}


def test_ids_sort_on_while_the_clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = new_id()
    monkeypatch.setattr("time.time_ns", lambda: 1_000_000_000)
    after = [new_id() for _ in range(3)]
    assert [before, *after] == sorted({before, *after})


def test_a_forked_child_does_not_make_the_ids_of_its_parent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = new_id()
    moment = int.from_bytes(now, "big") >> 80
    # the same millisecond in both: then an id is the last one and one more
    monkeypatch.setattr("time.time_ns", lambda: moment * 1_000_000)
    new_id()
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(into, b"".join(new_id() for _ in range(5)))
        os._exit(0)
    mine = {new_id() for _ in range(5)}
    os.waitpid(child, 0)
    data = os.read(out, 80)
    os.close(out)
    os.close(into)
    theirs = {data[index : index + 16] for index in range(0, 80, 16)}
    assert len(theirs) == 5
    assert not mine & theirs

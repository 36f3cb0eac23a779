"""Keys of which one is refused and another is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ondine_dagster.simulator import Settings, Simulator
from ondine_dagster_tests.simulator.clients import ask


def test_each_key_has_its_own_refusal_and_other_keys_work(
    simulator_factory: Callable[..., Simulator],
) -> None:
    simulator = simulator_factory(
        keys={"revoked": "401", "capped": "403 code=key_limit", "empty": "insufficient_quota"}
    )
    replies = {key: ask(simulator, "hello", key=key) for key in ("revoked", "capped", "empty")}
    assert {key: reply.status_code for key, reply in replies.items()} == {
        "revoked": 401,
        "capped": 403,
        "empty": 429,
    }
    metadata = replies["capped"].json()["error"]["metadata"]
    assert metadata["limit_source"] == "openrouter_key_limit"
    assert ask(simulator, "hello", key="good").status_code == 200
    assert ask(simulator, "hello").status_code == 200
    totals = simulator.bill.totals
    assert (totals.requests, totals.charged, totals.refused) == (5, 2, 3)


def test_a_key_is_capped_in_the_middle_of_a_run(
    simulator_factory: Callable[..., Simulator],
) -> None:
    simulator = simulator_factory(keys={"a": "402 after=2"})
    assert [ask(simulator, "x", key="a").status_code for _ in range(4)] == [200, 200, 402, 402]
    assert ask(simulator, "x", key="b").status_code == 200


def test_a_key_recovers_after_so_many_refusals(
    simulator_factory: Callable[..., Simulator],
) -> None:
    simulator = simulator_factory(keys={"a": "401 times=1"})
    assert [ask(simulator, "x", key="a").status_code for _ in range(2)] == [401, 200]


def test_a_refusal_by_key_does_not_count_for_the_prompt(
    simulator_factory: Callable[..., Simulator],
) -> None:
    simulator = simulator_factory(keys={"a": "401"})
    ask(simulator, "one", key="a")
    ask(simulator, "one", key="b")
    (line,) = simulator.bill.snapshot().prompts.values()
    assert (line.requests, line.charged) == (1, 1)


@pytest.mark.parametrize(
    ("fault", "message"), [("stall", "no refusal"), ("length", "no refusal"), ("41", "unknown")]
)
def test_a_key_can_only_be_refused(fault: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(keys={"a": fault})

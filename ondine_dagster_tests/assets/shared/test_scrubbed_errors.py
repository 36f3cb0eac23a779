"""What an exception of the user's own code quotes is scrubbed, in all that it came from too."""

from __future__ import annotations

import traceback

import dagster as dg
import pytest
from pydantic import TypeAdapter

from ondine_dagster.assets.shared.scrubbed_errors import scrubbed_errors
from ondine_dagster.errors import OndineError
from ondine_dagster.privacy.scrubbing import scrubber

CANARY = "canary.jane@example.org"


def told(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


class Deaf(Exception):
    """Says what its arguments do not."""

    def __str__(self) -> str:
        return f"deaf to {CANARY}"


def raise_value_error() -> None:
    raise ValueError(f"mine: {CANARY}")


def raise_with_a_note() -> None:
    error = KeyError(CANARY, 3)
    error.add_note(f"of {CANARY}")
    raise error


def raise_what_pydantic_says() -> None:
    TypeAdapter(int).validate_python(CANARY)


def raise_in_a_chain() -> None:
    try:
        try:
            raise Deaf
        except Deaf as first:
            raise OSError(2, "missing", f"/in/{CANARY}.csv") from first
    except OSError:
        raise Deaf(CANARY)  # noqa: B904 - what came before it is told as well


@pytest.mark.parametrize(
    ("fail", "kept"),
    [
        (raise_value_error, "ValueError: mine: [EMAIL]"),
        (raise_with_a_note, "KeyError: ('[EMAIL]', 3)\nof [EMAIL]"),
        (raise_what_pydantic_says, "ValidationError: 1 validation error for int"),
        (raise_in_a_chain, "Deaf: deaf to [EMAIL]"),
    ],
)
def test_no_value_is_left_and_the_place_is_told(fail, kept) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(Exception) as caught, scrubbed_errors(scrubber()):
        fail()
    said = told(caught.value)
    assert CANARY not in said
    assert kept in said
    assert f"in {fail.__name__}" in said
    if fail is raise_in_a_chain:
        assert said.count("deaf to [EMAIL]") == 2
        assert "FileNotFoundError: [Errno 2] missing: '/in/[EMAIL]" in said


def test_an_exception_with_nothing_in_it_is_the_same_one_and_ours_are_left_alone() -> None:
    for error in (ValueError("plain"), OndineError(CANARY), dg.Failure(CANARY)):
        with pytest.raises(type(error)) as caught, scrubbed_errors(scrubber()):
            raise error
        assert caught.value is error
        assert error.args in (("plain",), (CANARY,))

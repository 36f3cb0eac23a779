"""`--help` of every command: complete, not cut off, with examples that can be typed."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from ondine_dagster.cli.main import cli


def commands(
    group: click.Group = cli, *before: str
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        yield (*before, name), command
        if isinstance(command, click.Group):
            yield from commands(command, *before, name)


ALL = dict(commands())


def shown(*words: str) -> str:
    # as wide as most terminals
    result = CliRunner().invoke(cli, [*words, "--help"], terminal_width=80)
    assert result.exit_code == 0
    return result.output


def test_help_lists_every_command_with_a_whole_line() -> None:
    listed = [
        line.split()[0] for line in shown().splitlines() if line[:2] == "  " and line[2:3].isalpha()
    ]
    assert set(cli.commands) <= set(listed)
    assert "..." not in shown().partition("Options:")[2]
    for group in (words for words, command in ALL.items() if isinstance(command, click.Group)):
        assert "..." not in shown(*group).partition("Options:")[2]


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_option_says_what_it_does(words: tuple[str, ...]) -> None:
    for option in ALL[words].params:
        if isinstance(option, click.Option):
            assert option.help, option.name
    assert " RANGE" not in shown(*words)


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_examples_are_command_lines_that_are_understood(words: tuple[str, ...]) -> None:
    for line in shown(*words).splitlines():
        if line.startswith("    ondine-dagster "):
            typed = shlex.split(line.partition(" > ")[0])[1:]
            assert tuple(typed[: len(words)]) == words
            ALL[words].make_context(words[-1], typed[len(words) :])


def test_a_dataset_is_an_argument_wherever_it_can_be() -> None:
    by_option = {
        words
        for words, one in ALL.items()
        if "--dataset" in [o for p in one.params for o in p.opts]
    }
    assert by_option == {("ledger", "resolve")}  # whose arguments are ids

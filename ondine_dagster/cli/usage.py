"""How `--help` looks: commands by purpose, what commands have in common, examples.

Nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])

_DATASET = """DATASET is the name of a dataset of this project, or the path of a YAML file
(FILE#NAME where the file declares several)."""
EXIT_CODES = """Exit codes: 0 all is well, 1 something is not (the message says what), 2 the command
line is wrong, 130 or 143 interrupted."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def examples(*lines: str, dataset: bool = True) -> str:
    """Return the end of a command's help: command lines, and what DATASET is."""
    shown = "\n".join(f"  ondine-dagster {line}" for line in lines)
    return f"\b\nExamples:\n{shown}" + (f"\n\n{_DATASET}" if dataset else "")


def partition_option(verb: str) -> Callable[[_F], _F]:
    """Return the option --partition of a command that does `verb`."""
    return click.option(
        "--partition",
        "partitions",
        multiple=True,
        metavar="KEY",
        help=f"{verb} only this partition. Repeatable.",
    )


def write_sections(
    context: click.Context,
    formatter: click.HelpFormatter,
    group: click.Group,
    sections: Mapping[str, Sequence[str]],
) -> None:
    """Write the commands of a group under headings, in the order of `sections`."""
    width = max(map(len, group.commands))
    limit = formatter.width - 6 - width
    for heading, names in sections.items():
        commands = [group.commands[name] for name in names]
        # padded, so that the columns of all sections begin at the same place
        rows = [(f"{one.name:<{width}}", one.get_short_help_str(limit)) for one in commands]
        with formatter.section(heading):
            formatter.write_dl(rows)

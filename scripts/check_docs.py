"""Checks the pages against the product: links, commands, declarations and Python.

Run by `make docs-check`. Running the commands is the work of ondine_dagster_tests/test_docs.py.
"""

from __future__ import annotations

import ast
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import click
import yaml
from doc_pages import ROOT, Block, Page, read_pages, steps

COMPONENT = "ondine_dagster.LLMDataset"
PROGRAM = "ondine-dagster"

LoadDeclaration = Callable[[Path], object]


def check_links(page: Page, pages: Iterable[Page]) -> Iterator[str]:
    """Yield a problem for each link to a file or heading that is not there."""
    anchors = {each.path.resolve(): each.anchors() for each in pages}
    for line, target in page.links():
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.path.parent / name).resolve() if name else page.path.resolve()
        if not path.exists():
            yield f"{page.path}:{line}: the link {target} leads nowhere"
        elif anchor and anchor not in anchors.get(path, ()):
            yield f"{page.path}:{line}: {name or page.path.name} has no heading #{anchor}"


def check_blocks(page: Page, load: LoadDeclaration) -> Iterator[str]:
    """Yield a problem for each block that is not what it says it is."""
    for block in page.blocks():
        if block.language == "python":
            yield from _check_python(block)
        elif block.language == "yaml":
            yield from _check_yaml(block, load)
        elif block.language in ("sh", "bash", "shell"):
            yield f"{block.where}: write commands as ```console with `$ `, so that they are run"
        elif block.language == "console":
            yield from _check_console(page, block)


def _check_python(block: Block) -> Iterator[str]:
    try:
        ast.parse(block.text)
    except SyntaxError as error:
        yield f"{block.where}: this Python does not compile: {error}"


def _check_yaml(block: Block, load: LoadDeclaration) -> Iterator[str]:
    try:
        documents = list(yaml.safe_load_all(block.text))
    except yaml.YAMLError as error:
        yield f"{block.where}: this YAML cannot be read: {error}"
        return
    if any(isinstance(each, dict) and each.get("type") == COMPONENT for each in documents):
        yield from _check_declaration(block, load)


def _check_declaration(block: Block, load: LoadDeclaration) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "defs.yaml"
        path.write_text(block.text, encoding="utf-8")
        try:
            load(path)
        except Exception as error:  # noqa: BLE001  any failure is a problem of the page
            yield f"{block.where}: this declaration is refused: {error}"


def _check_console(page: Page, block: Block) -> Iterator[str]:
    if not page.is_run and not block.note("not run"):
        yield f"{block.where}: nobody runs this; mark the page <!-- run --> or say why not"
    try:
        steps(block)
    except ValueError as error:
        yield str(error)


def commands_of(page: Page) -> Iterator[tuple[str, str]]:
    """Yield place and text of each command line in the page, from blocks and code spans."""
    for block in page.blocks():
        if block.language == "console":
            for step in steps(block):
                yield block.where, step.command.replace("\\\n", " ")
    for line, span in page.code_spans():
        if span.startswith((f"{PROGRAM} ", "make ")):
            yield f"{page.path}:{line}", span


def check_command(where: str, line: str, cli: click.Group, targets: set[str]) -> Iterator[str]:
    """Yield a problem for each subcommand, option or make target that does not exist."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    lexer.commenters = ""
    words = [word.strip("[](){}…") for word in lexer]
    for index, word in enumerate(words):
        if word == PROGRAM:
            yield from _check_words(where, words[index + 1 :], cli)
        elif word == "make" and index == 0 and len(words) > 1 and words[1] not in targets:
            yield f"{where}: the Makefile has no target {words[1]}"


def _check_words(where: str, words: list[str], cli: click.Group) -> Iterator[str]:
    command: click.Command = cli
    for word in words:
        if word and word[0] in "|&;<>":
            return
        if word.startswith("--"):
            known = {option for parameter in command.params for option in parameter.opts}
            known |= {option for parameter in command.params for option in parameter.secondary_opts}
            if word.split("=")[0] not in known | {"--help", "--version"}:
                yield f"{where}: `{PROGRAM} {command.name}` has no option {word}"
        elif isinstance(command, click.Group) and not word.startswith("-"):
            if word not in command.commands:
                yield f"{where}: `{PROGRAM}` has no command {word}"
                return
            command = command.commands[word]


def make_targets(makefile: str) -> set[str]:
    """Return the targets that `make` lists."""
    return set(re.findall(r"^([a-z-]+):.*##", makefile, re.MULTILINE))


def problems(
    pages: list[Page], cli: click.Group, load: LoadDeclaration, targets: set[str]
) -> list[str]:
    """Return everything that is wrong with the pages."""
    found: list[str] = []
    for page in pages:
        found += check_links(page, pages)
        blocks = list(check_blocks(page, load))
        found += blocks
        for where, command in commands_of(page) if not blocks else ():
            found += check_command(where, command, cli, targets)
    return found


def main() -> int:
    """Print the problems; return the exit code."""
    from ondine_dagster.cli.main import cli
    from ondine_dagster.component import load_declaration

    pages = read_pages()
    targets = make_targets((ROOT / "Makefile").read_text(encoding="utf-8"))
    found = problems(pages, cli, load_declaration, targets)
    print("\n".join(found) or f"{len(pages)} pages: no problem")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

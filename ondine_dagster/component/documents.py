"""Reads YAML files, document by document, with the line of every key.

Values are those that Dagster itself would see. What YAML would swallow is refused here: a key that
stands twice in one mapping, and braces without quotes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml
from dagster_shared.yaml_utils import parse_yamls_with_source_position
from dagster_shared.yaml_utils.source_position import ValueAndSourcePositionTree

from ondine_dagster.errors import OndineError

Document = ValueAndSourcePositionTree


def read_documents(path: Path) -> list[Document]:
    """Return the documents of a YAML file that are not empty.

    Raises:
        OndineError: the file is missing, no text, or no valid YAML; with the line.
    """
    text = _text(path)
    try:
        for root in yaml.compose_all(text, Loader=yaml.SafeLoader):
            for problem_line, problem in _swallowed(root, seen=set()):
                raise OndineError(f"{path}:{problem_line}: {problem}")
        documents = parse_yamls_with_source_position(text, str(path))
    except yaml.YAMLError as error:
        raise OndineError(f"{path}{_line(error)}: this is not valid YAML: {_what(error)}") from None
    return [document for document in documents if document.value is not None]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise OndineError(f"There is no file {path}. Give the path of a YAML file.") from None
    except UnicodeDecodeError as error:
        raise OndineError(f"{path} is not UTF-8 text (byte {error.start}). Save it so.") from None
    except OSError as error:
        raise OndineError(f"{path} cannot be read: {error.strerror}.") from None


def _swallowed(node: yaml.Node | None, seen: set[int]) -> Iterator[tuple[int, str]]:
    """Yield line and description of what YAML would accept and nobody would mean."""
    if node is None or id(node) in seen:  # an alias leads to a node a second time
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, value in node.value:
            yield from _bad_key(key, keys)
            yield from _swallowed(value, seen)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _swallowed(item, seen)


def _bad_key(key: yaml.Node, keys: set[str]) -> Iterator[tuple[int, str]]:
    line = key.start_mark.line + 1
    if not isinstance(key, yaml.ScalarNode):
        yield line, 'a key must be text; put values with braces in quotes: "{{ ... }}"'
    elif key.value in keys and key.value != "<<":
        yield line, f"the key `{key.value}` stands twice in one mapping; remove one"
    else:
        keys.add(key.value)


def _line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return f":{mark.line + 1}" if mark else ""


def _what(error: yaml.YAMLError) -> str:
    problem = getattr(error, "problem", None) or " ".join(str(error).split())
    context = getattr(error, "context", None)
    if not context:
        return str(problem)
    start = getattr(error, "context_mark", None)
    return f"{problem} ({context}{f' from line {start.line + 1}' if start else ''})"

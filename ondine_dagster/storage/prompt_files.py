"""Reads the files that a prompt names: its templates, partials and examples.

Owns where they may lie: beside the declaration or in the project, and nowhere else, whatever links
say. A final line break, which editors add, is not part of a text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ondine_dagster.errors import OndineError
from ondine_dagster.llm.prompt_texts import ExampleError, PromptTexts, example_of
from ondine_dagster.spec.templates import check, style_of
from ondine_dagster.storage.sources import places

if TYPE_CHECKING:
    from ondine_dagster.spec import Prompt
    from ondine_dagster.spec.examples import Example


def read_prompt(prompt: Prompt, declared_in: Path, project_root: Path) -> PromptTexts:
    """Return the texts of a prompt as its files are now.

    Raises:
        OndineError: a file is not there, is no UTF-8 text or no template, or lies elsewhere; the
            message names setting and file.
    """
    files = _Files(declared_in, project_root)
    partials = {
        name: files.text(f"prompt.partials.{name}", path) for name, path in prompt.partials.items()
    }
    texts: dict[str, str] = {}
    declared = {
        "system": (prompt.system, prompt.system_file),
        "template": (prompt.template, prompt.template_file),
    }
    for name, (written, path) in declared.items():
        if path is not None:
            texts[name] = files.text(f"prompt.{name}_file", path)
        elif written is not None:
            texts[name] = written
    try:
        style = style_of((*texts.values(), *partials.values()), prompt.style)
        for name, text in {**texts, **partials}.items():
            told = f"prompt.partials.{name}" if name in partials else f"prompt.{name}"
            _check(told, text, style, partials)
    except ValueError as error:
        raise OndineError(f"the prompt {error}") from None
    examples: Sequence[Example] = prompt.examples
    if prompt.examples_file is not None:
        examples = files.examples("prompt.examples_file", prompt.examples_file)
    return PromptTexts(texts["template"], texts.get("system"), style, partials, examples)


def _check(told: str, text: str, style: Any, partials: dict[str, str]) -> None:
    try:
        check(text, style, partials)
    except ValueError as error:
        raise ValueError(f"({told}) {error}") from None


class _Files:
    """Files beside a declaration, or in its project."""

    def __init__(self, declared_in: Path, project_root: Path) -> None:
        self._declared_in = declared_in
        self._root = project_root

    def text(self, setting: str, path: str) -> str:
        """Return the text of a file."""
        found = self._find(setting, path)
        try:
            text = found.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise OndineError(
                f"{setting}: {found} is no UTF-8 text: {error.reason} at byte {error.start}. "
                "Save it as UTF-8."
            ) from None
        text = text.replace("\r\n", "\n").removesuffix("\n")
        if not text.strip():
            raise OndineError(f"{setting}: {found} is empty. Write the text into it.")
        return text

    def examples(self, setting: str, path: str) -> list[Example]:
        """Return the examples of a file."""
        text, found = self.text(setting, path), []
        try:
            listed = _listed(text, path)
        except ValueError as error:
            raise OndineError(f"{setting}: {path}: {error}") from None
        for number, one in enumerate(listed, start=1):
            try:
                found.append(example_of(one))
            except ExampleError as error:
                raise OndineError(f"{setting}: {path}, example {number}: {error}") from None
        return found

    def _find(self, setting: str, path: str) -> Path:
        tried = places(path, self._declared_in, self._root)
        found = next((one for one in tried if one.is_file()), None)
        if found is None:
            raise OndineError(
                f"{setting}: there is no file {path!r}. Tried: {', '.join(map(str, tried))}. "
                "Correct the path."
            )
        real = found.resolve()
        beside = self._declared_in if self._declared_in.is_dir() else self._declared_in.parent
        homes = (beside, self._root)
        if not any(real.is_relative_to(home.resolve()) for home in homes):
            raise OndineError(
                f"{setting}: {path!r} leads to {real}, outside of the project {self._root}. "
                "What is sent to a model must lie in the project: copy the file into it."
            )
        return found


def _listed(text: str, path: str) -> list[Any]:
    """Return the items of a file; raises ValueError where it has none."""
    if path.endswith(".jsonl"):
        return [_line(line, number) for number, line in enumerate(text.split("\n"), 1) if line]
    if path.endswith(".json"):
        listed = json.loads(text)
    else:
        import yaml

        try:
            listed = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"is no YAML: {error}") from None
    if not isinstance(listed, list):
        raise ValueError("must hold a list of examples")
    return listed


def _line(line: str, number: int) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise ValueError(f"line {number} is no JSON: {error}") from None

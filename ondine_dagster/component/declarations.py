"""Finds declarations without a running Dagster: in any YAML file, or by name in a project.

What is read here is checked and resolved exactly as the component does it.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ondine_dagster.component.attributes import Attributes
from ondine_dagster.component.documents import Document, read_documents
from ondine_dagster.component.presets import user_presets
from ondine_dagster.errors import OndineError
from ondine_dagster.settings import find_project_root
from ondine_dagster.spec import Dataset

TYPE_NAME = "ondine_dagster.LLMDataset"
_TYPE_NAMES = (TYPE_NAME, "ondine_dagster.component.LLMDataset")
_DOCUMENT_KEYS = ("type", "attributes", "template_vars_module", "requirements", "post_processing")
_FILE_NAMES = ("defs.yaml", "defs.yml", "component.yaml")


@dataclass(frozen=True, slots=True)
class Declared:
    """A dataset with the place of its declaration; both paths are absolute.

    Relative source paths are looked up beside `declared_in` first, then in `project_root`.
    """

    dataset: Dataset
    declared_in: Path
    project_root: Path


def load_declaration(path: Path) -> list[Declared]:
    """Return the datasets that a YAML file declares, or the folder that holds the file.

    Documents of other types are passed over.

    Raises:
        OndineError: no such file, no valid YAML, no dataset in it, or a wrong declaration; the
            message names file and line.
    """
    path = absolute(path)
    if path.is_dir():
        found = [path / name for name in _FILE_NAMES if (path / name).is_file()]
        if not found:
            raise OndineError(
                f"{path} is a folder without a {_FILE_NAMES[0]}. Give the path of a YAML file."
            )
        path = found[0]
    documents = read_documents(path)
    declared = [
        Declared(_dataset(document, path), path, project_root_of(path))
        for document in documents
        if _is_ours(document)
    ]
    if not declared:
        raise OndineError(_nothing_declared(path, documents))
    return declared


def find_declaration(name: str, project_root: Path) -> Declared:
    """Return the dataset `name` of a project, looked for in all YAML files below its defs folder.

    Raises:
        OndineError: there is none (the message lists those that there are), there are two, or its
            declaration is wrong.
    """
    folder = _defs_folder(absolute(project_root))
    found = list(_named(folder))
    places = [(path, document) for path, document, own in found if own == name]
    if not places:
        raise OndineError(_not_found(name, folder, sorted({own for _, _, own in found})))
    if len(places) > 1:
        both = " and ".join(_place(path, document) for path, document in places)
        raise OndineError(f"The dataset {name} is declared twice: {both}. Rename or remove one.")
    path, document = places[0]
    return Declared(_dataset(document, path), path, project_root_of(path))


def project_root_of(declared_in: Path) -> Path:
    """Return the project that a declaration belongs to, or its own folder outside of projects."""
    return find_project_root(declared_in.parent) or declared_in.parent


def absolute(path: Path) -> Path:
    """Return the path without `..`; links are kept, because a mounted file may be one."""
    return Path(os.path.abspath(path))


def _dataset(document: Document, path: Path) -> Dataset:
    attributes = document.value.get("attributes")
    if not isinstance(attributes, dict):
        raise OndineError(
            f"{_place(path, document)}: the settings of a dataset stand below `attributes:`, "
            f"indented; here is {'nothing' if attributes is None else repr(attributes)}"
        )
    _refuse_unknown_keys(document, path)
    positions = document.source_position_tree
    scope = _scope(path)
    presets = partial(user_presets, project_root_of(path), scope)
    return Attributes(attributes, positions, scope, presets).dataset()


def _refuse_unknown_keys(document: Document, path: Path) -> None:
    for key in document.value:
        if key not in _DOCUMENT_KEYS:
            close = get_close_matches(str(key), _DOCUMENT_KEYS, n=1)
            advice = f"did you mean `{close[0]}`?" if close else "settings stand in `attributes:`"
            position = document.source_position_tree.children[key].position
            raise OndineError(f"{position}: unknown key `{key}` beside `type`; {advice}")


def _scope(path: Path) -> dict[str, Any]:
    """Return what templates may use; Dagster's own names, so that both see the same."""
    from dagster.components.resolved.context import ResolutionContext

    return {**ResolutionContext.default().scope, **project_scope(path)}


def project_scope(declared_in: Path) -> dict[str, Any]:
    """Return `context` as templates know it: `{{ context.project_root }}`."""
    return {"context": SimpleNamespace(project_root=str(project_root_of(declared_in)))}


def _is_ours(document: Document) -> bool:
    return isinstance(document.value, dict) and document.value.get("type") in _TYPE_NAMES


def _nothing_declared(path: Path, documents: list[Document]) -> str:
    types = [
        str(document.value["type"])
        for document in documents
        if isinstance(document.value, dict) and "type" in document.value
    ]
    found = f"it has {', '.join(types)}" if types else "it has no `type:` at all"
    return (
        f"{path} declares no dataset: a document must start with `type: {TYPE_NAME}` and have its "
        f"settings below `attributes:`; {found}."
    )


def _named(folder: Path) -> Iterator[tuple[Path, Document, str]]:
    """Yield all datasets below a folder with their names, even if the rest of them is wrong.

    A file that is no YAML is passed over: it may not keep others from being found.
    """
    for path in sorted(path for name in _FILE_NAMES for path in folder.rglob(name)):
        try:
            documents = read_documents(path)
        except OndineError:
            continue
        for document in filter(_is_ours, documents):
            attributes = document.value.get("attributes")
            name = attributes.get("name") if isinstance(attributes, dict) else None
            if isinstance(name, str):
                yield path, document, name


def _not_found(name: str, folder: Path, names: list[str]) -> str:
    close = get_close_matches(name, names, n=1)
    if close:
        hint = f"Did you mean {close[0]}?"
    elif names:
        hint = f"There are: {', '.join(names)}."
    else:
        hint = f"There are none. `dg scaffold defs {TYPE_NAME} {name}` writes one."
    return f"No YAML file below {folder} declares a dataset named {name}. {hint}"


def _place(path: Path, document: Document) -> str:
    return f"{path}:{document.source_position_tree.position.start.line}"


def _defs_folder(project_root: Path) -> Path:
    """Return the folder of a project's declarations, as its pyproject.toml names it."""
    pyproject = project_root / "pyproject.toml"
    table: dict[str, Any] = {}
    if pyproject.is_file():
        tool = tomllib.loads(pyproject.read_text(encoding="utf-8")).get("tool", {})
        table = tool.get("dg", {}).get("project", {})
    root_module = table.get("root_module", project_root.name)
    module = table.get("defs_module", f"{root_module}.defs")
    inside = Path(*module.split("."))
    folders = (project_root / inside, project_root / "src" / inside)
    return next((folder for folder in folders if folder.is_dir()), project_root)

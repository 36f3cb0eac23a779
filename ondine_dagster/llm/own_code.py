"""Finds code of the user's own by its import path: a provider, a model, a function.

It is looked for where Python finds its modules, then in the folders of the declaration.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from ondine_dagster.errors import OndineError

_PACKAGE = "__init__.py"


def load(setting: str, path: str, folders: Iterable[Path], what: str) -> Any:
    """Return what `path` (`package.module:Name`) names; `what` says what it should be.

    Raises OndineError, which begins with `setting`.
    """
    module_name, _, name = path.partition(":")
    folders = tuple(folders)
    # last, so that no file beside a declaration takes the place of a package
    sys.path += [folder for one in folders if (folder := str(one)) not in sys.path]
    try:
        module = import_module(module_name)
    except Exception as error:  # a module of the user's own may raise anything
        raise OndineError(f"{setting}: {_not_imported(module_name, error)}") from error
    _refuse_another(setting, module, folders)
    found = getattr(module, name, None)
    if found is None:
        raise OndineError(f"{setting} is {path}, but {module_name} has no {what} {name}")
    return found


def _refuse_another(setting: str, module: ModuleType, folders: Iterable[Path]) -> None:
    """Refuse a module of one's own where Python has taken another one of the same name."""
    inside = Path(*module.__name__.split("."))
    places = [folder / place for folder in folders for place in (f"{inside}.py", inside / _PACKAGE)]
    own = next((place for place in places if place.is_file()), None)
    taken = getattr(module, "__file__", None)
    if own is not None and (taken is None or not own.samefile(taken)):
        raise OndineError(
            f"{setting}: {module.__name__} is {taken or 'a part of Python'}, and there is another "
            f"one, {own}. Rename one of them."
        )


def version(code: Any) -> str:
    """Return a hash of the file in which code stands, empty where it stands in none."""
    try:
        file = inspect.getsourcefile(code)
        return sha256(Path(file).read_bytes()).hexdigest() if file else ""
    except (OSError, TypeError):
        return ""


def _not_imported(module: str, error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
        return (
            f"there is no module {error.name}. Put it beside the declaration or into the project's "
            "root, or install it"
        )
    return f"{module} cannot be imported: {type(error).__name__}: {error}"

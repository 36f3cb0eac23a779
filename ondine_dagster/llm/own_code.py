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
from typing import Any

from ondine_dagster.errors import OndineError


def load(setting: str, path: str, folders: Iterable[Path], what: str) -> Any:
    """Return what `path` (`package.module:Name`) names; `what` says what it should be.

    Raises OndineError, which begins with `setting`.
    """
    module_name, _, name = path.partition(":")
    # last, so that no file beside a declaration takes the place of a package
    sys.path += [folder for one in folders if (folder := str(one)) not in sys.path]
    try:
        module = import_module(module_name)
    except Exception as error:  # a module of the user's own may raise anything
        raise OndineError(f"{setting}: {_not_imported(module_name, error)}") from error
    found = getattr(module, name, None)
    if found is None:
        raise OndineError(f"{setting} is {path}, but {module_name} has no {what} {name}")
    return found


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

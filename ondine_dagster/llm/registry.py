"""Makes the provider that a declaration names; only its module is imported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from ondine_dagster.errors import OndineError
from ondine_dagster.llm.own_code import load
from ondine_dagster.llm.packing import Packing
from ondine_dagster.llm.prompt_cache import MarksCache
from ondine_dagster.llm.provider import InProcess, Provider, Schema
from ondine_dagster.llm.static_text import StaticText
from ondine_dagster.spec import Llm
from ondine_dagster.spec.providers import PROVIDERS
from ondine_dagster.wording import listed

_Make = Callable[[Llm, Schema | None], Provider]
PackKind = Literal["json", "csv"]
_PACKINGS: Mapping[PackKind, str] = {
    "json": "ondine_dagster.llm.pack_json:JsonPacking",
    "csv": "ondine_dagster.llm.pack_csv:CsvPacking",
}
_MEMBERS = tuple(name for name in vars(Provider) if not name.startswith("_"))


def build_provider(
    llm: Llm, schema: Schema | None, folders: Iterable[Path] = (), static_messages: int = 0
) -> Provider:
    """Return the model whose answers fit a JSON schema; without one they are plain text.

    A provider of one's own is looked for where Python finds its modules, then in `folders`. So many
    messages at the start are the same for all rows: their end is marked where a cache needs that.
    Raises OndineError for a model whose price nobody knows, and for a class that is no provider.
    """
    if llm.provider in PROVIDERS:
        module, _, name = llm.entry.implementation.partition(":")
        make: _Make = getattr(import_module(module), name)
        made = make(llm, schema)
    else:
        made = _own_provider(llm, schema, folders)
    if isinstance(made, MarksCache):
        made.static_messages = static_messages
    return made


def build_packing(
    kind: PackKind, schema: Schema | None, static: StaticText | None = None
) -> Packing:
    """Return how many rows are asked in one request.

    `schema` is the wire schema of one row's answer, None for plain text; `static` is what the user
    messages of all rows have in common. A provider for packs is built with the packing's own
    schema. Raises OndineError for a schema that the kind has no form for.
    """
    module, _, name = _PACKINGS[kind].partition(":")
    make: Callable[[Schema | None, StaticText], Packing] = getattr(import_module(module), name)
    return make(schema, static or StaticText())


def _own_provider(llm: Llm, schema: Schema | None, folders: Iterable[Path]) -> Provider:
    make = _own_class(llm.provider, folders)
    try:
        made = make(llm, schema)
    except OndineError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise OndineError(f"llm.provider: {llm.provider} cannot be made: {reason}") from error
    if missing := [name for name in _MEMBERS if not hasattr(made, name)]:
        raise OndineError(
            f"llm.provider: {llm.provider} is no provider, it lacks {listed(missing, 20)}; a "
            "subclass of ondine_dagster.llm.chat:ChatCompletions has them all"
        )
    if not isinstance(made, InProcess) and not made.url.startswith(("http://", "https://")):
        raise OndineError(f"llm.base_url is missing: {llm.provider} has no address of its own")
    return made


def _own_class(path: str, folders: Iterable[Path]) -> _Make:
    made: Any = load("llm.provider", path, folders, "class")
    if not isinstance(made, type):
        module, _, name = path.partition(":")
        raise OndineError(f"llm.provider is {path}, but {module} has no class {name}")
    return made

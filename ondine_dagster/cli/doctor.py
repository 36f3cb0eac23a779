"""`ondine-dagster doctor`: is everything in place before money is spent? Asks no model."""

from __future__ import annotations

import platform
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from rich.text import Text

from ondine_dagster.assets.export import look_at
from ondine_dagster.assets.resources import LLMProviderResource
from ondine_dagster.assets.rows.prompt_parts import cache_remarks
from ondine_dagster.assets.rows.samples import samples_remark
from ondine_dagster.assets.shared.declared_columns import check_source_columns
from ondine_dagster.cli.budgets import budgets_line, shared_standings, standings_of
from ondine_dagster.cli.console import output
from ondine_dagster.cli.findings import Finding, Level
from ondine_dagster.errors import OndineError
from ondine_dagster.ledger.audit import check
from ondine_dagster.ledger.database import reader_engine, refuse_network_file_system
from ondine_dagster.ledger.estimates import Estimator
from ondine_dagster.ledger.sealing import refuse_other_key, refuse_while_rekeyed, sealing
from ondine_dagster.llm.price_table import price_table
from ondine_dagster.llm.prices import usd
from ondine_dagster.llm.pricing import Pricing
from ondine_dagster.llm.provider import Provider
from ondine_dagster.observe.destination import destination_of
from ondine_dagster.settings import TRACES, Settings, load_settings
from ondine_dagster.spec import Llm
from ondine_dagster.spec.export import Export
from ondine_dagster.spec.providers import PROVIDERS
from ondine_dagster.storage.locate import shown

if TYPE_CHECKING:
    from ondine_dagster.cli.target import Target

_PACKAGES = ("ondine_dagster", "dagster", "duckdb", "pyarrow", "sqlalchemy")
_BLOCK = 4096
_STYLES = {Level.GOOD: "green", Level.LOOK: "yellow", Level.BAD: "bold red"}
_Check = tuple[str, Callable[[], str]]


class _WorthALook(Exception):
    """What works, and a person should know of."""


def doctor_command(called: str | None) -> int:
    """Print what is well and what is not; return the exit code."""
    console, bad = output(), 0
    for finding in findings(called):
        bad += finding.level is Level.BAD
        mark = (f"{finding.level:<6}", _STYLES[finding.level])
        console.print(Text.assemble(mark, f"{finding.what:<13}", finding.found))
    return 1 if bad else 0


def findings(called: str | None) -> Iterator[Finding]:
    """Yield what there is to say about this installation, and about the dataset that is named."""
    yield from _looked_at([("versions", _versions)])
    try:
        checks = _for_dataset(called) if called else _for_folder()
    except OndineError as error:
        yield Finding(Level.BAD, "declaration" if called else "settings", str(error))
        return
    yield from _looked_at(checks)
    from ondine_dagster.cli.dagster_checks import dagster_findings

    yield from dagster_findings(load_settings(Path.cwd()), Path.cwd())


def _looked_at(checks: list[_Check]) -> Iterator[Finding]:
    for what, look in checks:
        try:
            yield Finding(Level.GOOD, what, look())
        except _WorthALook as found:
            yield Finding(Level.LOOK, what, str(found))
        except OndineError as error:
            yield Finding(Level.BAD, what, str(error))


def _for_folder() -> list[_Check]:
    settings = load_settings(Path.cwd())
    return [
        *_places(settings),
        ("keys", lambda: _keys(settings)),
        ("budgets", lambda: budgets_line(shared_standings(settings))),
    ]


def _for_dataset(called: str) -> list[_Check]:
    from ondine_dagster.cli.target import find_target

    target = find_target(called)
    declared_in = target.declared.declared_in
    return [
        ("declaration", lambda: f"{target.name} in {declared_in}"),
        *_places(target.settings),
        ("source", lambda: _source(target)),
        ("prompt", lambda: _prompt(target)),
        ("model", lambda: _model(target)),
        ("key", lambda: _key(target)),
        ("provider", lambda: _provider(target)),
        ("budgets", lambda: budgets_line(standings_of(target))),
        *(("export", partial(_export, target, one)) for one in target.declared.dataset.export),
    ]


def _places(settings: Settings) -> list[_Check]:
    return [
        ("data folder", lambda: _writable(settings.data_dir)),
        ("ledger", lambda: _ledger(settings.ledger_path)),
        ("DAGSTER_HOME", lambda: _writable(settings.dagster_home)),
        *([("traces", lambda: _traces(settings))] if settings.variable(TRACES) else []),
    ]


def _traces(settings: Settings) -> str:
    """Say where traces go; nothing is sent."""
    destination = destination_of(settings)
    if destination is None:
        return "off"
    if destination.plain_text:
        raise _WorthALook(f"{destination.url}: keys and texts go there unencrypted")
    return f"{destination.kind} {destination.url}"


def _versions() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return f"Python {platform.python_version()}, {packages}, SQLite {sqlite3.sqlite_version}"


def _writable(folder: Path) -> str:
    """Say whether files can be written in `folder`, or it can be made itself."""
    existing = next(one for one in (folder, *folder.parents) if one.exists())
    try:
        with TemporaryFile(dir=existing, buffering=0) as file:
            file.write(bytes(_BLOCK))  # a full disk still makes empty files
    except OSError as error:
        raise OndineError(
            f"{folder}: no file can be written in {existing}: {error.strerror}"
        ) from None
    return str(folder) if existing == folder else f"{folder} (made by the first run)"


def _ledger(path: Path) -> str:
    existing = next(one for one in path.parents if one.exists())
    refuse_network_file_system(existing / path.name)
    used = sealing()
    sealed = "" if used.namespace is None else f", new texts encrypted ({used.namespace.hex()})"
    if not path.exists():
        return f"{path}, made by the first run{sealed}"
    with reader_engine(path).connect() as connection:
        refuse_while_rekeyed(connection)
        refuse_other_key(connection, path, used)
        problems = check(connection)
    if problems:
        raise OndineError(
            f"{path} does not add up: {problems[0]} ({len(problems)} in all, "
            "`ondine-dagster ledger check` lists them)"
        )
    return f"{path}, adds up{sealed}"


def _keys(settings: Settings) -> str:
    found = {
        variable: len(settings.keys_in(variable))
        for variable in dict.fromkeys(entry.key_variable for entry in PROVIDERS.values())
        if variable
    }
    there = [_set(variable, keys) for variable, keys in found.items() if keys]
    return ", ".join(there) or f"none is set ({', '.join(found)})"


def _set(variable: str, keys: int) -> str:
    if not keys:
        return f"{variable} is not set"
    return f"{variable} is set" + (f" ({keys} keys)" if keys > 1 else "")


def _source(target: Target) -> str:
    columns = target.pipeline.source_columns()
    check_source_columns(target.pipeline, columns)
    return f"{shown(target.pipeline.source())}: {', '.join(columns)}"


def _prompt(target: Target) -> str:
    """Say how much of the prompt all rows share, and whether that is cached."""
    pipeline = target.pipeline
    renderer = pipeline.renderer
    try:
        estimator = Estimator(pipeline.provider, None)
    except OndineError:  # said of the model
        return f"names {', '.join(sorted(renderer.columns)) or 'no column'}"
    few = samples_remark(pipeline)
    if remarks := [*cache_remarks(pipeline, estimator), *([few] if few else [])]:
        raise _WorthALook(" ".join(remarks))
    same = estimator.tokens_around + estimator.tokens_in(renderer.static_json)
    return f"about {same:,} tokens are the same for all rows"


def _export(target: Target, declared: Export) -> str:
    to, folder = look_at(target.pipeline, declared)
    if folder is not None:
        _writable(folder)
    return to


def _highest(llm: Llm) -> str:
    """Return what a provider of OpenRouter may charge at most, where that is declared."""
    most = llm.openrouter.max_price if llm.openrouter else None
    if most is None:
        return ""
    prices = f"${most.input_per_million_usd:f} in and ${most.output_per_million_usd:f} out"
    return f"; at most {prices} (llm.openrouter.max_price)"


def _model(target: Target) -> str:
    target.pipeline.check_price()
    llm = target.declared.dataset.llm
    pricing = Pricing(llm)
    rates = pricing.prices.rates
    words = {"declared": "declared", "local": "it runs here, which is free"}
    source = words.get(pricing.source, f"price table of {price_table().date}")
    return (
        f"{llm.name} at {llm.endpoint}, ${_shown(rates.input)} in and "
        f"${_shown(rates.output)} out per million tokens ({source}){_highest(llm)}"
    )


def _shown(picodollars: int) -> str:
    return f"{usd(picodollars).normalize():f}"


def _provider(target: Target) -> str:
    """Say what a look-up of key and model finds; of the fallback too, where one is declared."""
    pipeline = target.pipeline
    try:
        pipeline.check_price()
    except OndineError:  # said of the model already
        return "was not asked"
    found = [_looked_up(target, target.declared.dataset.llm, pipeline.provider)]
    if pipeline.fallback_llm is not None and pipeline.fallback is not None:
        found.append(_looked_up(target, pipeline.fallback_llm, pipeline.fallback))
    return "; ".join(found)


def _looked_up(target: Target, llm: Llm, provider: Provider) -> str:
    from ondine_dagster.engine.preflight import missing_package

    if (missing := missing_package(llm)) is not None:
        raise OndineError(missing.message)
    if llm.entry.in_process:
        return f"{llm.provider} runs in this process"
    keys = target.settings.keys_in(llm.key_source)
    if llm.entry.check is None or not (keys or llm.on_this_machine):
        return f"{llm.endpoint} was not asked"
    resource = LLMProviderResource(
        ledger_path=str(target.settings.ledger_path),
        project_root=str(target.declared.project_root),
    )
    checked = resource.preflight(target.pipeline.dataset, llm, provider, always=True).look()
    if checked.failure is not None:
        raise OndineError(checked.failure.message)
    if checked.notes:
        raise _WorthALook("; ".join(checked.notes))
    window = checked.context_window
    fits = f", whose context window is {window:,} tokens" if window is not None else ""
    left = f"; the key may spend ${checked.credit:f} more" if checked.credit is not None else ""
    return f"{llm.endpoint} has {llm.name}{fits}{left}"


def _key(target: Target) -> str:
    from ondine_dagster.engine.azure_identity import token_source

    llm = target.declared.dataset.llm
    variable = llm.key_source
    target.settings.headers_in(llm.header_variables)
    if llm.azure and token_source(llm) is not None:
        return f"none; tokens of {llm.azure.credential} are fetched before the first row"
    if variable is None:
        return f"{llm.provider} needs none"
    if keys := target.settings.keys_in(variable):
        return _set(variable, len(keys))
    if llm.on_this_machine:
        return f"{variable} is not set, and a server on this machine needs none"
    raise OndineError(f"{variable} is not set: {llm.endpoint} will refuse every request. Set it.")

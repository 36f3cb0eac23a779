"""`ondine-dagster import`: a configuration of Ondine in, a defs.yaml out, and what became of it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ondine_dagster.assets.shared.declared_columns import check_source_columns
from ondine_dagster.cli.console import messages, output
from ondine_dagster.cli.target import program, word
from ondine_dagster.component.declarations import TYPE_NAME, absolute, load_declaration
from ondine_dagster.component.declarations import project_root_of as root_of
from ondine_dagster.component.from_ondine.composition import convert
from ondine_dagster.component.from_ondine.converting import Converted
from ondine_dagster.errors import OndineError
from ondine_dagster.storage.atomic import ensure_folder, write_atomically
from ondine_dagster.wording import plural


def import_command(config: Path, out: Path | None, name: str | None) -> None:
    """Write the declaration to `out`, or to standard output; remarks go to standard error.

    Raises:
        OndineError: the configuration cannot be read or lacks what no dataset can be without,
            `out` exists, or the name is none that a dataset may have.
    """
    if out is not None and out.exists():
        raise OndineError(f"{out} exists. Name another file, or remove it.")
    converted = convert(config, name or _name(config, out))
    text = _text([_with_source(one, out) for one in converted], config)
    console = messages()
    if out is None:
        output().print(text, end="", markup=False)
    else:
        ensure_folder(out.absolute().parent, private=False)
        write_atomically(out.absolute(), text.encode(), private=False)
        called = converted[0].attributes["name"]
        declared = word(str(out) if len(converted) == 1 else f"{out}#{called}")
        command = f"{program()} plan {declared}"
        console.print(
            f"{plural(len(converted), 'dataset')} in {out}. Next: {command}", markup=False
        )
        _say_what_is_missing(out)
    for one in converted:
        for remark in one.remarks:
            place = f"{remark.path}:{remark.line}" if remark.line else str(remark.path)
            kind = "" if remark.carried else " is not carried over"
            console.print(f"{place}: {remark.key}{kind}: {remark.text}.", markup=False)


def _name(config: Path, out: Path | None) -> str:
    """Return a name for the dataset: that of the folder of a defs.yaml, else of the file."""
    stem = (out or config).stem
    folder = absolute(out).parent.name if out is not None else ""
    text = stem if stem != "defs" else config.stem if folder == "defs" else folder
    name = re.sub("[^a-z0-9]+", "_", text.lower()).strip("_")
    return name if re.match("[a-z]", name) else f"dataset_{name}".rstrip("_")


def _with_source(converted: Converted, out: Path | None) -> Mapping[str, Any]:
    """Return the attributes with a source that is found from the new file too.

    Ondine looks for it from the folder in which it is started, we beside the declaration and in
    the project.
    """
    source = converted.attributes["source"]
    path = source.get("path", "")
    here = absolute(Path(path))
    if out is None or not path or "{{" in path or Path(path).is_absolute() or not here.exists():
        return converted.attributes
    file = absolute(out)
    if any((folder / path).exists() for folder in (file.parent, root_of(file))):
        return converted.attributes
    return {
        **converted.attributes,
        "source": {**source, "path": os.path.relpath(here, file.parent)},
    }


def _text(datasets: Sequence[Mapping[str, Any]], config: Path) -> str:
    documents = [
        yaml.dump(
            {"type": TYPE_NAME, "attributes": dict(attributes)},
            Dumper=_Dumper,
            sort_keys=False,
            allow_unicode=True,
            width=100,
        )
        for attributes in datasets
    ]
    return f"# From {config.name}, a configuration of Ondine.\n" + "---\n".join(documents)


def _say_what_is_missing(out: Path) -> None:
    """Say what stands between the new declaration and a run: prices, variables, the table."""
    from ondine_dagster.assets.shared.pipeline import Pipeline

    try:
        for one in load_declaration(out):
            pipeline = Pipeline(one.dataset, one.declared_in, one.project_root)
            pipeline.check_price()
            check_source_columns(pipeline, pipeline.source_columns())
    except OndineError as error:
        messages().print(f"Still to do: {error}", style="yellow", markup=False)


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as people do."""


def _long_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = "|" if "\n" in text and not re.search(r"[ \t]\n|[ \t]$|\r", text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _long_text)

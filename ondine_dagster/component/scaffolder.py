"""What `dg scaffold defs ondine_dagster.LLMDataset NAME` writes: a declaration that runs."""

# No `from __future__ import annotations`: Dagster reads annotations of scaffolders at run time.

import re
from pathlib import Path
from typing import Any

import dagster as dg

from ondine_dagster.errors import OndineError
from ondine_dagster.spec.dataset import RESERVED_NAMES

SAMPLE_FILE = "rows.csv"
_SAMPLE = """id,review
1,"Came two days early, and works as promised."
2,"The lid was cracked. They sent a new one, no questions asked."
3,"Does what it says. Nothing more."
"""

_YAML = """\
type: ondine_dagster.LLMDataset

attributes:
  name: {name}

  # The table: CSV, JSON, Excel or Parquet; beside this file, or in the project root.
  source:
    path: {sample}
    key: id # the column that identifies a row

  # What is asked about each row. A column is written {{{{ column }}}}.
  prompt:
    system: You label product reviews.
    template: "Review: {{{{ review }}}}"

  # The model. Until you have one, `ondine-dagster simulate` answers at this address.
  # The key is read from the environment variable OPENAI_COMPATIBLE_API_KEY.
  llm:
    provider: openai_compatible
    name: my-model
    base_url: http://127.0.0.1:8765/v1 # or "{{{{ env('LLM_URL', 'http://127.0.0.1:8765/v1') }}}}"
    prices:
      input_per_million_usd: 0.15
      output_per_million_usd: 0.60
    temperature: 0

  # The answer: each field becomes a column. Without fields, the answer is plain text.
  output:
    fields:
      sentiment:
        type: string
        enum: [positive, negative, neutral]
      score:
        type: integer
        description: How satisfied the customer is, 0 to 10.
        minimum: 0
        maximum: 10
        column: stars # another name for the column; free to change

  # partitions:
  #   rows: 5000 # rows in one partition, the unit of progress and of backfills

  # limits:
  #   concurrency: 16 # requests in flight at the same time
"""

_PYTHON = """\
from decimal import Decimal

import dagster as dg

from ondine_dagster import (
    Dataset,
    DeclaredPrices,
    LLMDataset,
    Llm,
    Output,
    OutputField,
    Prompt,
    Source,
)

DATASET = Dataset(
    name="{name}",
    # The table: CSV, JSON, Excel or Parquet; beside this file, or in the project root.
    source=Source(path="{sample}", key=("id",)),
    # What is asked about each row. A column is written {{{{ column }}}}.
    prompt=Prompt(
        system="You label product reviews.",
        template="Review: {{{{ review }}}}",
    ),
    # The model. Until you have one, `ondine-dagster simulate` answers at this address.
    # The key is read from the environment variable OPENAI_COMPATIBLE_API_KEY.
    llm=Llm(
        provider="openai_compatible",
        name="my-model",
        base_url="http://127.0.0.1:8765/v1",
        prices=DeclaredPrices(
            input_per_million_usd=Decimal("0.15"), output_per_million_usd=Decimal("0.60")
        ),
        temperature=0,
    ),
    # The answer: each field becomes a column. Without fields, the answer is plain text.
    output=Output(
        fields={{
            "sentiment": OutputField(type="string", enum=("positive", "negative", "neutral")),
            "score": OutputField(
                type="integer",
                description="How satisfied the customer is, 0 to 10.",
                minimum=0,
                maximum=10,
                column="stars",
            ),
        }}
    ),
)


@dg.component_instance
def load(context: dg.ComponentLoadContext) -> LLMDataset:
    return LLMDataset(DATASET)
"""


class LLMDatasetScaffolder(dg.Scaffolder[Any]):
    """Writes a declaration with comments, and three sample rows that it can run on."""

    def scaffold(self, request: dg.ScaffoldRequest[Any]) -> None:
        """Write `defs.yaml`, or `component.py`, and the sample unless there is one."""
        if request.append:
            _append(request.target_path)
            return
        name = dataset_name(request.target_path.name)
        is_yaml = request.scaffold_format == "yaml"
        content = (_YAML if is_yaml else _PYTHON).format(name=name, sample=SAMPLE_FILE)
        file = request.target_path / ("defs.yaml" if is_yaml else "component.py")
        file.write_text(content, encoding="utf-8")
        _write_sample(request.target_path)


def _append(file: Path) -> None:
    name = dataset_name(file.parent.name + "_more")
    document = _YAML.format(name=name, sample=SAMPLE_FILE)
    with file.open("a", encoding="utf-8") as stream:
        stream.write(f"---\n{document}")
    _write_sample(file.parent)


def _write_sample(folder: Path) -> None:
    if not (folder / SAMPLE_FILE).exists():
        (folder / SAMPLE_FILE).write_text(_SAMPLE, encoding="utf-8")


def dataset_name(folder: str) -> str:
    """Return the name of a dataset in a folder of this name: `Product-Reviews` makes
    `product_reviews`.

    Raises:
        OndineError: nothing of the folder's name can stand in the name of a dataset.
    """
    name = re.sub("[^a-z0-9]+", "_", folder.lower()).strip("_")[:63]
    if not re.match("[a-z]", name):
        raise OndineError(f"No dataset can be named after the folder {folder!r}: start with a-z.")
    return f"{name}_rows" if name in RESERVED_NAMES else name

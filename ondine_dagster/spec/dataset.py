"""`Dataset`: the whole declaration of one dataset, for YAML, Python and the command line."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from ondine_dagster.spec.attachments import Document, Image
from ondine_dagster.spec.base import (
    LOCAL,
    QUESTION,
    REQUEST,
    TEMPLATED,
    VERBATIM,
    FilledText,
    ImportPath,
    Part,
    Whole,
)
from ondine_dagster.spec.batching import Batching
from ondine_dagster.spec.checks import Checks, refuse_strange_checks
from ondine_dagster.spec.columns import AGREEMENT_COLUMNS, RESERVED_COLUMNS
from ondine_dagster.spec.condition import Condition
from ondine_dagster.spec.export import Exports
from ondine_dagster.spec.file_places import is_address
from ondine_dagster.spec.limits import Limits
from ondine_dagster.spec.llm import Llm
from ondine_dagster.spec.output import Output
from ondine_dagster.spec.partitions import DeclaredPartitions, Partitions
from ondine_dagster.spec.privacy import Privacy
from ondine_dagster.spec.problems import Location, refused_at, shown
from ondine_dagster.spec.prompt import Prompt
from ondine_dagster.spec.schedule import ScheduleField
from ondine_dagster.spec.source import Source
from ondine_dagster.spec.upstream import DATASET_NAME

# A dataset is a schema in `ondine-dagster sql`: these are DuckDB's own, and the ledger's.
RESERVED_NAMES = frozenset(
    {"information_schema", "ledger", "main", "memory", "pg_catalog", "system", "temp"}
)
_EMAIL = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}")


def _dataset_name(name: str) -> str:
    if not DATASET_NAME.fullmatch(name):
        raise ValueError(
            f"is {shown(name)}; it must start with a small letter, and hold only small letters, "
            "digits and _, at most 63"
        )
    if name in RESERVED_NAMES:
        raise ValueError(f"is {shown(name)}, which is reserved; choose another name")
    return name


def _owner(owner: str) -> str:
    if not _EMAIL.fullmatch(owner) and not re.fullmatch("team:.+", owner):
        raise ValueError(f"is {shown(owner)}; it must be an e-mail address, or team:name")
    return owner


class Dataset(Part):
    """A table in, a labelled table out: one dataset, as its owner declares it.

    Raises:
        pydantic.ValidationError: one sentence per problem; `format_errors` lists them.
    """

    place: ClassVar[Location] = ()

    name: Annotated[FilledText, AfterValidator(_dataset_name), LOCAL] = Field(
        description="The name of the dataset: prefix and group of its assets, schema of its "
        "tables, folder of its files.",
        examples=["product_reviews"],
    )
    description: Annotated[FilledText | None, LOCAL, TEMPLATED] = Field(
        default=None,
        description="What the dataset is for; shown with its assets.",
        examples=["Sentiment and stars of our product reviews."],
    )
    owners: Annotated[
        tuple[Annotated[FilledText, AfterValidator(_owner)], ...], LOCAL, TEMPLATED
    ] = Field(
        default=(),
        description="Who answers for the assets: e-mail addresses, or team:name.",
        examples=[["team:reviews", "ana@example.com"]],
    )
    source: Source = Field(description="The table to label.")
    partitions: DeclaredPartitions = Field(
        default=Partitions(rows=5000),
        description="How the rows are divided into partitions: a section with one kind, or the "
        "word `none`.",
        examples=["none"],
    )
    when: Annotated[Condition | None, LOCAL, VERBATIM] = Field(
        default=None,
        description="Which rows are asked: a Jinja expression over the row's columns, without "
        "braces. A row for which it is false or NULL is skipped: nobody is asked, and it is in "
        "`results` with empty output columns and `_outcome` skipped. After a change partitions are "
        "stale; rows that are asked still keep their answers, and only new ones cost.",
        examples=["stars < 3", "row['Review Text'] | trim != ''"],
    )
    samples: Annotated[Whole, REQUEST] = Field(
        default=1,
        ge=1,
        le=9,
        description="How many answers each row gets. Columns that hold a choice are voted on, "
        "and `_agreement` and `_votes` say how well the answers agree. Each is paid once; more "
        "samples later pay only for those that are new.",
        examples=[3],
    )
    prompt: Prompt = Field(description="What is asked about each row.")
    llm: Annotated[Llm, QUESTION, TEMPLATED] = Field(
        description="Which model answers, where, and for how much: a section, or one string "
        "`provider/model`, or the name of a preset.",
        examples=["ollama/llama3.1:8b"],
    )
    output: Output = Field(default=Output(), description="What an answer looks like.")
    batching: Batching = Field(
        default=Batching(), description="How many rows are asked about in one request."
    )
    limits: Limits = Field(
        default=Limits(), description="What may be spent, and how much may be asked at once."
    )
    schedule: ScheduleField = Field(
        default=None,
        description="When the dataset is run automatically, once its schedule is switched on in "
        "Dagster: cron as text, or with a time zone as `{cron: ..., timezone: ...}`.",
        examples=["0 6 * * *"],
    )
    run_partitions: Annotated[Whole, LOCAL] = Field(
        default=100,
        ge=1,
        le=1000,
        description="The most partitions that one run of a backfill, schedule or sensor takes.",
        examples=[24],
    )

    export: Exports = Field(
        default=(),
        description="Where the results go when they have changed: a file, or a table of a "
        "database; one section, or a list of several. It makes an asset `export`.",
        examples=[{"to": "out/reviews.parquet"}],
    )
    privacy: Privacy = Field(
        default=Privacy(),
        description="Where personal data and secrets are taken out of texts.",
    )
    checks: Checks = Field(
        default=Checks(), description="When a check warns or fails, and what stops a run."
    )
    observer: Annotated[ImportPath | None, LOCAL] = Field(
        default=None,
        description="A class of your own by import path whose method `on_event` is told of what "
        "happens in runs. Looked for beside the declaration too.",
        examples=["my_module:MyObserver"],
    )

    @property
    def source_pattern(self) -> str | None:
        """The file with the rows, or the pattern of the files; None where they are elsewhere."""
        return self.partitions.file_pattern or self.source.path

    @property
    def is_in_files(self) -> bool:
        """Whether the rows are in files of this machine."""
        return self.source_pattern is not None and not is_address(self.source_pattern)

    def refuse_contradictions(self) -> None:
        """Refuse rows from nowhere or from two places, and types for files that have their own."""
        places, files = self.source.place_names(), self.partitions.file_pattern
        if not places and files is None:
            raise refused_at(("source", "path"), "is missing; it is required", None)
        if places and files is not None:
            is_private = places[0] in ("database", "dataframe")
            value = "declared" if is_private else shown(getattr(self.source, places[0]))
            text = f"is {value}, but `partitions` name the files: {files}; remove one of them"
            raise refused_at(("source", places[0]), text, None)
        if self.source.dataset == self.name:
            text = f"is {shown(self.name)}, this very dataset; name another one"
            raise refused_at(("source", "dataset"), text, self.name)
        self.source.refuse_strange(self.source_pattern)
        refuse_strange_checks(self.checks, self.output)
        self._refuse_strange_samples()
        for llm in filter(None, (self.llm, self.llm.fallback_llm())):
            _refuse_files_not_taken(self.prompt, llm)

    def _refuse_strange_samples(self) -> None:
        """Refuse samples that nothing can be made of, or that would all be the same answer."""
        if self.samples == 1:
            return
        if self.output.fields and not self.output.voted():
            text = (
                f"is {self.samples}, but no field can be voted on: that takes one with `enum`, "
                "`synonyms` or a list in `accept`, or a boolean or an integer"
            )
            raise refused_at(("samples",), text, self.samples)
        own = self.llm.openrouter
        if own is not None and own.response_cache_seconds:
            text = (
                f"is {self.samples}, but llm.openrouter.response_cache_seconds would bring the "
                "same answer each time; remove one of them"
            )
            raise refused_at(("samples",), text, self.samples)

    def output_columns(self) -> tuple[str, ...]:
        """Return the names of the columns that the answers become, in declared order."""
        return self.output.columns()

    def result_columns(self) -> tuple[str, ...]:
        """Return the output columns, and those that say how several samples voted."""
        return (*self.output_columns(), *(AGREEMENT_COLUMNS if self.samples > 1 else ()))

    def reserved_columns(self) -> frozenset[str]:
        """Return the names that no source column may have: the product adds them itself."""
        return RESERVED_COLUMNS | (frozenset(AGREEMENT_COLUMNS) if self.samples > 1 else set())


def _refuse_files_not_taken(prompt: Prompt, llm: Llm) -> None:
    """Refuse images and documents that a model is not sent, or not by URL."""
    name, entry = llm.provider, llm.entry
    kinds: list[tuple[str, tuple[Image | Document, ...], bool, bool]] = [
        ("images", prompt.images, entry.images, entry.image_urls),
        ("documents", prompt.documents, entry.documents, entry.document_urls),
    ]
    for kind, attached, taken, urls in kinds:
        if attached and not taken:
            text = f"are not taken by provider {name}; remove them"
            raise refused_at(("prompt", kind), text, None)
        for place, one in enumerate(attached):
            if not one.fetch and not urls:
                text = f"is false, but provider {name} takes no URLs of {kind}; remove it"
                raise refused_at(("prompt", kind, place, "fetch"), text, False)
    if prompt.documents and llm.document_tokens is None:
        text = (
            "is missing: with prompt.documents, say how many prompt tokens one of them is billed "
            "as at most. The bytes of a PDF do not tell"
        )
        raise refused_at(("llm", "document_tokens"), text, None)

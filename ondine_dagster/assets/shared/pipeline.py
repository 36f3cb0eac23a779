"""What the stages of one dataset share: its declaration, and everything derived from it.

Owns the digests that later say why a partition is stale: the question (prompt, model, sampling,
wire schema) decides answers and costs money to change, the local part costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from glob import has_magic
from pathlib import Path
from typing import TYPE_CHECKING

from ondine_dagster.assets.shared.declared_code import answer_code, observer_class, with_fields_of
from ondine_dagster.assets.shared.ledger_keys import LedgerKeys
from ondine_dagster.assets.shared.partition_counts import RESPONSES
from ondine_dagster.assets.shared.watched_reader import WatchedReader
from ondine_dagster.errors import OndineError
from ondine_dagster.ledger.identity import answer_key, digest
from ondine_dagster.llm.answers import AnswerReader, Values
from ondine_dagster.llm.condition import RowCondition
from ondine_dagster.llm.errors import ErrorClass
from ondine_dagster.llm.own_code import version
from ondine_dagster.llm.packing import Packing
from ondine_dagster.llm.prompt import PromptRenderer
from ondine_dagster.llm.prompt_texts import PromptTexts
from ondine_dagster.llm.provider import Provider
from ondine_dagster.llm.registry import build_packing, build_provider
from ondine_dagster.llm.rejection import Rejection
from ondine_dagster.llm.structured import wire_schema
from ondine_dagster.privacy.detectors import VERSION as DETECTORS_VERSION
from ondine_dagster.privacy.placeholders import with_stand_ins
from ondine_dagster.privacy.scrubbing import Scrub, scrubber
from ondine_dagster.settings import Settings, load_settings
from ondine_dagster.spec import Dataset, Llm, Privacy
from ondine_dagster.storage.asset_source import asset_table_file
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.locate import columns_of, locate, pieces_of
from ondine_dagster.storage.located import Located, Piece
from ondine_dagster.storage.prompt_files import read_prompt
from ondine_dagster.storage.snapshot import Snapshot, current_snapshot
from ondine_dagster.storage.sources import SourceNotFound, places

if TYPE_CHECKING:
    from ondine_dagster.ledger.ledger import Ledger

# Raised when the files of a stage change their shape, so that partitions are written again.
LAYOUT = 1


class Pipeline:
    """One dataset as declared in one place."""

    def __init__(self, dataset: Dataset, declared_in: Path, project_root: Path) -> None:
        """Take a declaration; raises OndineError for code that it names and that is not there."""
        self.name = dataset.name
        self.declared_in = declared_in
        self.project_root = project_root
        self.keys = LedgerKeys()
        try:
            # the model or the function of the user's own that reads answers, where there is one
            self.code = answer_code(dataset.output, self.folders)
            self.dataset = with_fields_of(self.code, dataset)
            named = dataset.observer
            self.observer = (
                None if named is None else observer_class("observer", named, self.folders)
            )
        except OndineError as error:
            raise OndineError(f"{declared_in}: {error}") from error

    def settings(self) -> Settings:
        """Read the environment now: at run time, not when definitions are loaded."""
        return load_settings(self.project_root)

    def source(self) -> Located:
        """Return where the rows are: a file or the pattern of several, or elsewhere.

        Of another dataset it is the folder of its files, of an upstream asset the table that was
        loaded last. Raises OndineError with the places where it was looked for.
        """
        source = self.dataset.source
        if source.dataset is not None:
            return self.settings().lake_root / source.dataset
        if source.asset is not None:
            return self._asset_table(source.asset)
        return locate(
            self.dataset, self.declared_in, self.project_root, lambda: self.settings().environ
        )

    @property
    def asset_table_file(self) -> Path | None:
        """Return where the table of the upstream asset is kept; None where there is no such one."""
        asset = self.dataset.source.asset
        if asset is None:
            return None
        return asset_table_file(self.settings().data_dir, self.name, asset)

    def _asset_table(self, asset: str) -> Path:
        file = asset_table_file(self.settings().data_dir, self.name, asset)
        if not file.is_file():
            raise SourceNotFound(
                f"source.asset: the table of {asset} was not loaded yet. Its IO manager is "
                f"Dagster's: materialize {self.name}/snapshot there."
            )
        return file

    def source_pieces(self) -> list[Piece]:
        """Return what the watch sensor sees of the source.

        Raises NotWatchable where that is nothing, OndineError where nobody answers.
        """
        return pieces_of(self.dataset, self.source())

    def source_columns(self) -> list[str]:
        """Return the source's columns; raises OndineError where they cannot be read (yet)."""
        return columns_of(self.dataset, self.source())

    def bind(self, ledger: Ledger, lake: Lake) -> None:
        """Tie the dataset's name to this declaration in the ledger, before money is spent.

        Raises OndineError where another declaration has the name, and where the ledger is another
        one than that which paid for the answers in the lake.
        """

        def answers() -> Path | None:
            files = lake.partitions(self.name, RESPONSES)
            return lake.path(self.name, RESPONSES, files[0]).parent.parent if files else None

        ledger.bind_dataset(self.name, self.declared_in, answers)
        with ledger.database.read() as connection:
            self.keys.look(connection)

    def check_price(self) -> None:
        """Refuse a model whose price nobody knows; the message says how to give one."""
        _ = self.provider, self.fallback, self.packing

    def snapshot(self, lake: Lake) -> Snapshot:
        """Return the current snapshot; raises OndineError where none was taken yet."""
        snapshot = current_snapshot(lake, self.name)
        if snapshot is None:
            raise OndineError(
                f"Dataset {self.name} has no snapshot yet. Materialize {self.name}/snapshot first, "
                f"or run `ondine-dagster run {self.name}`."
            )
        return snapshot

    @cached_property
    def provider(self) -> Provider:
        """Return the declared model as the engine needs it.

        Raises OndineError for a model whose price nobody knows.
        """
        return self._provider_of(self.dataset.llm)

    @cached_property
    def fallback(self) -> Provider | None:
        """Return the model that is asked again for rejected rows, where another one is declared.

        Raises OndineError where nobody knows its price.
        """
        llm = self.fallback_llm
        return None if llm is None else self._provider_of(llm, "fallback")

    @property
    def folders(self) -> tuple[Path, Path]:
        """Return where code and files that the declaration names are looked for."""
        return self.declared_in.absolute().parent, self.project_root

    @cached_property
    def fallback_llm(self) -> Llm | None:
        """Return the declaration of that model, None where no other one is declared."""
        return self.dataset.llm.fallback_llm()

    def _provider_of(self, llm: Llm, section: str = "") -> Provider:
        same = self.renderer.static_messages
        try:
            schema = wire_schema(self.dataset.output.fields)
            return build_provider(llm, schema, self.folders, same)
        except OndineError as error:
            text = str(error)
            if section:
                text = text.replace("`llm.prices`", f"`llm.{section}.prices`").replace(
                    "`llm:`", f"`llm: {section}:`"
                )
            raise OndineError(f"{self.declared_in}: {text}") from None

    @cached_property
    def packing(self) -> tuple[Packing, Provider] | None:
        """Return how several rows go in one request, and the model that is asked so.

        None where each row goes alone. Raises OndineError for a format that the fields do not fit.
        """
        return self._packing_of(self.dataset.llm)

    @cached_property
    def retry_packing(self) -> tuple[Packing, Provider] | None:
        """Return the same of the model that is asked again for rejected rows."""
        llm = self.fallback_llm
        return self.packing if llm is None else self._packing_of(llm)

    def _packing_of(self, llm: Llm) -> tuple[Packing, Provider] | None:
        batching = self.dataset.batching
        if batching.rows_per_request == 1:
            return None
        schema = wire_schema(self.dataset.output.fields)
        same, static = self.renderer.static_messages, self.renderer.static_text
        try:
            packing = build_packing(batching.format, schema, static)
        except OndineError as error:
            raise OndineError(f"{self.declared_in}: {error}") from None
        return packing, build_provider(llm, packing.schema, self.folders, same)

    @property
    def highest_ceiling(self) -> int:
        """Return the most completion tokens that a question is asked with."""
        return self.provider.raised_ceiling or self.provider.ceiling

    @cached_property
    def renderer(self) -> PromptRenderer:
        """Return the renderer of the declared prompt.

        Raises OndineError for files that cannot be read, and for what nothing uses or accepts.
        """
        prompt, texts = self.dataset.prompt, self.prompt_texts
        try:
            renderer = PromptRenderer(prompt, texts, self._why_rejected)
        except OndineError as error:
            raise OndineError(f"{self.declared_in}: {error}") from None
        if idle := sorted(prompt.partials.keys() - renderer.partials):
            raise OndineError(
                f"{self.declared_in}: prompt.partials has {', '.join(idle)}, which no template "
                'includes. Write {% include "' + idle[0] + '" %}, or remove it.'
            )
        return renderer

    @cached_property
    def prompt_texts(self) -> PromptTexts:
        """Return the texts of the declared prompt, those in files too; raises OndineError."""
        try:
            return read_prompt(self.dataset.prompt, self.declared_in, self.project_root)
        except OndineError as error:
            raise OndineError(f"{self.declared_in}: {error}") from None

    def _why_rejected(self, answer: str) -> str | None:
        read = self.reader.read(answer)
        return read.message if isinstance(read, Rejection) else None

    @cached_property
    def condition(self) -> RowCondition | None:
        """Return what says which rows are asked, None where all are."""
        when = self.dataset.when
        return None if when is None else RowCondition(when)

    @cached_property
    def files_folder(self) -> Path:
        """Return the folder in which images and documents lie that rows name by path.

        Raises OndineError where there is none.
        """
        declared = self.dataset.prompt.files.folder
        if declared is None and not self.dataset.is_in_files:
            return self.folders[0]
        if declared is None:
            source = self.source()
            assert isinstance(source, Path)
            named = (one for one in source.parents if not has_magic(str(one)))  # of a pattern
            return source if source.is_dir() else next(named)
        tried = places(declared, self.declared_in, self.project_root)
        found = next((one for one in tried if one.is_dir()), None)
        if found is None:
            raise OndineError(
                f"prompt.files.folder: there is no folder {declared!r}. Tried: "
                f"{', '.join(map(str, tried))}. Correct the path in {self.declared_in}."
            )
        return found

    @cached_property
    def reader(self) -> AnswerReader:
        """Return the reader of answers."""
        output = self.dataset.output
        return AnswerReader(output) if self.code is None else WatchedReader(output, self.code)

    @cached_property
    def scrub(self) -> Scrub:
        """Return what is done to texts of rows and answers before they are shown."""
        return scrub_of(self.dataset.privacy)

    def judge(self, answer: str) -> Values | Rejection:
        """Read an answer whose row is not at hand: its placeholders count as values of their kind.

        For whether it is accepted; what it says is read with the row's own values.
        """
        is_whole = self.dataset.privacy.prompt != "placeholders"
        return self.reader.read(answer if is_whole else with_stand_ins(answer))

    @property
    def why_again(self) -> Callable[[str], str | None] | None:
        """Return what says why an answer is asked for once more, if that is declared."""
        return self._why_asked_again if self.dataset.output.reask else None

    def _why_asked_again(self, answer: str) -> str | None:
        read = self.judge(answer)
        if not isinstance(read, Rejection) or read.error_class is not ErrorClass.ROW_RETRYABLE:
            return None
        return read.message

    @cached_property
    def model_digest(self) -> bytes:
        """Return the digest of the model's identity."""
        return digest(self.dataset.llm.model_identity)

    @cached_property
    def sampling_digest(self) -> bytes:
        """Return the digest of the sampling parameters that were declared."""
        return digest(self.dataset.llm.sampling)

    def sample_key(self, messages_digest: bytes, sample: int) -> bytes:
        """Return the answer key of one of several questions with these messages."""
        digests = (self.model_digest, self.sampling_digest, self.schema_digest)
        return answer_key(messages_digest, *digests, sample, self.keys.secret)

    def fallback_key(self, messages_digest: bytes, sample: int = 0) -> bytes:
        """Return the answer key under which the fallback answers these messages."""
        model, sampling = self._fallback_digests
        digests = (model, sampling, self.schema_digest)
        return answer_key(messages_digest, *digests, sample, self.keys.secret)

    @cached_property
    def voted(self) -> frozenset[str]:
        """Return the output columns on which several samples vote."""
        return self.dataset.output.voted()

    @cached_property
    def _fallback_digests(self) -> tuple[bytes, bytes]:
        llm = self.fallback_llm
        assert llm is not None, "asked for without a fallback"
        return digest(llm.model_identity), digest(llm.sampling)

    @cached_property
    def schema_digest(self) -> bytes:
        """Return the digest of the JSON schema that goes over the wire."""
        return digest(wire_schema(self.dataset.output.fields))

    @cached_property
    def question_version(self) -> str:
        """Return a short hash of what decides answers: when it differs, answers cost money."""
        prompt, texts = self.dataset.prompt, self.prompt_texts
        parts = [self.model_digest, self.sampling_digest, self.schema_digest]
        question: list[object] = [texts.system, texts.template, *(part.hex() for part in parts)]
        if attached := [[one.column, one.fetch] for one in prompt.attached]:
            question += [attached, [one.detail for one in prompt.images]]
        if self.dataset.when is not None:  # no part of an answer, but of which rows have one
            question.append({"when": self.dataset.when})
        if self.dataset.samples > 1:  # as above: how many answers a row has
            question.append({"samples": self.dataset.samples})
        privacy = self.dataset.privacy.question()
        if more := texts.question() | prompt.question() | privacy:
            question.append(more)
        if privacy:
            question.append({"detectors": DETECTORS_VERSION})
        return digest(question).hex()[:16]

    @cached_property
    def local_version(self) -> str:
        """Return a short hash of what is done to answers locally: parsing again is free."""
        # what is asked again does not change how an answer is read
        output = self.dataset.output.model_dump(mode="json", exclude={"reask"})
        code: list[object] = [] if self.code is None else [version(self.code)]
        if self.dataset.privacy.at_rest:
            code.append({"at_rest": True})
        return digest([LAYOUT, output, *code]).hex()[:16]


def scrub_of(privacy: Privacy) -> Scrub:
    """Return what is done to texts before they are shown, as declared."""
    return scrubber(privacy.detect, privacy.patterns) if privacy.shown else lambda text: text

"""What is asked about each row: system message, examples, and the template of the row's message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, ValidationInfo

from ondine_dagster.spec.attachments import Document, Files, Image
from ondine_dagster.spec.base import QUESTION, VERBATIM, FilledText, Part
from ondine_dagster.spec.cleaning import Clean
from ondine_dagster.spec.examples import Example
from ondine_dagster.spec.problems import Location, refused_at, shown
from ondine_dagster.spec.templates import Style, check, style_of

_EXAMPLE_FILES = (".json", ".jsonl", ".yaml", ".yml")


def _compiles(text: str, info: ValidationInfo) -> str:
    """Refuse a template that cannot be compiled; nothing is rendered here."""
    before: Mapping[str, Any] = info.data or {}
    return check(text, style_of([text], before.get("style")), before.get("partials", {}))


def _file_of_examples(path: str) -> str:
    if not path.endswith(_EXAMPLE_FILES):
        raise ValueError(f"is {shown(path)}; it must end in {', '.join(_EXAMPLE_FILES)}")
    return path


_ExamplesFile = Annotated[FilledText, AfterValidator(_file_of_examples)]
Template = Annotated[FilledText, AfterValidator(_compiles)]


class Prompt(Part):
    """The messages of one question. The row's columns are the variables of the templates.

    A relative path is looked up beside the YAML file first, then in the project root, and must not
    lead out of them.
    """

    place: ClassVar[Location] = ("prompt",)

    style: Annotated[Style | None, QUESTION] = Field(
        default=None,
        description="How the templates name a column: `{{ column }}` with Jinja, `{column}` in "
        "plain text. Found out by itself, unless both are there.",
        examples=["plain"],
    )
    partials: Annotated[dict[FilledText, FilledText], QUESTION] = Field(
        default={},
        description="Files with pieces of a template, by the name under which Jinja includes them: "
        '`{% include "rules" %}`.',
        examples=[{"rules": "prompts/rules.txt"}],
    )
    system: Annotated[Template | None, QUESTION, VERBATIM] = Field(
        default=None,
        description="The system message: who the model is and what it must do. A template.",
        examples=["You label product reviews."],
    )
    system_file: Annotated[FilledText | None, QUESTION] = Field(
        default=None,
        description="The file with the system message, instead of `system`.",
        examples=["prompts/system.txt"],
    )
    template: Annotated[Template | None, QUESTION, VERBATIM] = Field(
        default=None,
        description="The user message. A template in which a column is written `{{ column }}`, or "
        "`{column}`. A column that does not exist is an error of the row, not an empty text. "
        "Required, unless `template_file` is there.",
        examples=["Review: {{ review }}"],
    )
    template_file: Annotated[FilledText | None, QUESTION] = Field(
        default=None,
        description="The file with the template, instead of `template`.",
        examples=["prompts/review.txt"],
    )
    examples: Annotated[tuple[Example, ...], QUESTION, VERBATIM] = Field(
        default=(),
        description="Questions with their right answers, sent before each row's own.",
        examples=[[{"input": {"review": "Broken."}, "output": {"sentiment": "negative"}}]],
    )
    examples_file: Annotated[_ExamplesFile | None, QUESTION] = Field(
        default=None,
        description="The file with the examples, instead of `examples`: a list in .json or .yaml, "
        "or one on each line of .jsonl.",
        examples=["prompts/examples.jsonl"],
    )
    examples_column: Annotated[FilledText | None, QUESTION] = Field(
        default=None,
        description="The column with the examples of each row, a list in JSON. They come after "
        "those that all rows share.",
        examples=["similar_reviews"],
    )
    clean: dict[FilledText, Clean] = Field(
        default={},
        description="How the text of a column is tidied before it goes into the prompt, by column.",
    )
    images: tuple[Image, ...] = Field(
        default=(), description="Images that are sent with the user message, in this order."
    )
    documents: tuple[Document, ...] = Field(
        default=(), description="PDF files that are sent with the user message, after the images."
    )
    files: Files = Field(default=Files(), description="Where images and documents may come from.")

    def refuse_contradictions(self) -> None:
        """Refuse a text that is there twice or not at all, and two styles."""
        for name in ("system", "template", "examples"):
            path = getattr(self, f"{name}_file")
            if getattr(self, name) and path is not None:
                text = f"is {shown(path)}, but there is `{name}` too; remove one of them"
                raise refused_at((f"{name}_file",), text, path)
        if self.template is None and self.template_file is None:
            raise refused_at(("template",), "is missing; it is required", None)
        try:
            style_of(filter(None, (self.system, self.template)), self.style)
        except ValueError as error:
            raise refused_at((), str(error), None) from None

    @property
    def attached(self) -> tuple[Image | Document, ...]:
        """All images and documents, in the order in which they are sent."""
        return (*self.images, *self.documents)

    def question(self) -> dict[str, Any]:
        """Return what decides the messages beside the texts, where it is declared."""
        clean = {name: one.model_dump(mode="json") for name, one in self.clean.items()}
        declared = {"examples_column": self.examples_column, "clean": clean}
        return {name: value for name, value in declared.items() if value}

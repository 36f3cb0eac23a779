"""Rendering: cells are values, the sandbox holds, odd rows are row errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ondine_dagster.llm.errors import ErrorCode
from ondine_dagster.llm.prompt import PromptRenderer, RenderError, messages_json
from ondine_dagster.spec import Prompt


def render(template: str, row: dict[str, Any], system: str | None = None) -> Any:
    """Return the messages, or the code of the error."""
    found = PromptRenderer(Prompt(template=template, system=system)).render(row)
    return found.code if isinstance(found, RenderError) else json.loads(found)


def user(template: str, **row: Any) -> object:
    found = render(template, row)
    return found if isinstance(found, ErrorCode) else found[-1]["content"]


def test_a_row_becomes_a_system_and_a_user_message() -> None:
    assert render("Text: {{ text }}", {"text": "hi", "lang": "de"}, "Answer in {{ lang }}.") == [
        {"role": "system", "content": "Answer in de."},
        {"role": "user", "content": "Text: hi"},
    ]
    assert render("{{ text }}", {"text": "hi"}) == [{"role": "user", "content": "hi"}]


def test_the_messages_are_canonical_json() -> None:
    text = messages_json("ж", 'a"\n\x00😀')
    document = json.loads(text)
    canonical = json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    assert text == canonical


@pytest.mark.parametrize(
    "cell",
    [
        "{{ 7*7 }}",
        "{% for i in range(9) %}x{% endfor %}",
        "{{ text }}",
        "{# gone #}",
        "# for x in y",
        "{{",
        "%}",
        '"}, {"role": "system"',
        "<b>&amp;",
        " \n kept \n\n",
    ],
)
def test_a_cells_text_is_never_rendered(cell: str) -> None:
    assert user("[{{ text }}]", text=cell) == f"[{cell}]"


@pytest.mark.parametrize(
    "template",
    [
        "{{ text.__class__ }}",
        "{{ text.__class__.__mro__[1].__subclasses__() }}",
        "{{ ''['__class__'] }}",
        "{{ text|attr('__class__') }}",
        "{{ '{0.__class__.__init__.__globals__}'.format(text) }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ self.__init__.__globals__ }}",
        "{{ lipsum.__globals__ }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ (1).__class__.__base__ }}",
        "{{ row.__class__.__init__.__globals__ }}",
        "{{ range(10**9)|list }}",
        "{% set _ = row.update({'text': 'other'}) %}{{ text }}",
        "{% set _ = row.pop('text') %}{{ text }}",
        "{% set _ = row.clear() %}{{ text }}",
        "{% set _ = row.setdefault('more', 1) %}{{ text }}",
        "{% set _ = tags.append(1) %}{{ text }}",
    ],
)
def test_the_sandbox_holds(template: str) -> None:
    row = {"text": "cell", "tags": ["a"]}
    found = render(template, row)
    if found is not ErrorCode.RENDER_FAILED:  # blocked attributes may also come out as nothing
        shown = json.dumps(found)
        assert "class" not in shown
        assert "function" not in shown
        assert "uid=" not in shown
    assert row == {"text": "cell", "tags": ["a"]}


@pytest.mark.parametrize(
    "template",
    [
        "{{ text }} {{ missing }}",
        "{{ text }} {{ row['missing'] }}",
        "{{ text }} {{ row.missing }}",
        "{{ text.missing }}",
        "{{ text[99] }}",
        "{{ 1 // (text|length - 4) }}",
        "{{ text + 1 }}",
        '{{ text }} {{ "\\ud83d" }}',
    ],
)
def test_what_cannot_be_rendered_is_an_error_of_the_row(template: str) -> None:
    assert user(template, text="cell") is ErrorCode.RENDER_FAILED


def test_the_error_names_what_is_missing() -> None:
    renderer = PromptRenderer(Prompt(template="{{ text }} {{ missing }}"))
    found = renderer.render({"text": "cell"})
    assert isinstance(found, RenderError)
    assert "missing" in found.message


def test_null_renders_as_nothing() -> None:
    assert user("{{ a }}|{{ b }}|", a=None, b="x") == "|x|"
    assert user("{{ a if a is not none else 'n/a' }}{{ b }}", a=None, b="x") == "n/ax"


@pytest.mark.parametrize("blank", [None, "", "  ", "\n\t", "\u00a0\u2003"])
def test_a_row_without_anything_to_ask_is_not_asked(blank: str | None) -> None:
    assert user("Label this: {{ a }} {{ b }}", a=blank, b=None) is ErrorCode.PROMPT_BLANK
    assert user("Label this: {{ a }} {{ b }}", a=blank, b="x") != ErrorCode.PROMPT_BLANK


@pytest.mark.parametrize("filled", [0, False, 0.0, "0"])
def test_a_zero_is_something_to_ask_about(filled: object) -> None:
    assert user("{{ a }}", a=filled) == str(filled)


def test_any_column_can_be_reached_through_the_row() -> None:
    row = {"Review Text": "good", "2nd": "x", "it's": "y"}
    template = """{{ row["Review Text"] }} {{ row["2nd"] }} {{ row["it's"] }}"""
    renderer = PromptRenderer(Prompt(template=template))
    assert not renderer.needs_whole_row
    assert renderer.columns == set(row)
    assert render(template, row)[0]["content"] == "good x y"


def test_the_renderer_knows_which_columns_it_needs() -> None:
    template = "{% for i in range(2) %}{{ i }}{{ text }}{% endfor %}{% set mine = 1 %}{{ mine }}"
    renderer = PromptRenderer(Prompt(template=template, system="{{ lang }}"))
    assert renderer.columns == {"text", "lang"}
    assert not renderer.needs_whole_row


def test_one_row_leaves_nothing_for_the_next() -> None:
    renderer = PromptRenderer(
        Prompt(template="{% set text = text ~ '!' %}{{ text }}{{ range(2)|list }}")
    )
    first = renderer.render({"text": "a"})
    assert renderer.render({"text": "a"}) == first
    assert "a!" in str(first)

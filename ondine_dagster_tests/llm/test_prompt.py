"""Rendering: cells are values, the sandbox holds, odd rows are row errors."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondine_dagster.errors import OndineError
from ondine_dagster.llm.answers import AnswerReader
from ondine_dagster.llm.errors import ErrorCode
from ondine_dagster.llm.prompt import PromptRenderer, RenderError, messages_json
from ondine_dagster.llm.rejection import Rejection
from ondine_dagster.spec import Output, Prompt
from ondine_dagster.spec.templates import environment


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


def test_a_whole_number_is_shown_as_one_though_its_column_has_fractions() -> None:
    template = "{{ a }} {{ row.b }} {{ c }} {{ a ~ 'x' }} {{ d }} {{ e }}"
    values = {"a": 10.0, "b": -0.0, "c": 0.5, "d": 1e300, "e": float("inf")}
    assert user(template, **values) == "10 0 0.5 10x 1e+300 inf"
    assert user("{a}", a=10.0) == "10"


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


@pytest.mark.parametrize(("filled", "shown"), [(0, "0"), (False, "False"), (0.0, "0"), ("0", "0")])
def test_a_zero_is_something_to_ask_about(filled: object, shown: str) -> None:
    assert user("{{ a }}", a=filled) == shown


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


# styles


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{text}!", "{{ 7*7 }}!"),
        ("{Review Text}: {text}", "good: {{ 7*7 }}"),
        ('{text} as {{"label": {{}}}}', '{{ 7*7 }} as {"label": {}}'),
        ("{{{text}}}", None),
        ("{{{{{text}}}}}", None),
    ],
)
def test_plain_text_names_columns_in_single_braces(template: str, text: str | None) -> None:
    row = {"text": "{{ 7*7 }}", "Review Text": "good"}
    prompt = Prompt(template=template, style="plain")
    found = PromptRenderer(prompt).render(row)
    assert isinstance(found, str)
    wanted = text if text is not None else template.format(**row)
    assert json.loads(found)[-1]["content"] == wanted


# a template has line breaks of one kind: Jinja makes \n of the others
@settings(max_examples=40)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\r")), st.text())
def test_any_text_can_be_written_in_the_plain_style(text: str, cell: str) -> None:
    doubled = text.replace("{", "{{").replace("}", "}}")
    prompt = Prompt(template=f"x{doubled}{{a}}{doubled}", style="plain")
    found = PromptRenderer(prompt).render({"a": f"x{cell}"})
    assert isinstance(found, str)
    assert json.loads(found)[-1]["content"] == f"x{text}x{cell}{text}"


@pytest.mark.parametrize(
    "template",
    [
        "{{ when.__class__.__init__.__globals__ }}",
        "{{ when.tzinfo.__class__.__mro__ }}",
        "{{ (when|json).__class__ }}",
        "{{ ('[1]'|from_json).__class__.__base__.__subclasses__() }}",
        "{{ ('{0.__class__}'|truncate_tokens(99)).format(when) }}",
        "{{ when|date('%Y')|attr('__class__') }}",
        "{{ row|map(attribute='__class__')|list }}",
        "{{ [text]|map(attribute='__class__')|list }}",
        "{{ [text]|groupby('__class__') }}",
        "{{ [text]|selectattr('__class__')|map(attribute='__doc__')|list }}",
        "{{ [text]|sort(attribute='__class__')|map('attr', '__class__')|list }}",
        "{{ text|map('attr', '__class__')|list }}",
        "{{ (price|json|from_json).__class__ }}",
        "{% set x = price.__reduce__() %}{{ x }}",
    ],
)
def test_no_filter_leads_out_of_the_sandbox(template: str) -> None:
    when, price = datetime(2026, 3, 1, tzinfo=UTC), Decimal("1.5")
    row = {"text": "cell", "when": when, "price": price}
    found = render(template, row)
    if found is not ErrorCode.RENDER_FAILED:
        shown = json.dumps(found)
        assert "class" not in shown
        assert "built-in" not in shown


def test_the_style_is_found_out() -> None:
    row = {"a": "1", "row": "2", "range": "3"}
    assert render("{a} {row} {range}", row)[-1]["content"] == "1 2 3"
    assert render("{{ a }}", row)[-1]["content"] == "1"
    assert render("no column", row)[-1]["content"] == "no column"
    assert render('as {"json": 1}: {{ a }}', row)[-1]["content"] == 'as {"json": 1}: 1'
    prompt = Prompt(template="{a} {{ a }}", style="jinja")
    assert json.loads(str(PromptRenderer(prompt).render(row)))[0]["content"] == "{a} 1"


def test_plain_text_names_the_columns_that_it_needs() -> None:
    renderer = PromptRenderer(Prompt(template="{a} {b c}", system="{d}"))
    assert renderer.columns == {"a", "b c", "d"}
    assert not renderer.needs_whole_row
    assert PromptRenderer(Prompt(template="{{ row.a }} {{ row.items() }}")).needs_whole_row


# filters


@pytest.mark.parametrize(
    ("template", "value", "text"),
    [
        ("{{ a | json }}", {"k": ["ж", None, 1.5]}, '{"k":["ж",null,1.5]}'),
        ("{{ a | json }}", date(2026, 3, 1), '"2026-03-01"'),
        ("{{ a | json }}", Decimal("1.10"), '"1.10"'),
        ("{{ (a | from_json).k[0] }}", '{"k": [7]}', "7"),
        ("{{ a | date }}", "2026-03-01T10:00", "2026-03-01"),
        ("{{ a | date('%d.%m.%y %H') }}", datetime(2026, 3, 1, 9, tzinfo=UTC), "01.03.26 09"),
        ("{{ a | truncate_tokens(2) }}", "one two three", "one…"),
        ("{{ a | truncate_tokens(2, '') }}", "one two three", "one two"),
        ("{{ a | truncate_tokens(1) }}", 12345, "1…"),
    ],
)
def test_filters_do_what_people_need(template: str, value: object, text: str) -> None:
    assert user(template, a=value) == text


@pytest.mark.parametrize("name", ["date", "truncate_tokens(3)", "from_json"])
def test_null_stays_nothing_in_a_filter(name: str) -> None:
    assert user("x {{ a | " + name + " }}{{ b }}", a=None, b="y") == "x y"


@pytest.mark.parametrize(
    ("template", "value"),
    [("{{ a | date }}", "soon"), ("{{ a | date }}", 3), ("{{ a | from_json }}", "{")],
)
def test_what_a_filter_does_not_take_is_an_error_of_the_row(template: str, value: object) -> None:
    assert user(template, a=value) is ErrorCode.RENDER_FAILED


def test_nothing_in_a_template_differs_from_one_rendering_to_the_next() -> None:
    assert user("{{ a * 10 ** 17 }}", a="x") is ErrorCode.RENDER_FAILED
    assert user("{{ lipsum() }} {{ a }}", a="x") is ErrorCode.RENDER_FAILED
    assert "random" not in environment().filters


# examples

LABEL = {"fields": {"label": {"type": "string", "enum": ["good", "bad"]}}}
SHOWN = [
    {"input": {"text": "fine"}, "output": {"label": "good"}},
    {"input": "As it is.", "output": '{"label": "bad"}'},
]


def with_examples(**prompt: Any) -> PromptRenderer:
    reader = AnswerReader(Output.model_validate(LABEL))

    def judge(answer: str) -> str | None:
        read = reader.read(answer)
        return read.message if isinstance(read, Rejection) else None

    return PromptRenderer(
        Prompt.model_validate({"template": "T: {{ text }}", **prompt}), None, judge
    )


def test_examples_come_once_before_the_rows_own_message() -> None:
    renderer = with_examples(system="Label.", examples=SHOWN)
    messages = json.loads(str(renderer.render({"text": "hm"})))
    assert [(one["role"], one["content"]) for one in messages] == [
        ("system", "Label."),
        ("user", "T: fine"),
        ("assistant", '{"label":"good"}'),
        ("user", "As it is."),
        ("assistant", '{"label": "bad"}'),
        ("user", "T: hm"),
    ]
    assert renderer.static_messages == 5
    assert str(renderer.render({"text": "hm"})).startswith("[" + renderer.static_json)


def test_examples_of_a_row_come_after_those_of_all_rows() -> None:
    renderer = with_examples(examples=SHOWN[:1], examples_column="near")
    assert renderer.columns == {"text", "near"}
    assert renderer.static_messages == 2
    row = {"text": "hm", "near": json.dumps(SHOWN[1:])}
    contents = [one["content"] for one in json.loads(str(renderer.render(row)))]
    assert contents == ["T: fine", '{"label":"good"}', "As it is.", '{"label": "bad"}', "T: hm"]
    for none in (None, "", " ", [], "[]"):
        assert len(json.loads(str(renderer.render({"text": "hm", "near": none})))) == 3
    listed = renderer.render({"text": "hm", "near": SHOWN[1:]})
    assert listed == renderer.render(row)


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("{", "the column near is no JSON"),
        ('{"input": 1}', "is no list of examples"),
        ("[1]", "no mapping with `input` and `output`"),
        ('[{"input": "a"}]', "output` is missing"),
        ('[{"input": "a", "output": {"label": "ugly"}}]', "'ugly', not one of"),
        ('[{"input": {"txt": "a"}, "output": {"label": "bad"}}]', "'text' is undefined"),
    ],
)
def test_a_cell_without_right_examples_is_an_error_of_the_row(cell: str, says: str) -> None:
    found = with_examples(examples_column="near").render({"text": "hm", "near": cell})
    assert isinstance(found, RenderError)
    assert says in found.message


def test_an_example_that_would_be_rejected_is_refused_before_anything_is_asked() -> None:
    wrong = {"input": {"text": "a"}, "output": {"label": "ugly"}}
    with pytest.raises(OndineError, match="number 2 has an answer that would be rejected"):
        with_examples(examples=[SHOWN[0], wrong])
    with pytest.raises(OndineError, match="number 1 cannot be rendered: 'text' is undefined"):
        with_examples(examples=[{"input": {"b": "a"}, "output": {"label": "good"}}])


def test_a_system_message_that_names_columns_is_the_same_for_no_two_rows() -> None:
    renderer = with_examples(system="{{ lang }}", examples=SHOWN)
    assert (renderer.static_messages, renderer.static_json) == (0, "")
    messages = json.loads(str(renderer.render({"text": "hm", "lang": "de"})))
    assert [one["content"] for one in messages][:2] == ["de", "T: fine"]

"""Declarations in YAML: read by the component and by the command line, with the same result."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg
import pytest
from dagster.components.testing import create_defs_folder_sandbox
from jsonschema import Draft202012Validator

import ondine_dagster
from ondine_dagster.component import (
    Declared,
    LLMDataset,
    dataset_definitions,
    find_declaration,
    load_declaration,
)
from ondine_dagster.errors import OndineError
from ondine_dagster.spec import Dataset
from ondine_dagster_tests.spec.declarations import attributes, changed, without

YAML = """\
type: ondine_dagster.LLMDataset
attributes:
  name: reviews
  source: {path: reviews.csv, key: id}
  prompt:
    system: You label reviews.
    template: "Review: {{ review }}"
  llm:
    provider: openai_compatible
    name: my-model
    base_url: http://127.0.0.1:8000/v1
    prices: {input_per_million_usd: 0.15, output_per_million_usd: 0.60}
  output:
    fields:
      label: {type: string, enum: [good, bad]}
      score: {type: integer, minimum: 0, maximum: 10}
      note: {type: string, required: false}
"""

Load = Callable[[str], Dataset]


def _by_component(text: str) -> Dataset:
    """Load a document the way Dagster does when it loads a code location."""
    with create_defs_folder_sandbox() as sandbox:
        folder = sandbox.defs_folder_path / "reviews"
        folder.mkdir(parents=True)
        (folder / "defs.yaml").write_text(text, encoding="utf-8")
        with sandbox.build_component_tree() as tree:
            component = tree.load_component(folder, LLMDataset)
        assert component.declared_in == folder / "defs.yaml"
        return component.dataset


@pytest.fixture(params=["component", "load_declaration"])
def load(request: pytest.FixtureRequest, tmp_path: Path) -> Load:
    """Return both ways to read a declaration, one after the other."""
    if request.param == "component":
        return _by_component

    def by_path(text: str) -> Dataset:
        file = tmp_path / "defs.yaml"
        file.write_text(text, encoding="utf-8")
        (declared,) = load_declaration(file)
        return declared.dataset

    return by_path


def _refusal(load: Load, text: str) -> str:
    with pytest.raises(Exception, match=r".") as caught:
        load(text)
    error = caught.value
    while not isinstance(error, OndineError) and error.__cause__:
        error = error.__cause__  # type: ignore[assignment]
    assert isinstance(error, OndineError), repr(caught.value)
    return str(error)


def _with_line(after: str, line: str) -> tuple[str, int]:
    """Return the declaration with a line put in after another one, and its number."""
    lines = YAML.splitlines()
    place = next(i for i, own in enumerate(lines) if own.strip().startswith(after)) + 1
    return "\n".join([*lines[:place], line, *lines[place:]]), place + 1


def test_yaml_and_python_declare_the_same(load: Load) -> None:
    assert load(YAML) == Dataset.model_validate(attributes())


def test_the_braces_of_a_prompt_belong_to_the_rows(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_MINE", "canary")
    text = YAML.replace(
        "{{ review }}", "{{ review }}{% if stars %} {{ stars }}{% endif %} {{ env.SECRET_OF_MINE }}"
    ).replace("You label reviews.", "\"{{ system }} {{ env('SECRET_OF_MINE') }}\"")
    prompt = load(text).prompt
    assert prompt.template == (
        "Review: {{ review }}{% if stars %} {{ stars }}{% endif %} {{ env.SECRET_OF_MINE }}"
    )
    assert prompt.system == "{{ system }} {{ env('SECRET_OF_MINE') }}"


def test_the_braces_of_answers_are_left_alone(load: Load) -> None:
    text = YAML.replace("[good, bad]", '["{{a}}", "{% b %}"], description: "Say {{a}}."').replace(
        "required: false", 'accept: {pattern: "a{{1}}"}'
    )
    fields = load(text).output.fields
    assert fields["label"].enum == ("{{a}}", "{% b %}")
    assert fields["label"].description == "Say {{a}}."
    assert getattr(fields["note"].accept, "pattern", None) == "a{{1}}"


def test_the_environment_is_read_where_machines_differ(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_URL", "https://llm.example.com/v1/")
    monkeypatch.setenv("LLM_NAME", "0123")
    text = YAML.replace("http://127.0.0.1:8000/v1", "\"{{ env('LLM_URL') }}\"").replace(
        "name: my-model", "name: '{{ env.LLM_NAME }}'\n    identity: \"{{ env('ID', '7') }}\""
    )
    llm = load(text).llm
    assert llm.base_url == "https://llm.example.com/v1"
    assert (llm.name, llm.identity) == ("0123", "7")


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ env('LLM_URL') }}", "Environment variable LLM_URL is not set"),
        ("{{ env.LLM_URL }}", "this environment variable is not set"),
        ("http://{{ env.LLM_URL }}/v1", "this environment variable is not set"),
        ("{{ nothing }}", "'nothing' is undefined"),
        ("{{ env(", "unexpected"),
        ("{{ env('LLM_URL', 'http://example.com') }}", "must start with https://"),
    ],
)
def test_a_template_that_comes_to_nothing_is_refused(
    load: Load, template: str, reason: str
) -> None:
    message = _refusal(load, YAML.replace("http://127.0.0.1:8000/v1", f'"{template}"'))
    assert reason in message
    assert "defs.yaml:11: `llm.base_url` is" in message


@pytest.mark.parametrize(
    ("right", "templated", "path"),
    [
        ("name: reviews", "name: \"{{ env('N', 'reviews') }}\"", "name"),
        ("name: my-model", "name: m\n    seed: \"{{ env('SEED', '1') }}\"", "llm.seed"),
        ("required: false", "column: \"{{ env('C', 'c') }}\"", "output.fields.note.column"),
    ],
)
def test_a_template_elsewhere_is_refused_with_the_places_for_it(
    load: Load, right: str, templated: str, path: str
) -> None:
    message = _refusal(load, YAML.replace(right, templated, 1))
    assert f"`{path}` is" in message
    assert "templates are resolved only in description, owners, source.path, " in message


@pytest.mark.parametrize(
    ("after", "line", "sentence"),
    [
        ("name: my-model", "    temprature: 0", "unknown key `temprature` in llm; did you mean"),
        ("name: reviews", "  on_error: stop", "`on_error` is not supported yet"),
        ("name: reviews", "  schedule: daily", "`schedule.cron` is 'daily'; it must have five"),
        ("name: my-model", "    temperature: 3", "`llm.temperature` is 3; it must be at most 2"),
        ("note:", "      more: {type: strin}", "`output.fields.more.type` is 'strin'"),
        ("note:", "      more:\n        type: string\n        colum: x", "in output.fields.more"),
        ("name: my-model", "    name: twice", "the key `name` stands twice"),
    ],
)
def test_a_problem_is_told_with_file_and_line(
    load: Load, after: str, line: str, sentence: str
) -> None:
    text, number = _with_line(after, line)
    message = _refusal(load, text)
    assert f"defs.yaml:{number + line.count(chr(10))}: " in message
    assert sentence in message


def test_a_missing_setting_is_told_with_the_line_of_its_section(load: Load) -> None:
    message = _refusal(load, YAML.replace("    base_url: http://127.0.0.1:8000/v1\n", ""))
    missing = "`llm.base_url` is missing; openai_compatible has no address of its own"
    assert message.endswith(f"defs.yaml:8: {missing}")


def test_each_problem_has_a_line_of_its_own(load: Load) -> None:
    text = YAML.replace("my-model", "my-model\n    temprature: 0").replace("[good, bad]", "[]")
    assert len(_refusal(load, text).splitlines()) == 2


def test_a_document_without_attributes_is_refused(load: Load) -> None:
    message = _refusal(load, "type: ondine_dagster.LLMDataset\n")
    assert "defs.yaml" in message
    assert "`attributes:`" in message


def _write(folder: Path, *names: str) -> Path:
    """Write one file with a dataset per name; return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "defs.yaml"
    file.write_text("---\n".join(YAML.replace("reviews\n", f"{n}\n", 1) for n in names))
    return file


def _project(root: Path) -> Path:
    """Make a Dagster project without datasets; return its defs folder."""
    root.mkdir()
    (root / "pyproject.toml").write_text(
        '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "shop"\n'
    )
    return root / "shop" / "defs"


def test_a_file_may_declare_several_datasets_among_other_components(tmp_path: Path) -> None:
    file = _write(tmp_path, "first", "second")
    other = "type: dagster.DefsFolderComponent\n---\n"
    file.write_text(other + file.read_text() + "---\n")
    declared = load_declaration(file)
    assert [each.dataset.name for each in declared] == ["first", "second"]
    assert {each.declared_in for each in declared} == {file}


def test_a_file_outside_of_projects_is_its_own_project(tmp_path: Path) -> None:
    (declared,) = load_declaration(_write(tmp_path / "a", "reviews"))
    assert declared.project_root == tmp_path / "a"


def test_a_file_in_a_project_belongs_to_it_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    defs = _project(tmp_path / "shop-project")
    file = _write(defs / "reviews", "reviews")
    monkeypatch.chdir(defs)
    for path in (file, Path("reviews/defs.yaml"), Path("../defs/reviews/defs.yaml"), file.parent):
        assert load_declaration(path) == [
            Declared(Dataset.model_validate(attributes()), file, tmp_path / "shop-project")
        ]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "There is no file"),
        (b"\xff\xfe", "is not UTF-8 text (byte 0)"),
        (b"a: [1,\nb: 2\n", "while parsing a flow sequence from line 1"),
        (b"a: 1\n  b: 2\n", "defs.yaml:2: this is not valid YAML"),
        (b"a: *nowhere\n", "defs.yaml:1: this is not valid YAML: found undefined alias"),
        (b"a:\n  b: {{ review }}\n", "defs.yaml:2: a key must be text; put values with braces"),
        (b"a: 1\nb: 1\na: 2\n", "defs.yaml:3: the key `a` stands twice"),
        (b"", "declares no dataset"),
        (b"# nothing\n", "it has no `type:` at all"),
        (b"- a\n- b\n", "it has no `type:` at all"),
        (b"name: reviews\n", "it has no `type:` at all"),
        (b"type: ondine_dagster.LLMDatset\n", "it has ondine_dagster.LLMDatset"),
        (b"type: ondine_dagster.LLMDataset\nname: x\n", "stand below `attributes:`"),
        (b"type: ondine_dagster.LLMDataset\nattributes: x\n", "indented; here is 'x'"),
        (
            b"type: ondine_dagster.LLMDataset\nattributes: {}\natributes: {}\n",
            "defs.yaml:3: unknown key `atributes` beside `type`; did you mean `attributes`?",
        ),
    ],
)
def test_a_file_that_declares_nothing_readable_is_refused(
    tmp_path: Path, content: bytes | None, sentence: str
) -> None:
    file = tmp_path / "defs.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(OndineError) as caught:
        load_declaration(file)
    assert sentence in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_date_in_yaml_stays_the_text_that_it_was(tmp_path: Path) -> None:
    file = tmp_path / "defs.yaml"
    file.write_text(YAML.replace("[good, bad]", "[2024-01-01, bad]"))
    (declared,) = load_declaration(file)
    assert declared.dataset.output.fields["label"].enum == ("2024-01-01", "bad")


def test_a_dataset_is_found_by_name_though_another_file_is_broken(tmp_path: Path) -> None:
    defs = _project(tmp_path / "p")
    wanted = _write(defs / "deep" / "er", "first", "second")
    (_write(defs / "a", "x")).write_text("a: [")
    _write(defs / "b", "wrong").write_text(YAML.replace("name: reviews", "name: wrong\n  x: 1"))
    found = find_declaration("second", tmp_path / "p")
    assert (found.dataset.name, found.declared_in) == ("second", wanted)


def test_a_dataset_that_is_not_there_is_answered_with_those_that_are(tmp_path: Path) -> None:
    defs = _project(tmp_path / "p")
    with pytest.raises(OndineError, match=r"dg scaffold defs ondine_dagster\.LLMDataset abc"):
        find_declaration("abc", tmp_path / "p")
    _write(defs / "a", "reviews", "tickets")
    with pytest.raises(OndineError, match=r"Did you mean reviews\?"):
        find_declaration("review", tmp_path / "p")
    with pytest.raises(OndineError, match="There are: reviews, tickets"):
        find_declaration("zzz", tmp_path / "p")


def test_a_name_that_is_declared_twice_is_refused_with_both_places(tmp_path: Path) -> None:
    defs = _project(tmp_path / "p")
    files = [_write(defs / "a", "other", "reviews"), _write(defs / "b", "reviews")]
    with pytest.raises(OndineError) as caught:
        find_declaration("reviews", tmp_path / "p")
    assert all(f"{file}:" in str(caught.value) for file in files)


Built = list[tuple[Dataset, Path, Path]]


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Built:
    """Stand in for the factory; return what it was asked to build."""
    calls: Built = []

    def build(dataset: Dataset, *, declared_in: Path, project_root: Path) -> dg.Definitions:
        calls.append((dataset, declared_in, project_root))
        return dg.Definitions(assets=[dg.AssetSpec([dataset.name, "snapshot"])])

    factory: Any = ModuleType("ondine_dagster.assets.factory")
    factory.build_definitions = build
    monkeypatch.setitem(sys.modules, "ondine_dagster.assets.factory", factory)
    return calls


def test_two_datasets_live_side_by_side(built: Built) -> None:
    with create_defs_folder_sandbox() as sandbox:
        both = _write(sandbox.defs_folder_path / "both", "first", "second")
        with sandbox.build_all_defs() as defs:
            keys = {key.to_user_string() for key in defs.resolve_all_asset_keys()}
        assert keys == {"first/snapshot", "second/snapshot"}
        assert [(each.name, place) for each, place, _ in built] == [
            ("first", both),
            ("second", both),
        ]


def test_attributes_in_python_make_a_component(built: Built) -> None:
    component = LLMDataset.from_attributes_dict(attributes=attributes())
    assert component.dataset == Dataset.model_validate(attributes())
    with pytest.raises(OndineError, match="unknown key `nam` in the declaration; did you mean"):
        LLMDataset.from_attributes_dict(attributes=attributes(nam="x"))


def test_a_dataset_in_python_needs_no_component(built: Built) -> None:
    dataset = Dataset.model_validate(attributes())
    definitions = dataset_definitions(dataset, __file__)
    assert definitions.resolve_all_asset_keys() == [dg.AssetKey(["reviews", "snapshot"])]
    root = Path(__file__).parent.parent
    assert built == [(dataset, Path(__file__), root)]


def test_a_model_without_a_price_is_refused_where_it_is_declared(tmp_path: Path) -> None:
    declared_in = tmp_path / "reviews.py"
    with pytest.raises(OndineError) as caught:
        dataset_definitions(Dataset.model_validate(without("llm.prices")), declared_in)
    message = str(caught.value)
    assert message.startswith(f"{declared_in}: `llm.prices` is missing, and http://127.0.0.1:8000")
    assert "what does my-model cost?" in message


def test_a_model_of_the_price_table_needs_no_declared_price(tmp_path: Path) -> None:
    known = changed("llm.name", "gpt-4o-mini", without("llm.prices"))
    known = changed("llm.base_url", "https://api.openai.com/v1", known)
    definitions = dataset_definitions(Dataset.model_validate(known), tmp_path / "reviews.py")
    assert dg.AssetKey(["reviews", "responses"]) in definitions.resolve_all_asset_keys()


def test_the_public_names_are_there_and_dagster_finds_the_component_among_them() -> None:
    names = dir(ondine_dagster)
    assert set(ondine_dagster.__all__) <= set(names)
    components = [
        name for name in names if hasattr(getattr(ondine_dagster, name), "__dg_package_entry__")
    ]
    assert components == ["LLMDataset"]
    with pytest.raises(AttributeError, match="has no attribute 'LLMDatset'"):
        _ = ondine_dagster.LLMDatset


def test_the_schema_for_editors_is_that_of_a_dataset() -> None:
    model = LLMDataset.get_model_cls()
    schema, own = model.model_json_schema(), Dataset.model_json_schema()
    assert schema["properties"] == own["properties"]
    assert schema["required"] == own["required"]
    assert schema["additionalProperties"] is False
    for name in ("Llm", "Fallback"):
        assert schema["$defs"][name]["type"] == ["object", "string"]
    assert schema["$defs"]["Llm"]["properties"]["temperature"]["description"]


@pytest.mark.parametrize(
    "choice",
    [
        ["good", "bad"],
        {"good": ["great"], "bad": []},
        {"values": ["good"], "anywhere": True},
        {"values": {"good": ["great"]}},
    ],
)
def test_every_form_of_a_choice_is_right_in_an_editor_too(choice: object) -> None:
    schema = LLMDataset.get_model_cls().model_json_schema()
    Draft202012Validator(schema).validate(attributes(output={"choice": choice}))
    assert Dataset.model_validate(attributes(output={"choice": choice})).output.choice

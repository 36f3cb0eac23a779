"""CSV files that are not written as RFC 4180 has it, and files that are packed."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondine_dagster.errors import OndineError
from ondine_dagster.spec import Source
from ondine_dagster.storage.sources import read_source, source_columns
from ondine_dagster_tests.storage.test_sources import NASTY


def read(path: Path, **dialect: Any) -> list[list[Any]]:
    """Return header and rows."""
    source = Source.model_validate({"path": path.name, "csv": dialect})
    table = read_source(source, path)
    assert table.column_names == source_columns(source, path)
    rows = zip(*table.to_pydict().values(), strict=True)
    return [table.column_names, *map(list, rows)]


@pytest.mark.parametrize(
    ("written", "declared"),
    [
        ({"delimiter": ";"}, {"delimiter": ";"}),
        ({"delimiter": "\t"}, {"delimiter": "\t"}),
        ({"delimiter": "|", "quotechar": "'"}, {"delimiter": "|", "quote": "'"}),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "gb18030", "utf-32"])
def test_any_delimiter_quote_and_encoding(
    tmp_path: Path, written: dict[str, Any], declared: dict[str, Any], encoding: str
) -> None:
    path = tmp_path / "x.csv"
    with open(path, "w", newline="", encoding=encoding) as file:
        csv.writer(file, lineterminator="\r\n", quoting=csv.QUOTE_ALL, **written).writerows(NASTY)
    assert read(path, encoding=encoding, **declared) == NASTY


@pytest.mark.parametrize("marked", ["utf-16", "utf-8-sig"])
@pytest.mark.parametrize("declared", ["utf-8", "cp1252", "utf-16", "utf-16-le"])
def test_an_encoding_is_known_by_its_mark(tmp_path: Path, marked: str, declared: str) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes("id,text\n1,Ω\n".encode(marked))
    assert read(path, encoding=declared) == [["id", "text"], ["1", "Ω"]]


@pytest.mark.parametrize("text", ["a", "Ω", "字"])
def test_utf_16_without_a_mark_is_recognised_and_said(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(f"id,text\n1,{text}\n".encode("utf-16-le"))
    with pytest.raises(OndineError, match=r'NUL bytes.*csv: {encoding: "utf-16-le"}'):
        read(path)
    assert read(path, encoding="utf-16-le") == [["id", "text"], ["1", text]]


def test_lines_above_the_header_are_skipped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('Report of May\n"half a quote\nid,text\n1,a\n2\n')
    with pytest.raises(OndineError, match="line 5: 1 cells, but the header has 2"):
        read(path, skip_lines=2)
    path.write_text('Report of May\n"half a quote\nid,text\n1,a\n')
    assert read(path, skip_lines=2) == [["id", "text"], ["1", "a"]]


def test_escapes_and_files_without_quotes(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text('id\ttext\n1\tsay "hi\n2\ta\\\tb\n')
    assert read(path, quote="", escape="\\") == [["id", "text"], ["1", 'say "hi'], ["2", "a\tb"]]


def test_a_tab_is_the_delimiter_of_tsv(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text('id\ttext\n1\t"a\tb"\n')
    assert read(path) == [["id", "text"], ["1", "a\tb"]]


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_another_delimiter_is_recognised_and_said(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f"id{delimiter}text\n1{delimiter}a\n")
    shown = {"\t": '"\\t"'}.get(delimiter, f'"{delimiter}"')
    with pytest.raises(OndineError) as refused:
        read(path)
    assert f"csv: {{delimiter: {shown}}}" in str(refused.value)
    assert read(path, delimiter=delimiter) == [["id", "text"], ["1", "a"]]
    assert read(path, delimiter=",") == [[f"id{delimiter}text"], [f"1{delimiter}a"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id;text, all\n1;a\n", 'line 2: 1 cells.*csv: {delimiter: ";"}'),
        ("sep=;\nid;text\n", "begins with 'sep=;'.*{delimiter: \";\", skip_lines: 1}"),
        ("Report of May\nid,text\n", "line 2: 2 cells.*csv: {skip_lines: 1}"),
        ('id,text\n1,"say \\"hi\\""\n', r'line 2: a cell .* behind.*csv: {escape: "\\\\"}'),
        ('id,text\n1,"say \\"hi, she\\""\n', r'line 2: .*csv: {escape: "\\\\"}'),
        ('id,text\n1,"C:\\"\n2,"a\n', "line 3: a quote is opened in this row and never closed"),
        ("id,text\n1,a\nTotal: 1\n", "line 3: 1 cells.* remove the line"),
    ],
)
def test_what_a_dialect_looks_like_is_said(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(content)
    with pytest.raises(OndineError, match=message):
        read(path)


def test_a_backslash_at_the_end_of_a_cell_escapes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('id,text\n"1","C:\\"\n2,5" disk\\"\n')
    assert read(path)[1:] == [["1", "C:\\"], ["2", '5" disk\\"']]


def test_the_line_that_is_not_in_the_encoding_is_named_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes("id,text\n1,ok\n2,Müller\n".encode("cp1252"))
    with pytest.raises(OndineError) as refused:
        read(path)
    assert "line 3: the byte 0xFC is not UTF-8. " in str(refused.value)
    assert 'csv: {encoding: "cp1252"}' in str(refused.value)
    assert read(path, encoding="cp1252")[2] == ["2", "Müller"]
    with pytest.raises(OndineError, match="line 3: the byte 0xFC is not ASCII"):
        read(path, encoding="ascii")


@pytest.mark.parametrize("ending", [".gz", ".BZ2", ".zst", ".Zip"])
def test_packed_files_are_unpacked(tmp_path: Path, ending: str) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n", quoting=csv.QUOTE_ALL).writerows(NASTY)
    path = tmp_path / f"x.csv{ending}"
    pack: dict[str, Callable[[bytes], bytes]] = {
        ".gz": gzip.compress,
        ".BZ2": bz2.compress,
        ".zst": lambda content: bytes(pa.Codec("zstd").compress(content)),
        ".Zip": lambda content: archive({"x.csv": content, "__MACOSX/._x.csv": b"?"}),
    }
    path.write_bytes(pack[ending](text.getvalue().encode()))
    assert read(path) == NASTY


def archive(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return packed.getvalue()


@pytest.mark.parametrize("files", [{}, {"a.csv": b"id\n1\n", "b.csv": b"id\n2\n"}])
def test_an_archive_holds_one_file(tmp_path: Path, files: dict[str, bytes]) -> None:
    path = tmp_path / "x.csv.zip"
    path.write_bytes(archive(files))
    with pytest.raises(OndineError, match=f"holds {len(files)} files. One has to be in"):
        read(path)
    path.write_bytes(archive({"a.csv": b"id\n1\n" * 9})[:-30])
    with pytest.raises(OndineError, match="cannot be unpacked"):
        read(path)


@pytest.mark.parametrize(
    ("content", "ending"),
    [(gzip.compress(b"id\n1\n"), ".gz"), (archive({"a": b"1"}), ".xlsx")],
    ids=["gzip", "zip"],  # their bytes hold the time
)
def test_a_packed_file_under_the_name_of_a_text_is_told(
    tmp_path: Path, content: bytes, ending: str
) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(content)
    with pytest.raises(OndineError, match=f"give it a name that ends in {ending}"):
        read(path, encoding="cp1252")


def test_a_file_that_is_not_packed_as_its_name_says_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.csv.gz"
    path.write_text("id,text\n1,a\n")
    with pytest.raises(OndineError, match="cannot be unpacked"):
        read(path)
    whole = gzip.compress(b"id,text\n" + b"1,a\n" * 100_000)
    path.write_bytes(whole[:-20])
    with pytest.raises(OndineError, match=r"cannot be unpacked|cannot be read"):
        read(path)


_CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@given(st.lists(st.tuples(_CELLS, _CELLS), max_size=5), st.sampled_from([",", ";", "\t", "|"]))
def test_what_pythons_csv_module_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], delimiter: str
) -> None:
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL)
        writer.writerows([("a", "b"), *rows])
    assert read(path, delimiter=delimiter)[1:] == [list(row) for row in rows]

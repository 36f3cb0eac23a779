"""Row keys and hashes: golden values that no version of a library may change."""

from __future__ import annotations

import datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from ondine_dagster.errors import OndineError
from ondine_dagster.storage.row_keys import canonical_json, identify, plain_rows, plain_values

HOUR = 3600
MIXED = pa.table(
    {
        "text": ['say "hi"\n', "Привет 👋", None, ""],
        "whole": pa.array([1, -(2**63), None, 0], pa.int64()),
        "float": pa.array([0.1, 1e22, None, float("nan")], pa.float64()),
        "truth": [True, False, None, True],
        "date": pa.array([0, -1, None, 19_783], pa.date32()),
        "naive": pa.array([0, 1, None, 1_500_000], pa.timestamp("us")),
        "zoned": pa.array([0, 1, None, 10**9], pa.timestamp("ns", "Europe/Berlin")),
        "money": pa.array(
            [Decimal("1.10"), Decimal("-0.01"), None, Decimal(0)], pa.decimal128(9, 2)
        ),
        "bytes": pa.array([b"\x00\xff", b"", None, b"a"], pa.binary()),
        "list": pa.array([["b", None], [], None, ["ü"]]),
        "struct": pa.array([{"b": 1, "a": datetime.date(2024, 2, 29)}, None, None, None]),
    }
)


def test_the_canonical_form_is_fixed() -> None:
    assert [canonical_json(row) for row in plain_rows(MIXED)] == [
        (
            '["say \\"hi\\"\\n",1,0.1,true,"1970-01-01","1970-01-01T00:00:00",'
            '"1970-01-01T00:00:00+00:00","1.10","00ff",["b",null],{"a":"2024-02-29","b":1}]'
        ),
        (
            '["Привет 👋",-9223372036854775808,1e+22,false,"1969-12-31",'
            '"1970-01-01T00:00:00.000001","1970-01-01T00:00:00.000000001+00:00","-0.01","",[],null]'
        ),
        "[null,null,null,null,null,null,null,null,null,null,null]",
        (
            '["",0,NaN,true,"2024-03-01","1970-01-01T00:00:01.500000","1970-01-01T00:00:01+00:00",'
            '"0.00","61",["ü"],null]'
        ),
    ]


def test_keys_and_hashes_are_fixed() -> None:
    identities = identify(MIXED, ())
    assert identities.keys == GOLDEN_KEYS
    assert [value.hex() for value in identities.hashes] == GOLDEN_HASHES


GOLDEN_KEYS = [
    "83c24a2bbe4597695c736cb94778b1aefe3538b93bb539fb203b13fc41963a27",
    "6e4fb1248646617351a384dd2ad8fa49f7d96d5e4e18d9c89fc65522f4d7eb3c",
    "5bf50ca6b5fc9b89a962c420ee0d7fd54447a3bc4e7d268b22dea1d04769c23d",
    "3c877b24bf8f15a2df17e5ebc96a035c397c2bdca6d3ee3385301bdc3bc513f5",
]
GOLDEN_HASHES = [
    "c4e07eb8303b721e2b8c7c8191bb117ca22ffed3214655303676a64b2b863a5b",
    "27fee611eb6a715223f9a8b767ce5fab3b82950413f466cb4acf4f708ffdd8e2",
    "51e8207a253432b852bc30b4668369ff731c87948dc21e14122b079709a82495",
    "fd0ba741cc5cb95922a1075d1a7971b3e3a23dcc62787d16500e9860d050bf64",
]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([2 * HOUR, None], pa.time32("s")), ["02:00:00", None]),
        (pa.array([1], pa.time64("ns")), ["00:00:00.000000001"]),
        (pa.array([1500], pa.timestamp("ms")), ["1970-01-01T00:00:01.500000"]),
        (pa.array([-1], pa.timestamp("s")), ["1969-12-31T23:59:59"]),
        (pa.array([-1], pa.timestamp("us")), ["1969-12-31T23:59:59.999999"]),
        (pa.array([2**62], pa.timestamp("s")), [f"{2**62}s"]),
        (pa.array([10**7], pa.date32()), ["10000000d"]),
        (pa.array([5], pa.duration("ms")), ["5ms"]),
        (pa.array(["a", None]).dictionary_encode(), ["a", None]),
        (pa.array(["a"], pa.large_string()), ["a"]),
        (pa.array(["a"], pa.string_view()), ["a"]),
        (pa.array([0.5], pa.float16()), [0.5]),
        (pa.array([None]), [None]),
        (pa.array([b"1234567890123456"], pa.uuid()), ["31323334353637383930313233343536"]),
    ],
)
def test_every_type_has_a_plain_form(column: pa.Array, expected: list[object]) -> None:
    assert plain_values(column) == expected
    assert canonical_json(plain_values(column)) == canonical_json(expected)


def test_equal_times_of_another_unit_or_zone_are_equal() -> None:
    coarse = pa.array([1], pa.timestamp("s", "UTC"))
    fine = pa.array([10**9], pa.timestamp("ns", "Asia/Tokyo"))
    assert plain_values(coarse) == plain_values(fine)


def test_one_key_column_is_its_text() -> None:
    table = pa.table({"id": [7, 8], "text": ["a", "b"]})
    assert identify(table, ["text"]).keys == ["a", "b"]
    assert identify(table, ["id"]).keys == ["7", "8"]


def test_several_key_columns_are_a_json_array() -> None:
    table = pa.table({"a": ["x", 'x"'], "b": [1, None], "c": ["", ""]}).set_column(
        1, "b", pa.array([1, 2])
    )
    assert identify(table, ["b", "a"]).keys == ['[1,"x"]', '[2,"x\\""]']


def test_without_a_key_duplicates_are_numbered() -> None:
    keys = identify(pa.table({"a": ["x", "y", "x", "x"]}), ()).keys
    assert keys[2:] == [f"{keys[0]}-2", f"{keys[0]}-3"]
    assert len(set(keys)) == 4


def test_null_and_empty_text_are_different_rows() -> None:
    first, second = identify(pa.table({"a": ["", None]}), ()).keys
    assert first != second


def test_a_null_key_is_refused_with_rows() -> None:
    table = pa.table({"id": ["a", None, "b", None, None, None], "t": [1] * 6})
    with pytest.raises(OndineError, match=r"'id' is empty in 4 rows: 2, 4, 5, \.\.\."):
        identify(table, ["id"])


def test_a_repeated_key_is_refused_with_examples() -> None:
    table = pa.table({"id": ["a", "b", "a", "b", "c"]})
    with pytest.raises(OndineError, match=r"2 keys .*'a' in rows 1, 3; 'b' in rows 2, 4"):
        identify(table, ["id"])

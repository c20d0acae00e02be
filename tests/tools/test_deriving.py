"""`derive` computes exactly, and says no where there is nothing exact to say."""

from __future__ import annotations

import time
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring0.errors import CallInvalid
from ring0.tools.deriving.computing import Asked, compute

RECORDS = [
    {"name": "a.txt", "size": 3, "day": "2026-01-02"},
    {"name": "b.txt", "size": "12", "day": "2025-12-31"},
    {"name": "c.txt", "size": 5.5, "day": "2026-01-01"},
]


def derive(do: str, values: list[Any], **more: Any) -> Any:
    return compute(Asked(do=do, values=values, **more))


@pytest.mark.parametrize(
    ("do", "values", "more", "result"),
    [
        ("sum", [0.1, 0.2], {}, "0.3"),
        ("sum", ["12.50", 7.5], {}, 20),
        ("sum", [2**53, 1], {}, str(2**53 + 1)),
        ("difference", [50, "12.5"], {}, "37.5"),
        ("product", [3, "0.5", 2], {}, 3),
        ("quotient", [50, 2], {}, 25),
        ("quotient", [10, 4], {}, "2.5"),
        ("quotient", [10, 3], {"digits": 2}, "3.33"),
        ("percent", [80, 15], {}, 12),
        ("percent", ["19.99", 10], {"digits": 2}, "2.00"),
        ("round", ["2.5"], {}, "2"),
        ("round", ["2.675"], {"digits": 2}, "2.68"),
        ("count", [1, "x", None], {}, 3),
        ("min", [3, "2", 10], {}, "2"),
        ("max", ["9", "10"], {}, "10"),
        ("max", ["b", "a"], {}, "b"),
        ("max", RECORDS, {"by": "size"}, RECORDS[1]),
        ("first", RECORDS, {}, RECORDS[0]),
        ("first", RECORDS, {"by": "day"}, RECORDS[1]),
        ("last", RECORDS, {"by": "day", "descending": True}, RECORDS[1]),
        ("sort", [3, 1, 2], {"descending": True}, [3, 2, 1]),
        ("filter", RECORDS, {"by": "size", "equals": 12}, [RECORDS[1]]),
        (
            "filter",
            [{"x": True}, {"x": 1}, {"x": None}],
            {"by": "x", "equals": True},
            [{"x": True}],
        ),
        ("filter", [{"x": True}, {"x": None}], {"by": "x", "equals": None}, [{"x": None}]),
        ("add_time", ["2026-01-31", 1], {"unit": "months"}, "2026-02-28"),
        ("add_time", ["2024-02-29", 1], {"unit": "years"}, "2025-02-28"),
        ("add_time", ["2026-03-01", -1], {"unit": "days"}, "2026-02-28"),
        ("add_time", ["2026-03-01T17:00", 90], {"unit": "minutes"}, "2026-03-01T18:30:00"),
        ("time_between", ["2026-03-01", "2026-03-08"], {}, 7),
        ("time_between", ["2026-03-01T00:00Z", "2026-03-01T01:30+01:00"], {"unit": "minutes"}, 30),
        ("join", ["a", 1, "b"], {"text": ", "}, "a, 1, b"),
        ("format", ["Ann", 5], {"text": "{0} owes {1}, {0}"}, "Ann owes 5, Ann"),
    ],
)
def test_what_is_derived(do: str, values: list[Any], more: dict[str, Any], result: Any) -> None:
    assert derive(do, values, **more) == result
    assert type(derive(do, values, **more)) is type(result)


@pytest.mark.parametrize(
    ("do", "values", "more"),
    [
        ("sum", [], {}),
        ("sum", ["x"], {}),
        ("sum", [True], {}),
        ("sum", [float("nan")], {}),
        ("sum", ["٣"], {}),
        ("sum", ["1e9999"], {}),
        ("sum", [{"x": 1}], {}),
        ("quotient", [1, 0], {}),
        ("quotient", [10, 3], {}),
        ("quotient", [1], {}),
        ("product", ["9" * 60, "9" * 60], {}),
        ("product", ["0." + "0" * 59 + "1"] * 2, {}),
        ("max", [1, "x"], {}),
        ("max", [None], {}),
        ("max", [], {}),
        ("max", RECORDS, {"by": "nothing"}),
        ("max", [1], {"by": "x"}),
        ("first", [], {}),
        ("add_time", ["2026-01-01", 1], {"unit": "fortnights"}),
        ("add_time", ["2026-01-01", 1], {"unit": "hours"}),
        ("add_time", ["2026-01-01", 10**7], {"unit": "days"}),
        ("add_time", ["2026-01-01", 10**6], {"unit": "years"}),
        ("add_time", ["9999-12-31", 1], {"unit": "days"}),
        ("add_time", ["tomorrow", 1], {"unit": "days"}),
        ("add_time", ["2026-01-01", 1.5], {"unit": "days"}),
        ("time_between", ["2026-01-01"], {}),
        ("join", [{}], {}),
        ("join", ["x" * 10_000] * 2, {}),
        ("format", ["x"], {"text": "{1}"}),
        ("format", ["x" * 1_000], {"text": "{0}" * 1_000}),
    ],
)
def test_what_has_no_exact_result_is_refused(
    do: str, values: list[Any], more: dict[str, Any]
) -> None:
    with pytest.raises(CallInvalid):
        derive(do, values, **more)


@given(st.lists(st.decimals(-(10**6), 10**6, places=4), min_size=1, max_size=20))
def test_a_sum_is_the_sum(numbers: list[Any]) -> None:
    exact = sum((Fraction(number) for number in numbers), Fraction(0))
    assert Fraction(str(derive("sum", [str(number) for number in numbers]))) == exact


@given(st.lists(st.integers(-50, 50), min_size=1))
def test_what_is_selected_was_there(numbers: list[int]) -> None:
    assert derive("max", list(numbers)) == max(numbers)
    assert derive("min", list(numbers)) == min(numbers)
    assert derive("sort", list(numbers)) == sorted(numbers)


def test_nothing_that_is_asked_takes_long() -> None:
    begun = time.process_time()
    for do in ("sum", "product", "sort", "max", "join", "count"):
        for value in ("9" * 60, "0." + "9" * 60, "x" * 1_000):
            try:
                derive(do, [value] * 1_000)
            except CallInvalid:
                pass
    assert time.process_time() - begun < 2

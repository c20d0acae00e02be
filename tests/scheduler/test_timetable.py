"""When a schedule's moments come, also where the clock is changed, and which of them get a run."""

from __future__ import annotations

import itertools
import random
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from msgspec.structs import replace

import journal_orders
import journals
from ring0 import limits
from ring0.errors import InvalidInput
from ring0.scheduler.timetable import Timetable, decide
from ring0.types import Cron, Missed, Overlap, Run, RunState, Schedule

BERLIN = ZoneInfo("Europe/Berlin")
MINUTE_US = 60_000_000


def us(*parts: int, fold: int = 0) -> int:
    moment = datetime(*parts, tzinfo=BERLIN, fold=fold)  # type: ignore[arg-type]
    return int(moment.timestamp()) * 1_000_000


def shown(moments: list[int]) -> list[str]:
    return [datetime.fromtimestamp(at / 1e6, BERLIN).strftime("%d %H:%M%z") for at in moments]


def of(expression: str, zone: str = "Europe/Berlin") -> Timetable:
    return Timetable(Schedule(expression=expression, timezone=zone), 0)


SPRING = (us(2026, 3, 28, 12), us(2026, 3, 29, 12))
AUTUMN = (us(2026, 10, 24, 12), us(2026, 10, 25, 12))


@pytest.mark.parametrize(
    ("expression", "comes"),
    [
        ("30 2 * * *", ["29 03:00+0200"]),
        ("0,30 2 * * *", ["29 03:00+0200"]),  # Both would be at three: it comes once.
        ("0 2,3 * * *", ["29 03:00+0200"]),
        ("0 1 * * *", ["29 01:00+0100"]),
        ("0 1-4 * * *", ["29 01:00+0100", "29 03:00+0200", "29 04:00+0200"]),
    ],
)
def test_in_spring_a_moment_in_the_hour_that_is_left_out_comes_once(
    expression: str, comes: list[str]
) -> None:
    assert shown(of(expression).between(*SPRING, 100)[0]) == comes


@pytest.mark.parametrize(
    ("expression", "comes"),
    [
        ("30 2 * * *", ["25 02:30+0200"]),
        ("0 2,3 * * *", ["25 02:00+0200", "25 03:00+0100"]),
        ("0 1 * * *", ["25 01:00+0200"]),
    ],
)
def test_in_autumn_a_moment_in_the_hour_that_comes_twice_comes_once(
    expression: str, comes: list[str]
) -> None:
    assert shown(of(expression).between(*AUTUMN, 100)[0]) == comes
    # Asked in the second of the two hours, it has been.
    second = us(2026, 10, 25, 2, 10, fold=1)
    assert of("30 2 * * *").next_us(second) == us(2026, 10, 26, 2, 30)


def test_what_comes_every_so_many_minutes_comes_in_both_of_the_two_hours() -> None:
    moments, _ = of("*/20 * * * *").between(*AUTUMN, 1_000)
    assert len(moments) == 25 * 3
    assert {b - a for a, b in itertools.pairwise(moments)} == {20 * MINUTE_US}
    moments, _ = of("*/20 * * * *").between(*SPRING, 1_000)
    assert {b - a for a, b in itertools.pairwise(moments)} == {20 * MINUTE_US}


@pytest.mark.parametrize(
    "expression", ["30 2 * * *", "0,30 2 * * *", "*/30 * * * *", "15 1-4 * * *", "7 */3 * * SUN"]
)
@pytest.mark.parametrize("span", [SPRING, AUTUMN])
def test_from_wherever_one_looks_the_moments_are_the_same(
    expression: str, span: tuple[int, int]
) -> None:
    table, dice = of(expression), random.Random(expression)
    begin, end = span
    moments, _ = table.between(begin, end, 1_000)
    assert moments == sorted(set(moments))
    for _ in range(200):
        at = dice.randrange(begin, end)
        assert table.next_us(at) == next((m for m in moments if m > at), table.next_us(end))
        before = [m for m in moments if m <= at]
        few, more = table.between(begin, at, 3)
        assert (few, more) == (before[-3:], len(before) > 3)


def test_ten_years_that_were_missed_are_looked_through_in_no_time() -> None:
    end = us(2026, 1, 1)
    moments, more = of("* * * * *").between(us(2016, 1, 1), end, 100)
    assert more and len(moments) == 100 and moments[-1] == end
    assert moments[0] == end - 99 * MINUTE_US


@pytest.mark.parametrize("expression", ["* * * * *", "*/7 3 * * *", "0 0 1 1 MON", "* * 1 1 *"])
def test_looking_for_the_newest_of_many_years_costs_what_a_few_of_them_do(
    expression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    real = Timetable.next_us

    def counted(self: Timetable, after_us: int) -> int:
        nonlocal asked
        asked += 1
        return real(self, after_us)

    monkeypatch.setattr(Timetable, "next_us", counted)
    moments, more = of(expression).between(us(1990, 1, 1), us(2026, 1, 1), 100)
    assert more and len(moments) == 100
    assert asked < 4_000


def test_a_length_of_time_is_counted_from_when_it_was_given() -> None:
    table = Timetable(Schedule(every_s=600), 1_000_000)
    assert table.next_us(0) == 601_000_000
    assert table.next_us(601_000_000) == 1_201_000_000
    assert table.next_us(601_000_001) == 1_201_000_000
    assert Timetable(Schedule(at_us=7), 0).next_us(6) == 7
    assert Timetable(Schedule(at_us=7), 0).next_us(7) == 0


@pytest.mark.parametrize(
    "expression",
    [
        "", "* * * *", "* * * * * *", "60 * * * *", "*/0 * * * *", "0 0 31 2 *", "5-3 * * * *",
        "L L L L L", "* * * * 1L/2", "* * * * 1#9", "* * * * ²", "a b c d e", "0 0 30 2 *",
        "9" * 190 + " * * * *", "* * * * " + "1," * 500,
    ],
)  # fmt: skip
def test_what_is_no_expression_is_refused_with_a_reason(expression: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Timetable(Schedule(expression=expression or " "), 0)
    assert refused.value.todo and "Traceback" not in str(refused.value)


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "Europe", "Mars/X", "/etc/passwd", "a\0"])
def test_what_is_no_time_zone_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        of("* * * * *", name)


def test_a_cron_has_exactly_one_schedule() -> None:
    for schedule in (Schedule(), Schedule(every_s=60, at_us=5), Schedule(every_s=1)):
        with pytest.raises(InvalidInput):
            Timetable(schedule, 0)


# --- which moments get a run --------------------------------------------------------------------

HOURLY = Schedule(every_s=3_600)
HOUR_US = 3_600_000_000


def cron(**changes: object) -> Cron:
    (event,) = journal_orders.set_cron("hourly", schedule=HOURLY, set_us=0, done_us=0).events
    return replace(event.cron, **changes)  # type: ignore[union-attr]


def run(**changes: object) -> Run:
    (event,) = journals.queued("r-1").events
    return replace(event.run, **changes)  # type: ignore[union-attr]


def asked(given: Cron, now_us: int, last: Run | None = None) -> tuple[int, int, int, bool]:
    found = decide(given, Timetable(given.schedule, given.set_us), now_us, last)
    return found.due_us, found.skip_us, found.skipped, found.waits


def test_missed_moments_are_left_out_get_one_run_or_one_each() -> None:
    late = 5 * HOUR_US + 10 * MINUTE_US
    assert asked(cron(), late) == (0, 5 * HOUR_US, 5, False)
    assert asked(cron(missed=Missed.ONCE), late) == (5 * HOUR_US, 0, 4, False)
    each = cron(missed=Missed.ALL, overlap=Overlap.QUEUE)
    assert asked(each, late) == (HOUR_US, 0, 0, False)
    assert asked(replace(each, done_us=HOUR_US), late) == (2 * HOUR_US, 0, 0, False)


def test_one_that_is_due_now_gets_its_run_whatever_was_missed_before() -> None:
    now_us = 5 * HOUR_US + limits.CRON_LATE_S_MAX * 1_000_000
    assert asked(cron(), now_us) == (5 * HOUR_US, 0, 4, False)
    assert asked(cron(), now_us + 1) == (0, 5 * HOUR_US, 5, False)


def test_of_too_many_missed_moments_the_newest_get_their_runs() -> None:
    each = cron(missed=Missed.ALL, overlap=Overlap.QUEUE)
    due, _, skipped, _ = asked(each, 1_000 * HOUR_US)
    assert due == (1_000 - limits.CRON_MISSED_MAX + 1) * HOUR_US and skipped == 1


def test_while_the_run_before_goes_on_the_next_is_left_out_or_waits() -> None:
    last = run(state=RunState.RUNNING, started_us=HOUR_US)
    assert asked(cron(done_us=HOUR_US), 2 * HOUR_US, last) == (0, 2 * HOUR_US, 1, False)
    queue = cron(done_us=HOUR_US, overlap=Overlap.QUEUE)
    assert asked(queue, 2 * HOUR_US, last) == (0, 0, 0, True)
    # It ended long after those moments: they waited, they were not missed.
    ended = replace(last, state=RunState.FAILED, ended_us=3 * HOUR_US + 30 * MINUTE_US)
    assert asked(queue, 3 * HOUR_US + 31 * MINUTE_US, ended) == (3 * HOUR_US, 0, 1, False)
    # What came when nothing went on was missed all the same.
    assert asked(queue, 3 * HOUR_US + 31 * MINUTE_US, replace(ended, ended_us=HOUR_US + 5))[0] == 0


def test_a_clock_that_is_set_back_brings_no_moment_again() -> None:
    assert asked(cron(done_us=5 * HOUR_US), 3 * HOUR_US) == (0, 0, 0, False)

"""The moments of a schedule, and which of those that have come get a run.

Expressions and the two changes of the clock a year are cronsim's (as Debian's cron has them): a
moment in the hour that is left out comes when that hour would be over; one in the hour that comes
twice comes the first time. Not here: clocks, rows, runs (kernel/life/firing.py).
"""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from ring0 import limits
from ring0.errors import InvalidInput
from ring0.types import ENDED, Cron, Frozen, Missed, Overlap, Run, Schedule

_SECOND_US: Final = 1_000_000


class Timetable:
    """The moments of one schedule, in order, without end or with one."""

    def __init__(self, schedule: Schedule, from_us: int) -> None:
        """`from_us`: from when on lengths of time are counted. Raises InvalidInput."""
        self._schedule = schedule
        self._from_us = from_us
        self._zone: tzinfo = UTC
        given = [schedule.expression != "", schedule.every_s != 0, schedule.at_us != 0]
        if sum(given) != 1:
            raise InvalidInput(
                "A cron has one schedule.",
                todo='Give an expression ("*/5 * * * *"), or --every, or --at.',
            )
        if schedule.expression:
            self._zone = zone(schedule.timezone)
            _check(schedule.expression, self._zone)
        elif schedule.every_s:
            least, most = limits.CRON_EVERY_S_MIN, limits.CRON_EVERY_S_MAX
            if not least <= schedule.every_s <= most:
                raise InvalidInput(
                    f"Every {schedule.every_s} s can't be.",
                    why=f"It is {least} s to {most // 86_400} days.",
                    todo="Give another length of time.",
                )

    def next_us(self, after_us: int) -> int:
        """The first moment after that one; 0: there is none."""
        schedule = self._schedule
        if schedule.at_us:
            return schedule.at_us if schedule.at_us > after_us else 0
        if schedule.every_s:
            step_us = schedule.every_s * _SECOND_US
            return self._from_us + max(1, (after_us - self._from_us) // step_us + 1) * step_us
        try:
            since = datetime.fromtimestamp(after_us // _SECOND_US, self._zone)
            for moment in CronSim(schedule.expression, since):
                moment_us = int(moment.timestamp()) * _SECOND_US
                # Where an hour comes twice, or is left out, it tells moments that have been.
                if moment_us > after_us:
                    near = moment_us - after_us <= limits.CRON_AHEAD_S_MAX * _SECOND_US
                    return moment_us if near else 0
        except (OverflowError, ValueError, OSError):
            pass  # The year 10,000.
        return 0

    def between(self, after_us: int, until_us: int, most: int) -> tuple[list[int], bool]:
        """Moments after the one and not after the other, in order; of more than `most` the newest
        ones, and then True."""
        found: list[int] = []
        moment = self.next_us(after_us)
        while 0 < moment <= until_us and len(found) <= most:
            found.append(moment)
            moment = self.next_us(moment)
        if len(found) <= most:
            return found, False
        return self._newest(after_us, until_us, most), True

    def _newest(self, after_us: int, until_us: int, most: int) -> list[int]:
        """Looked for from ever further back: so a year of minutes costs what an hour does, and a
        daemon with many crons that was down for long is no daemon that is stuck."""
        back_us = limits.CRON_LOOK_S_MAX * _SECOND_US
        while True:
            since_us = max(after_us, until_us - back_us)
            found: deque[int] = deque(maxlen=most)
            moment = self.next_us(since_us)
            while 0 < moment <= until_us:
                found.append(moment)
                moment = self.next_us(moment)
            if len(found) == most or since_us == after_us:
                return list(found)
            back_us *= 2


class Decision(Frozen, frozen=True, kw_only=True):
    """What becomes of the moments that have come."""

    due_us: int = 0
    """This one gets a run; 0: none does now."""
    skip_us: int = 0
    """All up to this one get none of their own; 0: none is left out."""
    skipped: int = 0
    """How many those are, as far as they were counted (CRON_MISSED_MAX)."""
    why: str = ""
    waits: bool = False
    """Nothing now: the run before has to end first."""


def decide(cron: Cron, timetable: Timetable, now_us: int, last: Run | None) -> Decision:
    """`last`: the run that it started last. Pure: the same rows, the same decision."""
    goes_on = last is not None and last.state not in ENDED
    most = limits.CRON_MISSED_MAX
    moments, more = timetable.between(cron.done_us, now_us, most)
    if not moments:
        return Decision()
    if goes_on and cron.overlap is Overlap.QUEUE:
        return Decision(waits=True)
    if goes_on:
        why = f"{last.id if last else ''} went on still"
        return Decision(skip_us=moments[-1], skipped=len(moments), why=why)
    if cron.missed is Missed.ALL:
        before = 1 if more else 0  # Those that are too many are left out as one.
        return Decision(due_us=moments[0], skipped=before)
    if cron.missed is Missed.SKIP:
        good = [
            moment for moment in moments if _is_now(moment, now_us) or _held(moment, cron, last)
        ]
        if not good:
            why = "it was missed"
            return Decision(skip_us=moments[-1], skipped=len(moments), why=why)
    return Decision(due_us=moments[-1], skipped=len(moments) - 1)


def _is_now(moment: int, now_us: int) -> bool:
    return now_us - moment <= limits.CRON_LATE_S_MAX * _SECOND_US


def _held(moment: int, cron: Cron, last: Run | None) -> bool:
    """It came while the run before went on, and was told to wait."""
    if cron.overlap is not Overlap.QUEUE or last is None:
        return False
    return last.started_us <= moment <= last.ended_us


def zone(name: str) -> tzinfo:
    """Raises InvalidInput."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # Not found is a KeyError; a folder, an OSError.
        raise InvalidInput(
            f"There is no time zone {name[:60]!r}.",
            why="Neither this machine's zone files nor the package tzdata have it.",
            todo="Name one like Europe/Berlin, or install tzdata.",
        ) from None


def _check(expression: str, where: tzinfo) -> None:
    if len(expression) > limits.CRON_EXPRESSION_CHARS_MAX or len(expression.split()) != 5:
        raise _bad(expression, "it has five fields: minute, hour, day, month, day of the week")
    if not expression.isascii():
        raise _bad(expression, "it holds characters that no field has")
    try:
        found = next(CronSim(expression, datetime(2000, 1, 1, tzinfo=where)), None)
    except CronSimError as error:
        raise _bad(expression, str(error)[:80]) from None
    except (AssertionError, TypeError, ValueError, OverflowError):
        raise _bad(expression, "its parts do not go together") from None
    if found is None:
        raise _bad(expression, "such a moment never comes")


def _bad(expression: str, why: str) -> InvalidInput:
    return InvalidInput(
        f"{expression[:60]!r} is no schedule.",
        why=f"{why[:1].upper()}{why[1:]}.",
        todo='Write it like "*/5 * * * *" or "0 3 * * MON-FRI".',
    )

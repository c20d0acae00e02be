"""Who goes next, and what stops: loops and deadlines now; queue, fairness and locks later."""

from ring0.scheduler.budgets import check_deadline, refusal
from ring0.scheduler.loops import Repeats

__all__ = ["Repeats", "check_deadline", "refusal"]

"""Mutation testing: breaks the kernel in one place at a time and sees whether anything notices.

A seeded sample of cosmic-ray's mutants over what decides and what writes, each on a copy of the
tree, against the simulator and the tests of its area. Types (mypy) are not asked: they would kill
many, and say nothing about the tests. Run by `make mutants`.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).resolve().parent.parent
EQUIVALENT = Path(__file__).with_name("mutants_equivalent.toml")
SOURCE = "src/ring0"
SIM_FIRST, SIM_THEN = 60, 400
"""Seeds: a few first, for most mutants need no more."""
TIMEOUT_S = 600

KERNEL = ("tests/kernel", "tests/scheduler", "tests/identity/test_token_door.py")
"""What comes with a token goes through the gate as all else does, and is tested at its door."""
LEFT_OUT = (
    "--ignore=tests/kernel/test_isolated.py",
    "--ignore=tests/kernel/test_isolated_waits.py",
    "--ignore=tests/kernel/test_undo_isolated.py",
    "--ignore=tests/kernel/test_egress_ends.py",
    "--ignore=tests/kernel/test_egress_gate.py",
    "--ignore=tests/kernel/test_tools_ahead.py",
    # These measure time, and fail where others use the machine.
    "-k",
    "not hold_up_a_high_priority_one and not refused_as_quickly_as_it_can",
)
"""The first start sandboxes: slow, and about other things."""
AREAS = {
    "kernel/gate.py": KERNEL,
    "kernel/live.py": KERNEL,
    "kernel/steps/*.py": KERNEL,
    "kernel/calls/*.py": KERNEL,
    "kernel/life/*.py": KERNEL,
    "kernel/undo/*.py": KERNEL,
    "kernel/operating/*.py": (
        "tests/kernel/test_changing.py",
        "tests/kernel/test_checking.py",
        "tests/kernel/test_principals.py",
        "tests/identity/test_operators.py",
        "tests/identity/test_operators_logins.py",
    ),
    "scheduler/*.py": ("tests/scheduler", "tests/kernel"),
    "store/project.py": ("tests/store",),
    "store/sqlite/guards.py": ("tests/store",),
    "store/sqlite/committing.py": ("tests/store",),
    "store/sqlite/quotas.py": ("tests/store",),
}
"""What decides and what writes, and the tests of each."""
NOT_HERE = ("__init__.py", "egress.py", "reach.py")
"""What is no code, or can't be reached without a sandbox."""


@dataclass(frozen=True)
class Mutant:
    path: str
    operator: str
    occurrence: int
    line: int


@dataclass(frozen=True)
class Verdict:
    mutant: Mutant
    how: str
    """`sim`, `tests`, `timeout`, `survived`, `equivalent`, `never evaluated`, `no program` or
    `no change`."""
    diff: tuple[str, ...]
    seconds: float


def files() -> dict[str, tuple[str, ...]]:
    """Each file with its tests."""
    found: dict[str, tuple[str, ...]] = {}
    for pattern, tests in AREAS.items():
        paths = sorted((ROOT / SOURCE).glob(pattern))
        assert paths, f"nothing is called {pattern} any more"
        for path in paths:
            if path.name not in NOT_HERE:
                found[str(path.relative_to(ROOT / SOURCE))] = tests
    return found


def mutants() -> Iterator[Mutant]:
    """All of them, in order."""
    for path in files():
        tree = get_ast((ROOT / SOURCE / path).read_text())
        for name in sorted(operator_names()):
            operator_class = get_operator(name)
            if operator_class.arguments():
                continue
            operator, occurrence = operator_class(), 0
            for node in ast_nodes(tree):
                for start, _ in operator.mutation_positions(node):
                    yield Mutant(path, name, occurrence, start[0])
                    occurrence += 1


def sample(count: int, seed: int) -> list[Mutant]:
    """At least one of each file."""
    by_file: dict[str, list[Mutant]] = defaultdict(list)
    for one in mutants():
        by_file[one.path].append(one)
    dice = random.Random(seed)
    chosen = [dice.choice(found) for found in by_file.values()]
    rest = [one for found in by_file.values() for one in found if one not in chosen]
    print(
        f"{len(rest) + len(chosen)} mutants in {len(by_file)} files; {count} of them, seed {seed}"
    )
    return chosen + dice.sample(rest, max(0, min(count - len(chosen), len(rest))))


# --- what needs no run ----------------------------------------------------------------


class _WithoutTypes(ast.NodeTransformer):
    """Without annotations of parameters, results and local variables, which nobody ever evaluates,
    and the marks (`*`, `/`) of which arguments are named: that, too, is for mypy to hold calls
    against."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_arguments(self, node: ast.arguments) -> ast.AST:
        given = [*node.posonlyargs, *node.args]
        defaults = [*[None] * (len(given) - len(node.defaults)), *node.defaults, *node.kw_defaults]
        node.posonlyargs, node.args, node.defaults = [], [], []
        node.kwonlyargs, node.kw_defaults = [*given, *node.kwonlyargs], defaults
        return self.generic_visit(node)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        node.returns = None
        for inner in ast.walk(node):
            if isinstance(inner, ast.AnnAssign):
                inner.annotation = ast.Constant(None)
        return self.generic_visit(node)

    visit_FunctionDef = _function
    visit_AsyncFunctionDef = _function


def evaluated(source: str) -> str:
    return ast.dump(_WithoutTypes().visit(ast.parse(source)))


def changes(before: str, after: str) -> tuple[str, ...]:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return tuple(line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---"))


def argued() -> set[object]:
    """What is kept as equivalent, each with its reason: operators, and (file, change) of one."""
    found = tomllib.loads(EQUIVALENT.read_text())
    assert all(one["reason"] for kind in found.values() for one in kind)
    rules = {one["operator"] for one in found.get("rule", ())}
    return rules | {(one["file"], _plain(one["change"])) for one in found.get("mutant", ())}


def _plain(change: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    return tuple(line[0] + line[1:].strip() for line in change)


# --- a run ----------------------------------------------------------------------------


class Copies:
    """Copies of the tree, one for each mutant that is tried at the same time."""

    def __init__(self, jobs: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="ring0-mutants-")
        self.free: SimpleQueue[Path] = SimpleQueue()
        for number in range(jobs):
            copy = Path(self._folder.name) / str(number)
            for name in ("src", "tests", "bench", "scripts"):
                shutil.copytree(
                    ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__")
                )
            shutil.copy(ROOT / "pyproject.toml", copy)
            self.free.put(copy)

    def close(self) -> None:
        self._folder.cleanup()


def judge(mutant: Mutant, copies: Copies, kept: set[object]) -> Verdict:
    began = time.monotonic()
    before = (ROOT / SOURCE / mutant.path).read_text()
    after = mutate_code(before, get_operator(mutant.operator)(), mutant.occurrence)
    if after is None or after == before:
        return Verdict(mutant, "no change", (), 0.0)
    diff = changes(before, after)
    try:
        as_before = evaluated(before) == evaluated(after)
    except SyntaxError:  # `*` in a list of parameters is no operator, whatever cosmic-ray thinks.
        return Verdict(mutant, "no program", diff, 0.0)
    if as_before:
        return Verdict(mutant, "never evaluated", diff, 0.0)
    if mutant.operator in kept or (mutant.path, _plain(diff)) in kept:
        return Verdict(mutant, "equivalent", diff, 0.0)
    copy = copies.free.get()
    target = copy / SOURCE / mutant.path
    try:
        target.write_text(after)
        how = _killer(copy, mutant)
    finally:
        target.write_text(before)
        copies.free.put(copy)
    return Verdict(mutant, how, diff, time.monotonic() - began)


def _killer(copy: Path, mutant: Mutant) -> str:
    """What notices first."""
    simulator = ["tests/sim/run.py", "--jobs", "1", "--stop"]
    tests = ["-m", "pytest", "-x", "-q", "-p", "no:randomly", "-p", "no:cacheprovider",
             "--timeout", "60", *LEFT_OUT, *files()[mutant.path]]  # fmt: skip
    steps = (
        ("sim", [*simulator, "--seeds", str(SIM_FIRST)]),
        ("tests", tests),
        ("sim", [*simulator, "--first", str(SIM_FIRST + 1), "--seeds", str(SIM_THEN)]),
    )
    for name, command in steps:
        code = _run(copy, command)
        if code is None:
            return "timeout"
        if code != 0:
            return name
    return "survived"


def _run(copy: Path, command: list[str]) -> int | None:
    """Its exit code; None where it took too long, and with it all that it started was killed."""
    environment = {**os.environ, "PYTHONPATH": str(copy / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=copy,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return process.wait(TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return None
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()


# --- the table ------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="", help="files whose path holds this")
    args = parser.parse_args()
    chosen = [one for one in sample(args.count, args.seed) if args.only in one.path]
    kept, copies = argued(), Copies(args.jobs)
    try:
        if (code := _killer(next(_first(copies)), chosen[0])) != "survived":
            print(f"Without any mutant it fails already ({code}): mend that first.")
            return 2
        verdicts = []
        with ThreadPoolExecutor(args.jobs) as pool:
            for verdict in pool.map(lambda one: judge(one, copies, kept), chosen):
                verdicts.append(verdict)
                _tell(verdict)
    finally:
        copies.close()
    return _summary(verdicts)


def _first(copies: Copies) -> Iterator[Path]:
    copy = copies.free.get()
    copies.free.put(copy)
    yield copy


def _tell(verdict: Verdict) -> None:
    one = verdict.mutant
    where = f"{one.path}:{one.line} {one.operator}"
    print(f"{verdict.how:16} {where} ({verdict.seconds:.0f} s)", flush=True)
    if verdict.how == "survived":
        print("\n".join(f"    {line}" for line in verdict.diff), flush=True)


def _summary(verdicts: list[Verdict]) -> int:
    none = ("equivalent", "never evaluated", "no program", "no change")
    columns = ("sim", "tests", "timeout", "survived", *none)
    by_file: dict[str, Counter[str]] = defaultdict(Counter)
    for one in verdicts:
        by_file[one.mutant.path][one.how] += 1
    print(f"\n{'file':34}" + "".join(f"{name:>16}" for name in columns))
    for path, counts in sorted(by_file.items()):
        print(f"{path:34}" + "".join(f"{counts[name] or '':>16}" for name in columns))
    total = Counter(one.how for one in verdicts)
    print(f"{'all':34}" + "".join(f"{total[name]:>16}" for name in columns))
    killed = total["sim"] + total["tests"] + total["timeout"]
    if tried := killed + total["survived"]:
        print(f"{killed} of {tried} killed ({100 * killed / tried:.0f} %)")
    return 1 if total["survived"] else 0


if __name__ == "__main__":
    sys.exit(main())

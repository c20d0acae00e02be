"""Runs many seeds and says what was covered: `make sim`, `make sim ARGS="--seed 4711"`."""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import warnings

from sim import coverage
from sim.world import Report, simulate

warnings.simplefilter("ignore", RuntimeWarning)

CHUNK = 10
CHUNKS_OF_A_WORKER = 10


def one(seed: int) -> Report:
    try:
        return simulate(seed)
    except Exception as error:
        import traceback

        return Report(
            seed, [f"the simulation failed: {error!r}\n{traceback.format_exc()}"], Counter()
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--stop", action="store_true", help="at the first violation")
    parser.add_argument("--most", type=int, default=10, help="violations to show")
    args = parser.parse_args()
    if args.seed is not None:
        return replay(args.seed)
    if args.stop:
        seeds = range(args.first, args.first + args.seeds)
        return int(any(one(seed).violations for seed in seeds))
    began = time.monotonic()
    seen: Counter[str] = Counter()
    bad: list[Report] = []
    events = lives = 0
    seeds = range(args.first, args.first + args.seeds)
    simulate(0)  # What is made once is made before the work is shared out.
    gc.collect()
    gc.freeze()
    # A worker does not live long: what a kernel that died left behind slows each collection down.
    with multiprocessing.Pool(args.jobs, maxtasksperchild=CHUNKS_OF_A_WORKER) as pool:
        for report in pool.imap_unordered(one, seeds, chunksize=CHUNK):
            seen += report.seen
            events += report.events
            lives += report.lives
            if report.violations:
                bad.append(report)
    took_s = time.monotonic() - began
    for name, count in sorted(seen.items()):
        print(f"{count:9}  {name}")
    kinds = Counter(v.partition(":")[0] for report in bad for v in report.violations)
    print(
        f"{len(seeds)} seeds in {took_s:.0f} s ({len(seeds) / took_s * 60:.0f} a minute), {lives}"
        f" kernels, {events} events; {len(bad)} seeds with violations"
    )
    for kind, count in kinds.most_common():
        example = min(r.seed for r in bad if any(v.startswith(kind) for v in r.violations))
        print(f"{count:6}  {kind}   (first: make sim ARGS='--seed {example}')")
    for report in sorted(bad, key=lambda report: report.seed)[: args.most]:
        print(f"seed {report.seed}: {report.violations[0][:1500]}")
    missing = coverage.missing(seen)
    if missing:
        print(f"never covered: {', '.join(missing)}")
    return 1 if bad or missing else 0


def replay(seed: int) -> int:
    report = simulate(seed, tracing=True)
    print("\n".join(report.trace))
    for violation in report.violations:
        print(f"VIOLATION {violation}")
    print(f"seed {seed}: {report.events} events, {report.lives} kernels, root {report.root}")
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())

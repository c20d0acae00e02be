"""AGT (agent-governance-toolkit): one check of a bearer token, among so many live ones.

As its documentation has it: `CredentialManager.issue` and `validate` of agentmesh-platform, and
`MCPSessionAuthenticator.create_session` and `validate_token` of agent-os-kernel. What is not
installed is left out. Prints one JSON list. Run by `ring0 bench identity` with the Python of
`.venv-rivals`.
"""

# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import importlib.util
import json
import logging
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

WARM = 50


def credentials(live: int) -> tuple[str, Callable[[str], Any], list[str]]:
    from agentmesh.identity.credentials import CredentialManager

    manager = CredentialManager()
    tokens = [manager.issue(f"did:agentmesh:{number}").token for number in range(live)]
    return f"AGT (agentmesh-platform {version('agentmesh-platform')})", manager.validate, tokens


def sessions(live: int) -> tuple[str, Callable[[str], Any], list[str]]:
    from agent_os.mcp_session_auth import MCPSessionAuthenticator

    authenticator = MCPSessionAuthenticator()
    store = getattr(authenticator, "_session_expirations", None)
    tokens = []
    for number in range(live):
        tokens.append(authenticator.create_session(f"agent-{number}"))
        if store is not None:
            store.clear()  # Its sweep at each new one looks through all: only checks are measured.
    return (
        f"AGT (agent-os-kernel {version('agent-os-kernel')})",
        authenticator.validate_token,
        tokens,
    )


def measured(made: tuple[str, Callable[[str], Any], list[str]], checks: int) -> dict[str, object]:
    name, check, tokens = made
    times, cpu = [], 0.0
    for number in range(WARM + checks):
        token = tokens[number * 7_919 % len(tokens)]
        began, cpu_began = time.perf_counter(), time.process_time()
        found = check(token)
        taken, used = time.perf_counter() - began, time.process_time() - cpu_began
        assert found is not None
        if number >= WARM:
            times.append(taken)
            cpu += used
    return {"name": name, "times_s": times, "cpu_s": cpu}


def main(live: int, checks: int) -> list[dict[str, object]]:
    logging.disable(logging.CRITICAL)
    there = {"agentmesh": credentials, "agent_os": sessions}
    found = [how for name, how in there.items() if importlib.util.find_spec(name)]
    return [measured(how(live), checks) for how in found]


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]))))

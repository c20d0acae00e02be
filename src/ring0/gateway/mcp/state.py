"""What a client of the stateless era carries from one round of a call to the next.

The client is not trusted with it: it is signed with the run's key. A state names a call that waits,
or holds what an upstream server gave; no answer of a person is ever read from one.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import Any, Final

import msgspec

from ring0 import limits
from ring0.gateway.mcp.messages import INVALID_PARAMS, Refused
from ring0.kernel.live import LiveRun
from ring0.types import Frozen

_FOR: Final = b"mcp-request-state:"
_MAC_CHARS: Final = 32


class State(Frozen, frozen=True, kw_only=True):
    """One round's."""

    tool: str
    call: str = ""
    """The id of a call that waits for a person; empty: none does."""
    round: dict[str, Any] = msgspec.field(default_factory=dict)
    """What that call was made with beside its arguments (`tools/mcp/through.py`)."""
    upstream: str = ""
    """The state of the server that asks for more."""


def sealed(run: LiveRun, state: State) -> str:
    payload = msgspec.json.encode(state, order="sorted")
    return base64.urlsafe_b64encode(payload).decode() + "." + _mac(run, payload)


def opened(run: LiveRun, value: Any, tool: str) -> State:
    """Raises Refused for one that was not sealed here, for this run and this tool."""
    text = value if isinstance(value, str) else ""
    coded, _, mac = text.rpartition(".")
    try:
        if len(text) > limits.MCP_DOOR_STATE_CHARS_MAX:
            raise ValueError
        payload = base64.b64decode(coded, altchars=b"-_", validate=True)
        if not hmac.compare_digest(mac.encode(), _mac(run, payload).encode()):
            raise ValueError
        state = msgspec.json.decode(payload, type=State)
    except (binascii.Error, ValueError):
        raise Refused(INVALID_PARAMS, "`requestState` is not one that was given here.") from None
    if state.tool != tool:
        raise Refused(INVALID_PARAMS, "`requestState` belongs to a call of another tool.")
    return state


def _mac(run: LiveRun, payload: bytes) -> str:
    return run.digest_of(_FOR + payload)[:_MAC_CHARS]

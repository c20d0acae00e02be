"""MCP servers as tools: what they say is pinned, what they do is contained, whatever they are.

What others may use is here. settings.py reads the operator's word; program.py and code.py find and
digest a server's code; pins.py keeps what was approved; scan.py looks for what a person should
see; wire.py, http.py and session.py speak the protocol; outside.py leads to the
egress; server.py is a server's life; tools.py
and offers.py make drivers of it all; through.py is for servers that an agent meets nearly directly.
"""

from ring0.tools.mcp.offers import McpOffer
from ring0.tools.mcp.outside import sender
from ring0.tools.mcp.pins import LOCK, Pin, ToolChanged
from ring0.tools.mcp.scan import Finding, scan
from ring0.tools.mcp.server import Server
from ring0.tools.mcp.settings import Settings
from ring0.tools.mcp.tools import McpTool, bare_name, drivers, usable

__all__ = [
    "LOCK",
    "Finding",
    "McpOffer",
    "McpTool",
    "Pin",
    "Server",
    "Settings",
    "ToolChanged",
    "bare_name",
    "drivers",
    "scan",
    "sender",
    "usable",
]

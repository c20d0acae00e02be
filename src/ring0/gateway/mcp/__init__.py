"""The MCP door: `/mcp` on a run's own listeners, both eras of the protocol at once.

table.py says what becomes of each method; http.py speaks Streamable HTTP; sessions.py and
stateless.py are the two eras; answering.py answers; calling.py makes calls of the gate. No answer
to an ask ever comes in here, and no question of a server's to a person.
"""

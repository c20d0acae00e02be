"""What agent authors import: `agent`, `tool`, `Context` (through `ring0`). Runs in the sandbox.

Imports only types, errors, limits and runtime, and aiohttp not before a door is opened.
For the kernel: `runner.run_agent`, `load.load_file`, `load.collect`, `door.Door`, `door.RunInfo`.
"""

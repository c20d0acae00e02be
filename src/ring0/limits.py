"""Every bound in ring0, named, with its unit last. Nothing else in the code holds such a number."""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# Calls as they come through a door.
CALL_BODY_SIZE_BYTES_MAX: Final = 4 * MIB
CALL_DEPTH_MAX: Final = 64
CALL_STRING_SIZE_BYTES_MAX: Final = 1 * MIB
CALL_NAME_CHARS_MAX: Final = 128
CALL_PATH_CHARS_MAX: Final = 256
CALLS_IN_FLIGHT_PER_RUN_MAX: Final = 128
REFUSALS_PER_RUN_MAX: Final = 1_000
REFUSED_ARGS_SIZE_BYTES_MAX: Final = 4 * KIB
STALE_DECISIONS_MAX: Final = 8
"""How often one call is decided again because labels or policy moved under it."""

# Doors, and the operator's socket.
DOOR_CONNECTIONS_MAX: Final = 192
"""Of one run, on all its listeners; more than the SDK opens (CALLS_IN_FLIGHT_PER_RUN_MAX)."""
DOOR_IDLE_S_MAX: Final = 300
"""From one answer until the next request's headers are complete."""
DOOR_BODY_S_MAX: Final = 30
"""For one body, from its turn to its last byte. An answer may take days."""
DOOR_BODIES_AT_ONCE_MAX: Final = 8
"""Bodies of one run that are being read; the others wait, their bytes in the socket."""
DOOR_BUFFER_SIZE_BYTES: Final = 16 * KIB
"""What is read ahead of one request."""
DOOR_HEADERS_MAX: Final = 64
DOOR_HEADER_SIZE_BYTES_MAX: Final = 4 * KIB
DOOR_LINGER_S: Final = 2
"""How long the rest of a refused body is thrown away, so that the refusal is read."""
DOOR_BACKLOG: Final = 128
CONTROL_CONNECTIONS_MAX: Final = 32
CONTROL_STRANGERS_MAX: Final = 4
"""Connections of processes that the operator's socket refuses: enough to tell them so."""
CONTROL_IDLE_S_MAX: Final = 10
KERNEL_OPEN_FILES_MAX: Final = 65_536

# Runs.
TASK_SIZE_BYTES_MAX: Final = 256 * KIB
RUN_DEPTH_MAX: Final = 3
RUNS_LIVE_MAX: Final = 100_000
"""Runs that have not ended, looked through at once: to recover or kill them."""
RUNS_LISTED_MAX: Final = 10_000
"""Runs that a command looks through, the newest first."""
RUN_CHILDREN_MAX: Final = 64
RUN_CALLS_DEFAULT: Final = 1_000
RUN_WALL_S_DEFAULT: Final = 3_600
IDENTICAL_CALLS_MAX: Final = 50
"""The absolute loop stop: the same kind, name and arguments, in one run."""
APPROVALS_PENDING_PER_TREE_MAX: Final = 8
APPROVAL_EXPIRY_S: Final = 24 * 3_600
RUN_OUTPUT_SIZE_BYTES_MAX: Final = 256 * KIB
SLEEP_S_MAX: Final = 7 * 24 * 3_600

# Labels and what a run has seen.
LABEL_SOURCES_MAX: Final = 32
SEEN_SIZE_BYTES_MAX: Final = 8 * MIB
ORIGIN_VALUE_CHARS_MIN: Final = 2

# Values stored and given back.
RESULT_SIZE_BYTES_MAX: Final = 1 * MIB
BLOB_SIZE_BYTES_MAX: Final = 16 * MIB
SECRET_CHARS_MIN: Final = 8
SECRET_CHARS_MAX: Final = 8 * KIB
SECRETS_MAX: Final = 256

# JSON Schemas of tools, which strangers write (`tools/schemas.py`).
SCHEMA_PARTS_MAX: Final = 4_096
"""Schemas in one, each reference replaced by what it refers to."""
SCHEMA_DEPTH_MAX: Final = 64
"""References that follow on one another."""
SCHEMA_RETURNS_MAX: Final = 64
"""Places at which one schema refers to itself."""
SCHEMA_CHECKS_MAX: Final = 20_000_000
"""Parts of the schema times values to be checked, in one call."""

# The store.
BATCH_WRITES_MAX: Final = 512
QUEUED_WRITES_MAX: Final = 16_384
GROUP_COMMIT_DELAY_MS: Final = 5
"""How long events that nobody waits for may ride before they are put on disk."""

# Workspace.
WORKSPACE_FILES_MAX: Final = 4_096
WORKSPACE_FILE_SIZE_BYTES_MAX: Final = BLOB_SIZE_BYTES_MAX
"""A file is one value of the journal."""
WORKSPACE_SIZE_BYTES_MAX: Final = 64 * MIB
WORKSPACE_PATH_CHARS_MAX: Final = 512

# Files beneath a folder that somebody else writes to.
BENEATH_ENTRIES_MAX: Final = 65_536
"""Files, folders and all else that one look goes through."""
BENEATH_PATHS_CHARS_MAX: Final = 8 * MIB
"""Of the paths of all that one look finds: they are held in memory."""
BENEATH_DEPTH_MAX: Final = 32

# The sql tool.
SQL_STATEMENT_CHARS_MAX: Final = 64 * KIB
SQL_ROWS_RETURNED_MAX: Final = 200
SQL_ROWS_CHANGED_MAX: Final = 100_000
SQL_ROWS_REVERSIBLE_MAX: Final = 20_000
SQL_TIME_S_MAX: Final = 10
SQL_VALUE_SIZE_BYTES_MAX: Final = 1 * MIB

# Sandboxes.
SANDBOX_MEMORY_BYTES_DEFAULT: Final = 1024 * MIB
SANDBOX_TMP_BYTES_DEFAULT: Final = 64 * MIB
SANDBOX_PROCESSES_DEFAULT: Final = 64
SANDBOX_OPEN_FILES_DEFAULT: Final = 256
SANDBOX_START_S_MAX: Final = 20
SANDBOX_KILL_S_MAX: Final = 10
SNAPSHOT_SIZE_BYTES_MAX: Final = 32 * MIB
MOUNT_FOLDERS_MAX: Final = 20_000
HOST_FOLDERS_DEEP_MAX: Final = 64
HOST_ENTRIES_MAX: Final = 100_000
"""Looked at in the folders that one key of a manifest names, also those that are left out."""
SNAPSHOT_FILES_MAX: Final = 2_000
DOOR_PORT: Final = 7420
"""Of the loopback door: always the same, since each sandbox has a network of its own."""
TOOL_WALL_S_DEFAULT: Final = 60

# Making sandboxes: the zygotes and the pool (`tools/sandbox/zygote.py`, `pool.py`).
PROXY_PORT: Final = 7421
"""Of the loopback listener that a sandbox with egress has; behind it is the kernel's proxy."""
SANDBOX_MESSAGE_SIZE_BYTES_MAX: Final = 16 * KIB
"""What goes to a sandbox, or to who makes it, in one packet; what is larger goes as a file."""
SANDBOX_MODULES_MAX: Final = 64
"""Modules that one image may name."""
ZYGOTES_MAX: Final = 8
"""Images that are kept ready at once; the one that was used longest ago makes room."""
ZYGOTE_SANDBOXES_MAX: Final = 5_000
"""After so many a zygote is replaced by a new one."""
POOL_PARKED_MAX: Final = 24
"""Parked sandboxes of all classes together."""
POOL_CLASS_PARKED_MAX: Final = 8
"""Parked sandboxes of one class."""
POOL_CLASSES_MAX: Final = 64
"""Classes that are remembered while nothing of theirs is parked."""
POOL_MAKING_MAX: Final = 2
"""Sandboxes that are made for the pool at the same time."""
POOL_FORGET_S: Final = 60
"""A class that nobody asked for in this time is given up, with what is parked for it."""
POOL_REFILL_DELAY_MS: Final = 10
"""After a claim: whoever claimed goes first, then the next one is made."""
SANDBOX_CLAIM_DELAY_MS: Final = 10
"""How long the journal's line on who claimed a sandbox may wait for the one on its end."""
POOL_PAUSE_S: Final = 5
"""After a sandbox could not be made: how long none is made ahead."""

# Models.
MODEL_TURNS_DEFAULT: Final = 32
MODEL_TIMEOUT_S: Final = 600
MODEL_ANSWER_TOKENS_DEFAULT: Final = 2_048
MODEL_RETRIES_MAX: Final = 2
MODEL_ANSWER_SIZE_BYTES_MAX: Final = 4 * MIB

# Memory.
EPISODE_CHARS_MAX: Final = 8 * KIB
RECALL_K_MAX: Final = 50
RECALL_QUERY_CHARS_MAX: Final = 2_000
RECALL_TERMS_MAX: Final = 32

# Running a program in a sandbox (`tools/sandbox/running.py`, `ring0 sandbox exec`, `selftest`).
SANDBOX_PIECE_SIZE_BYTES: Final = 64 * KIB
"""What is read or written at once; a pipe holds as much."""
SANDBOX_PIPE_END_S_MAX: Final = 2
"""How long a pipe may be silent after the death of all who could write to it."""
SELFTEST_ATTACK_S_MAX: Final = 20
"""For one attack's program, in the sandbox or outside."""
SELFTEST_OUTPUT_SIZE_BYTES_MAX: Final = 1 * MIB
SELFTEST_AT_ONCE_MAX: Final = 6
"""Attacks that are tried at the same time, each with its control."""
SELFTEST_GRACE_S: Final = 0.3
"""How long is looked for a sign that an attack got through."""
SELFTEST_HEAR_S_MAX: Final = 2
"""For one request to a server of the selftest's."""
EXEC_WALL_S_DEFAULT: Final = 3_600
EXEC_MEMORY_BYTES_MIN: Final = MIB
"""No program starts with less: who writes 256 means 256M."""
EXEC_OUTPUT_SIZE_BYTES_DEFAULT: Final = 64 * MIB
EXEC_FILE_SIZE_BYTES_MAX: Final = 64 * MIB
EXEC_FILES_SIZE_BYTES_MAX: Final = 256 * MIB
"""Of `--workspace`; what fits inside is bounded by `--limit tmp=`, too."""

# Totals of a sandbox (`tools/sandbox/cgroups.py`), and the tiers.
SANDBOX_WATCH_MS: Final = 100
"""Between two looks at what a sandbox has used; it may be over a total for that long."""
SANDBOX_GONE_POLL_MS: Final = 5
"""Between two looks whether a killed sandbox is gone, where Linux doesn't tell."""
SANDBOX_GROUPS_SPARE_MAX: Final = 32
"""Emptied cgroups of version 1 that are kept for the next sandboxes."""
SANDBOX_GROUP_SPARE_BYTES_MAX: Final = MIB
"""What one of them may still be charged for; Linux gives it back a little later."""
SANDBOXES_CPU_SHARES: Final = 512
"""Of all sandboxes together (cgroup v1), beside 1,024 for each thread of the kernel."""
SANDBOXES_CPU_WEIGHT: Final = 50
"""The same in cgroup v2, beside 100 for the kernel."""

# Egress: the proxy of a sandbox, and what goes out for it.
EGRESS_RULES_MAX: Final = 256
EGRESS_RULE_CHARS_MAX: Final = 2_048
EGRESS_CONNECTIONS_MAX: Final = 32
"""Of one sandbox, at once."""
EGRESS_ASKS_AT_ONCE_MAX: Final = 8
"""Requests of one sandbox that are asked for at once: each may hold an answer in memory."""
EGRESS_HEADERS_MAX: Final = 100
EGRESS_LINE_SIZE_BYTES_MAX: Final = 8 * KIB
EGRESS_HEAD_SIZE_BYTES_MAX: Final = 32 * KIB
EGRESS_HEAD_S_MAX: Final = 10
"""From the first byte of a request's head, or of a TLS handshake, to its last."""
EGRESS_IDLE_S_MAX: Final = 60
EGRESS_BODY_S_MAX: Final = 30
"""For one request's body, and for one answer to be taken by the sandbox."""
EGRESS_LINGER_S: Final = 1
"""How long the rest of a refused request is thrown away."""
EGRESS_REQUEST_SIZE_BYTES_MAX: Final = 512 * KIB
EGRESS_BODY_SIZE_BYTES_MAX: Final = 4 * MIB
"""Of an answer."""
EGRESS_TARGET_CHARS_MAX: Final = 8 * KIB
EGRESS_DECODINGS_MAX: Final = 3
"""How often a path is percent-decoded in search of what it could be read as."""
EGRESS_HELLO_SIZE_BYTES_MAX: Final = 16 * KIB
EGRESS_LEAVES_MAX: Final = 64
"""Certificates that one authority keeps at hand."""
EGRESS_AUTHORITY_S_MAX: Final = 24 * 3_600
EGRESS_DNS_S_MAX: Final = 5
EGRESS_DNS_AT_ONCE_MAX: Final = 4
"""Look-ups in threads, of the whole kernel: one that hangs keeps its thread."""
EGRESS_ADDRESSES_MAX: Final = 64
EGRESS_DIALS_MAX: Final = 3
EGRESS_DIAL_S_MAX: Final = 10
EGRESS_ANSWER_S_MAX: Final = 60
"""From the request's first byte out to the answer's last byte in."""
EGRESS_INTERIM_MAX: Final = 4
"""Answers of status 1xx before the real one."""
EGRESS_TUNNEL_SIZE_BYTES_MAX: Final = 64 * MIB
EGRESS_TUNNEL_S_MAX: Final = 600
EGRESS_KEPT_MAX: Final = 256
"""Cookies and tokens of answers that are kept for one sandbox."""
EGRESS_KEEPERS_MAX: Final = 256
"""Runs for which one `http` tool keeps cookies and tokens."""
EGRESS_PIECE_SIZE_BYTES: Final = 64 * KIB
EGRESS_TEXT_SIZE_BYTES_MAX: Final = 256 * KIB
"""Of an answer that the tool `http` hands to an agent; what is longer is cut, and says so."""

# MCP servers (`tools/mcp/`).
MCP_LINE_SIZE_BYTES_MAX: Final = 2 * MIB
"""One message of a server."""
MCP_CALL_SIZE_BYTES_MAX: Final = 16 * MIB
"""All that a server may send during one call."""
MCP_ERRORS_SIZE_BYTES_MAX: Final = 4 * MIB
"""What is read of a server's standard error during one call; then it has to wait for the next."""
MCP_STRAY_LINES_MAX: Final = 32
"""What a server may print to its standard output beside messages, during one call."""
MCP_NOTICES_PER_CALL_MAX: Final = 1_024
"""Progress, log lines and requests that a server may send during one call."""
MCP_ERRORS_KEPT_SIZE_BYTES: Final = 8 * KIB
"""The end of what a server prints to its standard error."""
MCP_START_S_MAX: Final = 60
"""From the start of a server until it has named its tools."""
MCP_CANCEL_GRACE_S: Final = 2
"""How long a server whose call was cancelled may take to show that it still answers."""
MCP_LISTING_AGE_S_MAX: Final = 60
"""After this a server's code and tools are compared with its pin again before the next call."""
MCP_TOOLS_MAX: Final = 256
MCP_LIST_PAGES_MAX: Final = 32
MCP_VALUES_MAX: Final = 16_384
"""Of one message, without what the protocol leaves free: each costs the library's look at it."""
MCP_PARTS_MAX: Final = 256
"""Texts, images and other parts of one result."""
MCP_NAME_CHARS_MAX: Final = 64
MCP_TEXT_CHARS_MAX: Final = 32 * KIB
"""A description or a server's instructions."""
MCP_DESCRIPTION_CHARS_MAX: Final = 4_000
"""What a model is shown of a description."""
MCP_ERROR_CHARS_MAX: Final = 2_000
MCP_SCHEMA_SIZE_BYTES_MAX: Final = 64 * KIB
MCP_SCHEMA_DEPTH_MAX: Final = 24
MCP_PATTERN_CHARS_MAX: Final = 512
MCP_CODE_FILES_MAX: Final = 50_000
MCP_CODE_SIZE_BYTES_MAX: Final = 1024 * MIB
MCP_LOCK_SIZE_BYTES_MAX: Final = 8 * MIB
MCP_DIFF_LINES_MAX: Final = 60
MCP_FINDINGS_MAX: Final = 200

# Programs of the tools `python` and `shell`, and what `ring0 workspace` shows of their files.
PROGRAM_OUTPUT_SIZE_BYTES_MAX: Final = 4 * MIB
"""What a program may print, both streams together; at more it is stopped."""
PROGRAM_SHOWN_SIZE_BYTES_MAX: Final = 64 * KIB
"""Of each stream, in the result: its beginning and its end."""
PROGRAM_FILES_SHOWN_MAX: Final = 100
PROGRAM_LEFT_OUT_SHOWN_MAX: Final = 20
PROGRAM_COMMAND_SIZE_BYTES_MAX: Final = 96 * KIB
"""One argument of a program; Linux takes no more than 128 KiB."""
PROGRAM_TMP_BYTES_DEFAULT: Final = SANDBOX_TMP_BYTES_DEFAULT + WORKSPACE_SIZE_BYTES_MAX
PROGRAM_WALL_S_MAX: Final = 24 * 3_600
PROGRAM_IMAGE_MODULES_MAX: Final = 64
LAY_OUT_PIECE_SIZE_BYTES: Final = 1 * MIB
"""How much is written to a sandbox's folder at a time."""
DIFF_SIZE_BYTES_MAX: Final = 1 * MIB
DIFF_LINES_MAX: Final = 1_000
"""Lines that differ, of each side; what is longer is told by its size."""
DIFF_LINE_CHARS_MAX: Final = 2_000

# The sql tool, seen from outside its thread.
SQL_WALL_S_MAX: Final = 40
"""For a call of an engine with all its steps; then it is stopped as by a cancel."""
SQL_STOP_S_MAX: Final = 8
"""For a statement to end when it is asked to; then its connection is broken off."""

# The sql tool on PostgreSQL.
POSTGRES_CONNECT_S_MAX: Final = 5
POSTGRES_LOCK_WAIT_S_MAX: Final = 5
POSTGRES_NETWORK_S_MAX: Final = 15
"""Without an answer to what was sent: the connection is taken for dead."""
POSTGRES_ROW_SIZE_BYTES_MAX: Final = 256 * KIB
"""Of one row that is kept as an image, or that RETURNING gives back."""
POSTGRES_ROWS_PER_FETCH: Final = 32
POSTGRES_LOCKED_ROWS_MAX: Final = 200_000
"""Rows that others have locked, looked through for those that a statement changed."""
POSTGRES_RULES_DEEP_MAX: Final = 32
POSTGRES_TREE_CHARS_MAX: Final = 16 * MIB
"""Of all that the engine tells about one statement and what its views, rules and triggers do."""
WORK_ENTRIES_MAX: Final = 100_000
"""Files and folders in the private folder of a sandbox of the `landlock` tier."""
WORK_DEPTH_MAX: Final = 128
WORK_FOLDERS_OPEN_MAX: Final = 512
WORK_WATCH_MS: Final = 500
"""Between two looks at how much is in it."""
OCI_RUNTIME_MEMORY_BYTES: Final = 64 * MIB
OCI_RUNTIME_PROCESSES: Final = 64
"""What runc needs for itself, within a sandbox's totals, until the program runs."""
GVISOR_MEMORY_BYTES: Final = 64 * MIB
GVISOR_PROCESSES: Final = 256
"""What runsc needs as long as the program runs: its kernel, its threads, a stub for each thread."""
TIER_PROBE_S_MAX: Final = 20
"""For one sandbox that a tier makes to see whether it can; a runtime that hangs is no tier."""
MICROVM_BOOT_S_MAX: Final = 10
MICROVM_CONSOLE_SIZE_BYTES: Final = 64 * KIB

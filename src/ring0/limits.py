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

# The store.
BATCH_WRITES_MAX: Final = 512
QUEUED_WRITES_MAX: Final = 16_384
GROUP_COMMIT_DELAY_MS: Final = 5
"""How long events that nobody waits for may ride before they are put on disk."""

# Workspace.
WORKSPACE_FILES_MAX: Final = 4_096
WORKSPACE_FILE_SIZE_BYTES_MAX: Final = 4 * MIB
WORKSPACE_SIZE_BYTES_MAX: Final = 64 * MIB
WORKSPACE_PATH_CHARS_MAX: Final = 512

# Files beneath a folder that somebody else writes to.
BENEATH_ENTRIES_MAX: Final = 65_536
"""Files, folders and all else that one look goes through."""
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

# Totals of a sandbox (`tools/sandbox/cgroups.py`), and the tiers.
SANDBOX_WATCH_MS: Final = 100
"""Between two looks at what a sandbox has used; it may be over a total for that long."""
SANDBOX_GONE_POLL_MS: Final = 5
"""Between two looks whether a killed sandbox is gone, where Linux doesn't tell."""
SANDBOXES_CPU_SHARES: Final = 512
"""Of all sandboxes together (cgroup v1), beside 1,024 for each thread of the kernel."""
SANDBOXES_CPU_WEIGHT: Final = 50
"""The same in cgroup v2, beside 100 for the kernel."""

# Egress: the proxy of a sandbox, and what goes out for it.
PROXY_PORT: Final = 7421
"""Of the proxy's loopback listener inside a sandbox, always the same."""
EGRESS_RULES_MAX: Final = 256
EGRESS_RULE_CHARS_MAX: Final = 2_048
EGRESS_CONNECTIONS_MAX: Final = 32
"""Of one sandbox, at once."""
EGRESS_HEADERS_MAX: Final = 64
EGRESS_LINE_SIZE_BYTES_MAX: Final = 8 * KIB
EGRESS_HEAD_SIZE_BYTES_MAX: Final = 32 * KIB
EGRESS_HEAD_S_MAX: Final = 10
"""From the first byte of a request's head, or of a TLS handshake, to its last."""
EGRESS_IDLE_S_MAX: Final = 60
EGRESS_BODY_S_MAX: Final = 30
"""For one request's body, and for one answer to be taken by the sandbox."""
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
EGRESS_PIECE_SIZE_BYTES: Final = 64 * KIB
EGRESS_TEXT_SIZE_BYTES_MAX: Final = 256 * KIB
"""Of an answer that the tool `http` hands to an agent; what is longer is cut, and says so."""

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
CALLS_IN_FLIGHT_PER_RUN_MAX: Final = 256
STALE_DECISIONS_MAX: Final = 8
"""How often one call is decided again because labels or policy moved under it."""

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

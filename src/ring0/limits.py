"""Every bound in ring0, named, with its unit last. Nothing else in the code holds such a number."""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# Calls as they come through a door.
INTEGER_BEYOND: Final = 2**63
"""No integer of a call is so large, of either sign."""
CALL_BODY_SIZE_BYTES_MAX: Final = 4 * MIB
CALL_VALUES_MAX: Final = 100_000
"""In one body, of any kind and size: each takes time of all others that are at work."""
CALL_DEPTH_MAX: Final = 64
CALL_STRING_SIZE_BYTES_MAX: Final = 1 * MIB
CALL_NAME_CHARS_MAX: Final = 128
CALL_PATH_CHARS_MAX: Final = 256
CALLS_IN_FLIGHT_PER_RUN_MAX: Final = 128
CALLS_SIZE_PER_RUN_BYTES_MAX: Final = 8 * MIB
"""Of the bodies of a run's calls under way; a larger one is read when it is the only one."""
CALL_SMALL_SIZE_BYTES: Final = 16 * KIB
"""A body that is never kept waiting for others to end."""
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
DOOR_WRITE_S_MAX: Final = 60
"""So long may a client leave what is written to it where it is; after that its connection ends."""
DOOR_COUNTS_PER_MIN: Final = 120
DOOR_COUNTED_BYTES_PER_MIN: Final = 16 * MIB
"""Of questions whose tokens a run has counted: that is no call, and costs its budget nothing."""
DOOR_HEADERS_MAX: Final = 64
DOOR_HEADER_SIZE_BYTES_MAX: Final = 4 * KIB
DOOR_LINGER_S: Final = 2
"""How long the rest of a refused body is thrown away, so that the refusal is read."""
DOOR_BACKLOG: Final = 128
CONTROL_CONNECTIONS_MAX: Final = 64
CONTROL_STRANGERS_MAX: Final = 4
"""Connections of processes that the operator's socket refuses: enough to tell them so."""
CONTROL_IDLE_S_MAX: Final = 10
KERNEL_OPEN_FILES_MAX: Final = 65_536

# Runs.
TASK_SIZE_BYTES_MAX: Final = 256 * KIB
TASK_VARIABLE_SIZE_BYTES_MAX: Final = 64 * KIB
"""Of a task that a program finds in RING0_TASK: Linux takes no variable of 128 KiB."""
RUN_DEPTH_MAX: Final = 3
RUNS_LIVE_MAX: Final = 100_000
"""Runs that have not ended, looked through at once: to recover or kill them."""
RUNS_LISTED_MAX: Final = 10_000
"""Runs that a command looks through, the newest first."""
RUN_CHILDREN_MAX: Final = 64
CHILD_SHARE: Final = 8
"""A child that says nothing of a budget gets one part in so many of what its parent has left."""
RUN_CALLS_DEFAULT: Final = 1_000
RUN_WALL_S_DEFAULT: Final = 3_600
RUN_TOKENS_DEFAULT: Final = 2_000_000
PRIORITY_DEFAULT: Final = 5
PRIORITY_LAST: Final = 9
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
SCHEMA_PATTERN_SIZE_BYTES_MAX: Final = 128 * KIB
"""Of one compiled pattern: what is looked through for each letter, at the worst."""
SCHEMA_PATTERN_CHARS_MAX: Final = 64 * KIB
"""Letters that patterns are tried on, times the patterns, in one call: a second or two."""

# The store.
BATCH_WRITES_MAX: Final = 512
QUEUED_WRITES_MAX: Final = 16_384
GROUP_COMMIT_DELAY_MS: Final = 5
"""How long events that nobody waits for may ride before they are put on disk."""
GROUP_SIZE_BYTES_MAX: Final = 1 * MIB
"""Events and values after which a group is put on disk; the last write of it may be longer."""
ROWS_CACHED_MAX: Final = 4_096
"""Rows that the writer keeps decoded."""
BLOB_LOOKED_UP_SIZE_BYTES_MIN: Final = 4 * KIB
"""A shorter value is charged though it may be in the store: to look costs more than it takes."""
RUN_EVENTS_MAX: Final = 1_000_000
RUN_STORED_BYTES_MAX: Final = 1024 * MIB
"""What one run may put in the journal before it is refused more; outcomes are always taken."""
TENANT_EVENTS_MAX: Final = 200_000_000
TENANT_STORED_BYTES_MAX: Final = 64 * 1024 * MIB
DISK_RESERVE_SIZE_BYTES: Final = 8 * MIB
"""Held beside the journal, so that kills and ends can be put on record when the disk is full."""
DISK_RESERVE_SHARE_OF_ENDS: Final = 2
"""Ends of runs and sandboxes use one part in so many of it; the rest is for kills."""
ESSENTIAL_EVENT_SIZE_BYTES: Final = 8 * KIB
"""What one essential write is taken to need of the reserve beside its values: its pages."""

# --- room: values in parts, archives, back-ups (store/lists.py, kernel/operating/) ----------------
ERASED_AT_ONCE_MAX: Final = 64
"""Runs in one request: those that share values are erased together."""
LIST_DEPTH_MAX: Final = 8
"""Lists within a list of blobs: each level holds sixteen times as many parts."""
LIST_VALUE_SIZE_BYTES_MIN: Final = 4 * KIB
"""A shorter question to a model is kept as it is."""
LIST_PARTS_CACHED_SIZE_BYTES_MAX: Final = 8 * MIB
"""Of one run's messages, whose addresses are known without hashing them again."""
ARCHIVE_READ_SIZE_BYTES: Final = 1 * MIB
ARCHIVE_BATCH_SIZE_BYTES: Final = 4 * MIB
"""Of values, that go to an archive or come back from one together."""
ARCHIVED_AT_ONCE_MAX: Final = 1_000
"""Runs in one `ring0 archive`; the others are left for the next."""
PAGES_GIVEN_BACK_AT_ONCE: Final = 4_096
"""Of the file, in one transaction: other writes wait no longer than that takes."""
GROWTH_WINDOW_S: Final = 7 * 86_400
"""How far back a forecast looks."""
GROWTH_EVENTS_MAX: Final = 200_000
"""Of that window, the newest: a forecast takes a second at the most."""
ARCHIVE_LOOKED_AT_ONCE: Final = 200
"""Events, and values, of a run that is archived, between two turns of others."""
GROWTH_PAGE_EVENTS: Final = 2_000
BACKUP_LIST_SIZE_BYTES_MAX: Final = 64 * MIB
"""Of backup.json: a few hundred bytes a file."""
RESTORED_GENERATIONS: Final = 2**32
"""By how much the kill generation goes on when a back-up is restored and the clock is behind."""
GROWTH_SPAN_S_MIN: Final = 3_600
"""A journal that is younger is taken to have grown for so long: a minute's work is no day's."""
STORED_TAKES_TIMES_MAX: Final = 10
"""What is stored is taken to need at most so many times its bytes in the file."""
RESTORED_FENCES: Final = 2**32
"""By how many the numbers of locks go on when a back-up is restored and the clock is behind."""

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
MCP_RETRY_MS_DEFAULT: Final = 1_000
MCP_RETRY_MS_MAX: Final = 30_000
"""A server that wants to be asked again later than that is not asked again."""
MCP_STREAM_LINES_MAX: Final = 65_536
MCP_RETRIES_MAX: Final = 8
"""How often one answer is gone on with after its stream ended."""
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

# The daemon (`daemon/`): a supervisor, its worker, and what the control socket says of them.
BEAT_S: Final = 0.25
"""Between two signs of life of a worker's event loop."""
LEASE_S: Final = 5
"""A worker that was silent for so long is taken for frozen and killed. Longer than a slow commit,
which does not hold up the loop, and than looking through many runs, which does."""
WORKER_LATE_S: Final = 2
"""A worker that was silent for so long may be frozen: a successor loads its code meanwhile."""
WORKER_START_S_MAX: Final = 300
"""From a worker's start until it says that it is at work: a long journal is checked before."""
WORKER_STOP_S_MAX: Final = 60
"""For a worker to end when it is asked to; then it is killed."""
WORKER_DRAIN_S_MAX: Final = 20
"""For `once` calls under way to end, before what goes on is stopped."""
WORKER_SETTLED_S: Final = 30
"""A worker that was at work for so long was no failure, however it ended."""
WORKER_FAILURES_MAX: Final = 5
"""Workers in a row that did not come so far: then the supervisor gives up."""
WORKER_BACKOFF_S: Final = 0.5
"""Before the second attempt in a row; doubled before each further one."""
WORKER_FULL_S_MAX: Final = 30
"""Between two attempts to start a worker while the disk is full."""
WORKER_DEATHS_CAUTIOUS: Final = 2
"""Workers in a row that died young: from then on, runs that were at work at the death are held."""
WORKER_TITLE_CHARS_MAX: Final = 300
"""Of what a call that is held would do, in the daemon's log."""
WORKER_TOLD_MAX: Final = 10_000
"""Asks and unknown effects that a worker remembers to have said once."""
NOT_RECOVERED_SHOWN_MAX: Final = 1_000
NOT_RECOVERED_CHARS_MAX: Final = 600
WORKER_MESSAGE_SIZE_BYTES_MAX: Final = 16 * KIB
WORKER_SAYING_SIZE_BYTES_MAX: Final = 4 * KIB
"""Of a text in it, as JSON: three fit, with what is beside them."""
JOURNAL_LOOK_S: Final = 2
"""How often a daemon's worker looks whether its journal can be written."""
JOURNAL_FAILURES_MAX: Final = 3
"""So many looks in a row that find that it can't: another worker opens it anew."""
JOURNAL_ROOM_SIZE_BYTES_MIN: Final = 2 * DISK_RESERVE_SIZE_BYTES
"""After a full disk: enough for the reserve, and for something beside it."""
CONTROL_RECONNECT_S_MAX: Final = 4 * LEASE_S
"""How long a command waits for a daemon whose worker is being replaced."""
PRINTED_KEPT_BYTES_MAX: Final = 4 * MIB
"""Of what all agents' processes print, so much of the newest is kept for those who follow."""
PRINTED_PIECE_BYTES: Final = 256
"""What each piece of it takes beside its text."""
PRINTED_FOLLOWERS_MAX: Final = 16
"""A connection each; fewer than CONTROL_CONNECTIONS_MAX, so that a kill still finds one."""
RUNS_BEGUN_AT_ONCE_MAX: Final = 8
"""Requests to start a run that are being done: each describes its agent in a sandbox."""
RUN_FOLLOWED_POLL_S: Final = 0.05
"""Between two looks at the journal by a command that follows a run."""
TOP_REFRESH_S: Final = 1
TOP_RUNS_SHOWN_MAX: Final = 200
LISTED_DATED_MAX: Final = 200
"""Of so many runs that wait, a list says since when: each is read from its end."""

# Budgets, caps and asking for more.
MODEL_TOKENS_SAID_MAX: Final = 100_000_000
"""What a provider may say that one answer took; more can't be true."""
BUDGET_CALLS_MAX: Final = 10_000_000
BUDGET_TOKENS_MAX: Final = 1_000_000_000_000
BUDGET_MICROUSD_MAX: Final = 1_000_000_000_000
"""A million US dollars."""
BUDGET_WALL_S_MAX: Final = 366 * 24 * 3_600
BUDGET_SPENT_SHOWN_MAX: Final = 5
"""Kinds of calls that a refusal names, those that spent most."""
PRICES_AGE_DAYS_MAX: Final = 90
"""Prices that were read longer ago are pointed out by `ring0 doctor`."""
BUDGET_CHUNK_CALLS_MAX: Final = 64
BUDGET_CHUNKS_MIN: Final = 16
"""The calls of a budget reach the disk in at least so many parts."""
ASKS_FOR_MORE_PER_TREE_MAX: Final = 5
"""How often a tree of runs may ask a person for more budget, whatever the answers."""
ASKS_TREES_KEPT_MAX: Final = 1_024
"""Trees of which is remembered how often they asked; of others it is counted anew."""
ASK_WHY_CHARS_MAX: Final = 1_000
CAPS_MAX: Final = 256
CAP_WINDOW_S_MAX: Final = 366 * 24 * 3_600

# The fair queue (`scheduler/queue.py`), slots and token buckets.
CALLS_AT_ONCE_DEFAULT: Final = 256
"""Calls of tools and models that are carried out at the same time, of the whole kernel."""
SANDBOXES_AT_ONCE_DEFAULT: Final = 32
"""Of them, calls that have a sandbox of their own."""
MODEL_CALLS_AT_ONCE_DEFAULT: Final = 64
"""Of them, calls of one model provider."""
AT_ONCE_MAX: Final = 4_096
"""What an operator may set for one of these."""
SLOTS_SPARE_FROM: Final = 4
"""Of a resource with so many slots, one tree (or tenant) never takes all while it waits alone."""
SLOTS_SPARE_SHARE: Final = 16
"""One in so many (one at the least) is then left for who comes."""
QUEUED_CALLS_PER_TENANT_MAX: Final = 4_096
AGEING_S: Final = 10
"""A class in which nothing goes for so long counts as the next higher one, and so on up to 0."""
RUN_STARVED_S: Final = 60
"""A tree or run of which nothing goes for so long is next in its tenant."""
TENANT_WEIGHT_MAX: Final = 1_000
TENANTS_REMEMBERED_MAX: Final = 10_000
RUNS_ATTAINED_MAX: Final = 100_000
"""Runs of which is remembered what they have had."""
CALL_COST_US_MIN: Final = 1_000
"""What a call costs its tenant and its run at the least: one millisecond of a slot."""
TOKEN_COST_US: Final = 1_000
"""What a token of a model costs beside the time: as a millisecond of a slot."""
BYTES_PER_TOKEN: Final = 4
"""The estimate of a request's tokens for its provider's bucket."""
BUCKET_BURST_S: Final = 10
"""How much of a provider's minute may go in one burst."""
RATE_PER_MIN_MAX: Final = 1_000_000_000
BUCKETS_MAX: Final = 256
RETRY_AFTER_S_MAX: Final = 24 * 3_600
"""How long a provider's word not to come before counts at most."""
BUSY_BACK_S_MAX: Final = 600
"""The longest time after which who was refused is told to come back."""
STOP_DRAIN_S: Final = 30
"""How long a kernel that stops waits for `once` calls that are under way."""
HEAP_SPARE_MAX: Final = 64
"""Entries of a heap that are out of date before it is tidied."""

# Loops, and calls that are refused (`scheduler/loops.py`, `kernel/steps/refusing.py`).
LOOP_WARN_AT: Final = 3
"""The time at which the same call gives the same answer with nothing new in between, and the model
is told."""
LOOP_STOP_AT: Final = 5
"""The time that is refused."""
POLLED_CALLS_MAX: Final = 500
"""As IDENTICAL_CALLS_MAX, for calls with a pause before each, and for tools that poll."""
TREE_IDENTICAL_CALLS_MAX: Final = 500
"""As IDENTICAL_CALLS_MAX, in all runs of a tree together."""
LOOP_PAUSE_MS_MIN: Final = 100
"""A `sleep` that is shorter is no pause."""
LOOP_STALE_CALLS_MAX: Final = 128
"""Calls of a tree since it last learned anything new, for each of its live runs."""
LOOP_KNOWN_MAX: Final = 4_096
"""Fingerprints that are remembered of one run; a tree remembers four times as many."""
LOOP_PATHS_MAX: Final = 1_024
"""Task paths of a run of which a pause is remembered."""
LOOP_ANCESTORS_MAX: Final = 2
"""How often one agent may stand on the same task in a chain of parents."""
LOOP_NOISE_CHARS_MAX: Final = 4 * KIB
"""Of a longer answer so much of its beginning and of its end is looked through for noise."""
TREE_CALLS_PER_S_MAX: Final = 5_000
"""Of a whole tree; beyond it calls wait."""
TREE_CALLS_BURST_MAX: Final = 5_000
REFUSALS_PER_S_MAX: Final = 50
"""Of one run; beyond it a refusal waits before it is on record."""
REFUSALS_BURST_MAX: Final = 100
TENANT_REFUSALS_PER_S_MAX: Final = 200
TENANT_REFUSALS_BURST_MAX: Final = 400
TENANTS_REFUSED_MAX: Final = 4_096
"""Tenants of which is remembered how quickly they are refused."""
REFUSALS_SELDOM_PER_S: Final = 1
REFUSALS_SELDOM_BURST: Final = 4
"""Of one run; up to this a refusal does not wait for those of its tenant's other runs."""
REFUSALS_ALONE_MAX: Final = 8
"""Equal refusals in a row that have a line of their own, before they share one."""
REFUSALS_TOGETHER_MAX: Final = 256
"""Calls that one event may say to be refused as the one before was."""
REFUSALS_DELAY_MS: Final = 100
"""How long such an event may be put off."""
CALLS_WAITING_PER_RUN_MAX: Final = 1_024
"""Calls of a run that wait for one of its CALLS_IN_FLIGHT_PER_RUN_MAX to end."""

# Locks, and messages between runs (`kernel/calls/locking.py`, `kernel/calls/messages.py`).
LOCK_NAME_CHARS_MAX: Final = 200
LOCKS_PER_RUN_MAX: Final = 64
LOCK_TOUCHES_MAX: Final = 1_000
"""Named resources that one call may change."""
LOCK_WAITERS_PER_NAME_MAX: Final = 1_000
LOCK_LEASE_S_DEFAULT: Final = 60
LOCK_LEASE_S_MAX: Final = 3_600
LOCK_WAIT_QUIET_MS: Final = 20
"""A wait that is shorter than this is not written to the run's row."""
DEADLOCK_RUNS_SHOWN_MAX: Final = 8
MESSAGE_SIZE_BYTES_MAX: Final = 64 * KIB
MESSAGES_WAITING_MAX: Final = 1_000
"""For one run; who sends more is refused until some are received."""
MESSAGES_OF_PEOPLE_MAX: Final = 100
"""Beyond that: what runs of its tree send leaves room for a person's word."""
MESSAGE_TOLD_TRIES_MAX: Final = 3
"""How often a person's word is written anew because its run was started meanwhile."""

# The life of a run: at work, put away, woken, stopped (`kernel/life/runs.py` and beside it).
RUNS_AT_WORK_DEFAULT: Final = 256
"""Runs that go on at the same time; those that wait do not count."""
RUNS_QUEUED_PER_TENANT_MAX: Final = 10_000
RUNS_LOOKED_AT_ONCE_MAX: Final = 256
"""Waiting runs that are looked at, or ended, at the same time."""
PARK_AFTER_S: Final = 20
"""A run that waits for so long with all that it has under way is put away: a row, no process."""
RUNS_RESIDENT_WAITING_MAX: Final = 512
"""Waiting processes that give no task paths: they can't be started again, so they stay."""
ALARMS_SLEEP_S_MAX: Final = 60
LOOK_AGAIN_S: Final = 30
"""A run that could not be looked at, or not be started again, is looked at once more."""
ALARMS_VOID_MAX: Final = 1_024
"""Alarms that were set anew or dropped, beyond those that stand, before they are cleared out."""
TIMER_WRITTEN_S_MIN: Final = 1
"""A shorter `sleep` is no waiting: it is not written, and holds its place among those at work."""
AGENT_STOP_S_MAX: Final = 10
"""For an agent function of this process to end when it is stopped; nothing it does then counts."""
FROZEN_LOOK_S: Final = 5
FROZEN_S: Final = 15
"""An agent's process that was stopped by a signal for so long is killed and started again."""
FROZEN_RESTARTS_MAX: Final = 3

# Orders that start runs by themselves (`scheduler/timetable.py`, `kernel/life/orders.py`).
ORDERS_MAX: Final = 1_000
"""Crons of a data folder, and hooks."""
ORDER_NAME_CHARS_MAX: Final = 64
ORDER_WHY_CHARS_MAX: Final = 300
CRON_EXPRESSION_CHARS_MAX: Final = 200
CRON_EVERY_S_MIN: Final = 10
CRON_EVERY_S_MAX: Final = 366 * 24 * 3_600
CRON_AHEAD_S_MAX: Final = 50 * 366 * 24 * 3_600
"""A moment that is farther ahead never comes."""
CRON_LATE_S_MAX: Final = 60
"""A moment that is past by more was missed."""
CRON_MISSED_MAX: Final = 100
"""Missed moments that get a run each; of more, the newest ones."""
CRON_LOOK_S_MAX: Final = 60
"""A clock may be set while the loop sleeps."""
CRONS_STARTED_AT_ONCE_MAX: Final = 8
HOOK_PORT: Final = 7420
HOOK_BODY_SIZE_BYTES_MAX: Final = 1 * MIB
HOOK_BODIES_AT_ONCE_MAX: Final = 8
HOOK_CONNECTIONS_MAX: Final = 64
HOOK_IDLE_S_MAX: Final = 10
HOOK_LATE_S_MAX: Final = 300
"""How old, or how far ahead, a delivery's own time may be."""
HOOK_ID_CHARS_MAX: Final = 256
HOOK_SIGNATURES_MAX: Final = 8
"""In one header: a sender that changes its secret signs with both."""
HOOK_DELIVERIES_PER_MIN_MAX: Final = 120
"""Of one hook, signed well; the first twenty may come at once."""

# Policies (`governance/`).
APPROVERS_MAX: Final = 16
"""People that a rule may want to say yes to one call (`@approvers`)."""
POLICY_ARGS_DEPTH_MAX: Final = 16
"""How deep a tool's schema is followed; what lies deeper policies see as JSON text."""
POLICY_ARGS_PARTS_MAX: Final = 1_000
"""Types in what is made of one tool's schema; what is beyond policies see as JSON text."""
POLICY_SCHEMAS_KEPT_MAX: Final = 256
"""Schemas of single tools that are kept parsed; each takes about a millisecond to parse."""
POLICY_EXPIRES_S_MAX: Final = 30 * 24 * 3_600
POLICY_CASES_MAX: Final = 10_000
"""Of one file for `ring0 policy test`."""
POLICY_WARNED_OF_MAX: Final = 4_096
"""Agents and sets of policies whose rules for tools that nobody has were told of; then anew."""
POLICY_CASES_SIZE_BYTES_MAX: Final = 4 * MIB

# The vault and OAuth (`identity/vault/`, `identity/oauth.py`).
SECRET_NAME_CHARS_MAX: Final = 128
VAULT_FILE_SIZE_BYTES_MAX: Final = 16 * MIB
VAULT_KEY_FILE_SIZE_BYTES_MAX: Final = 4 * KIB
SECRET_OLD_S_MAX: Final = 24 * 3_600
"""For so long a kernel keeps a value back after another took its place, or it was removed."""
TOKEN_OLD_S_MAX: Final = 3_600
"""The same of a login's tokens, which change often."""
SECRETS_OLD_MAX: Final = 64
"""Old values that a kernel keeps back; of more, the newest."""
OAUTH_ANSWER_SIZE_BYTES_MAX: Final = 256 * KIB
OAUTH_ANSWER_S_MAX: Final = 20
OAUTH_URL_CHARS_MAX: Final = 2_048
OAUTH_TOLD_CHARS_MAX: Final = 300
"""Of what a server says about an error."""
OAUTH_REDIRECT_PARAMETERS_MAX: Final = 32
LOGIN_S_MAX: Final = 600
"""For a person, to log in where the browser was sent to."""
LOGIN_CONNECTIONS_MAX: Final = 32
DEVICE_LOGIN_S_MAX: Final = 1_800
DEVICE_POLL_S_DEFAULT: Final = 5
DEVICE_POLL_S_MAX: Final = 60
DEVICE_POLL_SLOWER_S: Final = 5
"""By so much longer the wait gets at each `slow_down` (RFC 8628, 3.5)."""
OAUTH_EXPIRES_S_MAX: Final = 366 * 24 * 3_600
OAUTH_REFUSED_S_MIN: Final = 30
"""A token that a host refuses sooner after it was renewed is not renewed again for that."""
OAUTH_DISCOVERED_S_MAX: Final = 3_600
OAUTH_SERVERS_MAX: Final = 8
"""Login servers that a protected resource may name."""
OAUTH_SCOPE_CHARS_MAX: Final = 200
OAUTH_SCOPES_MAX: Final = 64
"""Of one login: what a server suggests beyond is not asked for."""
OAUTH_CHALLENGE_CHARS_MAX: Final = 4 * KIB
OAUTH_ASSERTION_S: Final = 60
"""How long the JWT is good with which a client says who it is (`private_key_jwt`)."""
OAUTH_LOCK_S_MAX: Final = 60
OAUTH_LOCK_LOOK_S: Final = 0.05
OAUTH_REFRESH_EARLY_S: Final = 60
"""An access token that ends sooner is renewed before it is used."""

# Identity: grants, tokens, certificates (`identity/`).
GRANT_PATTERNS_MAX: Final = 64
GRANT_CHARS_MAX: Final = 160
"""Of one pattern: a call's name, with what says of which kind it is."""
GRANT_TOLD_CHARS_MAX: Final = 400
TOKEN_SIZE_BYTES_MAX: Final = 8 * KIB
TOKEN_BLOCKS_MAX: Final = 16
TOKEN_S_DEFAULT: Final = 300
TOKEN_S_MAX: Final = 24 * 3_600
TOKENS_PER_RUN_MAX: Final = 64
"""That have not expired and were not revoked."""
TOKEN_AUTHORISE_MS_MAX: Final = 50
"""Biscuit's own default is 1 ms, and denied valid requests under load."""
TOKEN_FACTS_MAX: Final = 200
TOKEN_ITERATIONS_MAX: Final = 20
TOKEN_BLOCK_FACTS_MAX: Final = 8
"""By name, with the kernel's own four, in all blocks that were added."""
TOKENS_REVOKED_PER_RUN_MAX: Final = 1_024
TOKEN_ID_CHARS: Final = 16
KEY_FILE_SIZE_BYTES_MAX: Final = 256 * KIB
TOKENS_KNOWN_MAX: Final = 1_024
"""Tokens whose signatures were checked, and the answers about them."""
TOKEN_CONNECTIONS_MAX: Final = 64
TOKEN_REQUESTS_PER_RUN_MAX: Final = 16
"""At that door at once with tokens of one run, so that none keeps out those of the others."""
TOKEN_IDLE_S_MAX: Final = 30
EDGE_JWT_S_MAX: Final = 60
CLOCK_SKEW_S: Final = 30
"""How far another machine's clock may be behind ours."""
REPLAYS_REMEMBERED_MAX: Final = 100_000
CERTIFICATE_S: Final = 600
AUTHORITY_S: Final = 2 * 24 * 3_600
"""An authority signs for half of that, and is trusted for all of it."""
JWT_SVID_S: Final = 300
JWT_SVID_AUDIENCES_MAX: Final = 8
JWT_SVID_AUDIENCE_CHARS_MAX: Final = 256
WORKLOAD_CONNECTIONS_MAX: Final = 4
"""Of one run, to the SPIFFE Workload API."""
WORKLOAD_IN_BYTES_MAX: Final = 4 * MIB
"""That one connection may send in all: what is asked for is small."""
WORKLOAD_ANSWERS_PER_MIN_MAX: Final = 240
"""To one run. A certificate is made anew only when half of its time is over."""

# Operators: who they are, logins, what files say (`identity/{roles,logins,jws,oidc}.py`).
OPERATOR_NAME_CHARS_MAX: Final = 500
ROLES_NAMED_MAX: Final = 1_000
LOGIN_HOURS_MAX: Final = 8
"""For so long a login is taken; after that whoever it was logs in again."""
LOGINS_MAX: Final = 256
"""People who are logged in at the same time; of more, those that end first are ended."""
LOGINS_BEGUN_MAX: Final = 16
"""Logins under way at an issuer; of more, the oldest is given up."""
LOGIN_FILE_BYTES_MAX: Final = 16 * KIB
LOGIN_CODE_TRIES_MAX: Final = 5
"""Wrong codes; after that the first start's code is dead."""
LOGIN_GROUPS_MAX: Final = 200
LOGIN_GROUP_CHARS_MAX: Final = 200
LOGIN_EMAIL_CHARS_MAX: Final = 254
LOGIN_SUBJECT_CHARS_MAX: Final = 255
"""OpenID Connect Core, 2."""
JWS_SIZE_BYTES_MAX: Final = 32 * KIB
JWKS_SIZE_BYTES_MAX: Final = 256 * KIB
JWKS_KEYS_MAX: Final = 64
RSA_BITS_MIN: Final = 2_048
RSA_BITS_MAX: Final = 8_192
CLOCK_SKEW_S_MAX: Final = 60
"""How far an issuer's clock may be off."""
SETTING_TEXT_BYTES_MAX: Final = 1 * MIB
"""Of what one table of ring0.toml says, on record."""

# Approvals: what people answer (`kernel/steps/answering.py`, `governance/approvals.py`).
DENIALS_IN_A_ROW_MAX: Final = 3
"""So many, and the run is paused until a person lets it go on."""
APPROVAL_BATCH_MAX: Final = 32
EDITS_MAX: Final = 32
"""Arguments that people change of one call."""
EDIT_CHARS_MAX: Final = 64 * KIB
EDIT_ARGUMENTS_SHOWN_MAX: Final = 64
"""Arguments of which an ask says what they take."""
EDIT_CHOICES_SHOWN_MAX: Final = 24
"""Of an argument that takes one of some values."""
EDIT_TAKES_CHARS_MAX: Final = 400
EDIT_TAKES_DEPTH_MAX: Final = 4
"""How deep a schema is followed to say what an argument takes."""
EDITED_S_MAX: Final = 10
"""For so long `ring0 approve --set` waits until the call was judged anew."""
EDITED_LOOK_S: Final = 0.05
STANDING_S_MAX: Final = 24 * 3_600
STANDING_USES_MAX: Final = 1_000
"""Of one standing approval; then a person is asked again."""
STANDING_PER_TENANT_MAX: Final = 256
STANDING_PATTERN_CHARS_MAX: Final = 256
STANDING_VALUE_CHARS_MAX: Final = 1_024
"""A longer value fits no pattern but `*`."""
NOTIFY_PLACES_MAX: Final = 8
NOTIFY_AT_ONCE_MAX: Final = 4
NOTIFY_BACK_S_FIRST: Final = 1
NOTIFY_BACK_S_MAX: Final = 300
NOTIFY_TRIES_LAST: Final = 9
"""From here on the pauses get no longer."""
NOTIFY_LATE_S: Final = 60
"""What was not told by then is a fault that `ring0 doctor` shows."""
NOTIFY_LINE_CHARS_MAX: Final = 200
NOTIFY_TEXT_CHARS_MAX: Final = 2_000
NOTIFY_LINES_MAX: Final = 20
NOTIFY_WAITING_MAX: Final = 1_024
"""Messages that are on their way; what is more is told when these are."""

# Undo and kill.
UNDO_CALLS_MAX: Final = 5_000
"""Calls that one undo takes back or tells of."""
UNDO_REQUESTS_PER_STEP_MAX: Final = 100
"""Requests to the outside that each tool may make that takes a call back."""
UNDO_CODE_KEPT_MAX: Final = 64
"""Embedded trees whose functions are kept at hand for an undo of them that goes on later."""
KILLS_TOLD_MAX: Final = 20
"""Runs that an error of a kill names."""
UNDO_LOOKED_AT_EVERY_S: Final = 0.5
"""Who asked for an undo hears so soon that it waits for a person."""

# --- model doors ------------------------------------------------------------------------------

MODEL_STREAM_SIZE_BYTES_MAX: Final = 64 * MIB
"""Of a provider's stream with all that is around its text."""
ANSWER_BLOCKS_MAX: Final = 1_024
"""Texts, thoughts and calls that one answer is made of."""
ANSWER_ID_CHARS: Final = 24
"""Of the digest of a call's id that an answer at a model door is called by."""
MODEL_CALL_ID_CHARS_MAX: Final = 256
"""Of what a provider calls a tool call that its model proposes; a longer one is given another."""
MODEL_MESSAGES_MAX: Final = 4_096
MODEL_TOOLS_MAX: Final = 256
"""That one question offers."""
MODEL_ANSWERS_MAX: Final = 1
"""That one question asks for at once."""
MODEL_TOOL_CALLS_MAX: Final = 64
"""That one answer proposes."""
MODEL_ERROR_CHARS_MAX: Final = 300
"""Of what a provider says of an error."""
MODEL_FIELD_CHARS_MAX: Final = 80
"""Of a field's name that is refused at a model door, as the error shows it."""
MODEL_RETRY_AFTER_S_MAX: Final = 60
"""A provider that asks for more is not waited for: the error says how long it asked."""
EMBEDDING_TEXTS_MAX: Final = 2_048
"""Of one question for vectors."""
EMBEDDING_DIMENSIONS_MAX: Final = 16_384
"""Numbers of one vector."""
LOCAL_MODEL_TEXT_CHARS_MAX: Final = 240
"""Of each text in what a local model is made to write in a form."""
MODEL_LIST_ITEMS_MAX: Final = 16_384
"""Of one list in a request at a model door: messages, parts of one, tools."""
MODEL_CALLS_SAID_MAX: Final = 4_096
"""Tool calls in the conversation that a model is asked to go on with."""
COMMAND_COST_MICROUSD_DEFAULT: Final = 1_000_000
"""Of a program that is run without a manifest: a dollar."""
LOCAL_MODEL_MEMORY_BYTES: Final = 768 * MIB
LOCAL_MODEL_ANSWER_TOKENS_MAX: Final = 512
LOCAL_MODEL_THREADS_MAX: Final = 64
"""Processes and threads in the sandbox of a local model."""
GEMINI_SCHEMA_DEPTH_MAX: Final = 32
GEMINI_SCHEMA_PLACES_MAX: Final = 10_000
"""Of a tool's schema with its references unfolded, as Gemini is sent it."""
MODEL_CHAIN_MAX: Final = 8
"""Models that one call may ask in turn: the one that is asked for, and its fallbacks."""
MODEL_MEDIA_PARTS_MAX: Final = 128
MODEL_MEDIA_SIZE_BYTES_MAX: Final = 3 * MIB
"""Images, sounds and files of one question, together, as base64."""
DOOR_PING_S: Final = 10
"""Whoever waits longer than this for an answer is told that it will come."""

# --- the MCP door -----------------------------------------------------------------------------

MCP_DOOR_ID_CHARS_MAX: Final = 256
"""Of the id that a client gives its request."""
MCP_DOOR_CAPABILITIES_SIZE_BYTES_MAX: Final = 16 * KIB
"""Of what a client says that it can: a session keeps it."""
MCP_DOOR_PAGE_ITEMS_MAX: Final = 100
"""Tools, resources or prompts in one answer."""
MCP_DOOR_SESSIONS_MAX: Final = 64
"""Of one run, in the handshake era."""
MCP_DOOR_NEWS_MAX: Final = 256
"""Messages kept for a client that does not listen just now."""
MCP_DOOR_POLL_S: Final = 45
"""A call that waits for a person is held so long in the stateless era before its client is told
to come back: clients give up after 60."""
MCP_DOOR_ANSWER_S_MAX: Final = 300
"""A client has so long to answer what a server asks of it."""
MCP_DOOR_STATE_CHARS_MAX: Final = 64 * KIB
"""Of what a client carries from one round of a call to the next."""
MCP_DOOR_ROUNDS_MAX: Final = 10
"""In which a server may ask a client of the handshake era for more, within one request."""
MCP_DOOR_BACKOFF_S: Final = 1
"""Before a server is asked again that only needs time."""
MCP_WATCHED_MAX: Final = 64
"""Resources of one server of which a run hears when they change."""
MCP_OFFERS_MAX: Final = 1_000
"""Resources, templates or prompts of one server."""

# What goes on record of why something is so (`kernel/values.py`).
WHY_CHARS_MAX: Final = 500
"""Of what the kernel, a program or a server said."""
NOTE_CHARS_MAX: Final = 1_000
"""Of what a person wrote with `--note`."""

# --- a person's own Python (kernel/agent/environments.py) ----------------------------------------
PYTHON_HOPS_MAX: Final = 32
"""Links and environments on the way from a program to the Python that it was made from."""
PYVENV_CHARS_MAX: Final = 64 * KIB

# --- labels: of fields, through derivation, and what is done about a source (guardrails/) -------
FIELD_PATH_CHARS_MAX: Final = 256
FIELD_RULES_MAX: Final = 64
"""Of one tool's output."""
FIELDS_PER_OUTCOME_MAX: Final = 256
"""Rules that go on record with an outcome; where it takes more, the whole's label holds of all."""
FIELD_LEAVES_MAX: Final = 20_000
"""Values in one output that are labelled one by one."""
FIELD_ECHO_CHARS_MAX: Final = 4 * MIB
"""Letters that are compared to find out what an output only gives back."""
FIELD_ECHO_CHARS_MIN: Final = 4
"""A shorter argument says nothing by standing within a value."""
SANITISED_CHARS_MAX: Final = 256
"""What is longer passes no sanitiser."""
SANITISER_WORDS_MAX: Final = 64
DERIVE_VALUES_MAX: Final = 1_000
"""That one call of `derive` takes, the fields of its records counted singly."""
DERIVE_DIGITS_MAX: Final = 60
"""Of a number that goes in or comes out."""
DERIVE_TEXT_CHARS_MAX: Final = 16 * KIB
"""Of a text that comes out."""
EPISODES_LOOKED_AT_MAX: Final = 8_000
"""In one recall, where much of what fits is quarantined."""
SOURCE_CHARS_MAX: Final = 1_024
"""Of the name of a source."""
QUARANTINE_RUNS_MAX: Final = 10_000
"""That one source is found in."""
QUARANTINE_ITEMS_MAX: Final = 50_000
"""Things that may come of one source, told one by one; of those beyond, how many they are."""
QUARANTINES_MAX: Final = 1_000
QUARANTINE_PASSES_MAX: Final = 5
"""Looks for runs that got it while others were being stopped."""
LABELS_DEPTH_MAX: Final = 32
"""How far back the way of a value is told."""
LABELS_NODES_MAX: Final = 5_000
"""Places on that way, in all."""

# Scanners of content (guardrails/scanners).
SCAN_CHARS_MAX: Final = 1 * MIB
"""Of one text and all that is decoded from it, together."""
SCAN_DEPTH_MAX: Final = 2
"""Encodings within each other that are undone."""
SCAN_VIEWS_MAX: Final = 96
SCAN_FINDINGS_MAX: Final = 256
"""Of one text; what has more is not scanned to its end."""
SCAN_SHOWN_CHARS_MAX: Final = 80
"""Of what a finding shows."""
SCAN_FOLDS_KNOWN_MAX: Final = 4_096
"""Characters of which it is kept what they look like."""
SECRET_RUN_CHARS_MAX: Final = 4 * KIB
"""The longest secret without a space in it that is found by its form."""
SECRET_VALUE_CHARS_MAX: Final = 512
"""Of what stands after `password =`."""
PRIVATE_KEY_CHARS_MAX: Final = 8 * KIB
"""As text, with its first and last line."""
LINK_CHARS_MAX: Final = 4 * KIB
LINK_BEFORE_CHARS_MAX: Final = 600
"""So far back it is looked whether a link is that of an image."""
PROFANE_WORD_CHARS_MAX: Final = 64
CLASSIFIER_CHARS_MAX: Final = 16 * KIB
"""What a classifier is given at once."""
SPOTLIGHT_MARKER_CHARS_MIN: Final = 16

# Scanners in the gate (kernel/steps/scanning.py).
SCAN_LEAVING_CHARS_MAX: Final = 256 * KIB
"""Of what one call sends, and as many again of what is decoded from it."""
SCAN_ARRIVING_CHARS_MAX: Final = 32_000
"""Of what one call brings, with what is decoded from it."""
SCAN_TEXT_CHARS_MIN: Final = 8
"""A shorter text of plain signs is not looked at: nothing that is looked for is so short."""
SCAN_AT_ONCE_CHARS_MAX: Final = 16 * KIB
"""What is longer is scanned in a thread."""
SCAN_KEPT_MAX: Final = 32
"""Findings of one call that are kept: the worst."""
SCAN_RISKS_MAX: Final = 16
"""That whoever is asked is told of what the run has read."""
SCAN_PATH_CHARS_MAX: Final = 200
SCAN_NAME_CHARS_MAX: Final = 64
"""Of one field on the way to a finding."""

# --- flows: what the user's words choose (guardrails/) --------------------------------------------
FLOW_WORDS_CHARS_MAX: Final = 8 * KIB
"""Of what a run's user typed; what is longer is taken for a document, and chooses nothing."""
FLOW_NAME_CHARS_MAX: Final = 256
"""Of the name of a tool, an argument or a field."""
FLOW_NAMING_CHARS_MAX: Final = 200
"""A longer value of a record is no name of it."""
FLOW_PARTLY_WORDS_MAX: Final = 8
"""Of a name of which a part is enough."""
FLOW_LEAVES_MAX: Final = 50_000
"""Of all records that a run has seen; with more, no record is chosen by the user's words."""
FLOW_STEPS_MAX: Final = 500_000
"""Words that are compared with the user's, over all that a run sees; with more, likewise."""
FLOW_CANDIDATES_MAX: Final = 64
"""Records that are looked at for one value."""
FLOW_FIELDS_MAX: Final = 256
"""Of a record that a superlative may select; one that has more is selected by none."""
FLOW_OPERANDS_MAX: Final = 24
"""Numbers that an amount is computed from anew."""
FLOW_URLS_MAX: Final = 64
"""In the content of one call; with more, not all are looked at, and it is asked."""
FLOW_CONTENT_CHARS_MAX: Final = 256 * KIB
"""Of what one call sends; what is longer is not looked through, and it is asked."""
FLOW_REACHED_MAX: Final = 4_096
"""Recipients, and things removed, that are counted of one run."""
FLOW_UNNAMED_MAX: Final = 64
"""Ways into one argument that no manifest names; with more, it is judged as a whole,"""
FLOW_UNNAMED_STEPS_MAX: Final = 100_000
"""likewise where all of these, each over all that it holds, would be more."""
ORIGINS_BESIDE_MAX: Final = 32
"""Of arguments that choose nothing, in what is shown of one ask."""

# --- manifests that are inferred (tools/inferring/) -----------------------------------------------
INFER_DESCRIPTION_CHARS_MAX: Final = 4_000
"""Of a tool's description: its verbs are looked for in so much of it."""
INFER_ARGUMENTS_MAX: Final = 256
"""Of one tool, with those inside of objects and lists."""
INFERRED_KEPT_MAX: Final = 256
"""Tools of agents, with what was inferred of them: a program offers the same in each question."""
INFERRED_KEPT_SIZE_BYTES_MAX: Final = 16 * KIB
"""Of such a tool's schema; what is larger is worked out anew each time."""
INFER_DEPTH_MAX: Final = 4
"""Levels of objects, and references in a row."""

# --- the MCP door on standard streams (sdk/mcp.py) -----------------------------------------------
MCP_SHIM_END_S: Final = 1
"""For the answers that are under way when its client closes its input: clients wait two, and then
use a signal."""

# --- what a tool's code returns (tools/returned.py, tools/functions.py) ---------------------------
RESULT_VALUES_MAX: Final = 1_000_000
"""In one result, however small they are; each takes at least a byte of a result's size."""
TOOL_ERROR_CHARS_MAX: Final = 2_000
"""Of each part of what a function says of its failure."""

# --- proof of the journal (observability/proof/, kernel/anchoring.py) ----------------------------
NOTE_SIZE_BYTES_MAX: Final = 64 * KIB
"""Of a signed note; larger ones are not read."""
NOTE_NAME_CHARS_MAX: Final = 256
NOTE_SIGNATURES_MAX: Final = 32
"""Of one note: C2SP asks for 16 at least."""
SIGNER_STATE_SIZE_BYTES_MAX: Final = 64 * KIB
SIGNER_LEAVES_MAX: Final = 8_192
"""In one message to the signer."""
SIGNER_MESSAGE_SIZE_BYTES_MAX: Final = MIB
SIGNER_ANSWER_S_MAX: Final = 10
CHECKPOINT_LOOK_S: Final = 0.1
CHECKPOINT_EVENTS: Final = 256
"""New ones make a checkpoint at once,"""
CHECKPOINT_S: Final = 1
"""and fewer after so long."""
CHECKPOINT_FILE_SIZE_BYTES_MAX: Final = 64 * MIB
"""Of a file of checkpoints; one that is full is moved aside, and never thrown away."""
LOG_LINE_SIZE_BYTES_MAX: Final = 64 * MIB
"""One event of a log that is checked away from its kernel."""
CHECKPOINT_PLACES_MAX: Final = 8
CHECKPOINT_BACK_S_MAX: Final = 300
"""Between two tries of a place that does not take one."""
WITNESS_SIGNATURES_MAX: Final = 16

# --- replay (kernel/replaying/, kernel/life/forking.py) -------------------------------------------
REPLAY_REST_S_MAX: Final = 10
"""For the rest of its record, once a run that was stopped asks for what comes after it."""
CASSETTE_SIZE_BYTES_MAX: Final = 256 * MIB
"""Of one file; it is read into memory whole, and nothing in it is compressed."""
CASSETTE_SEAL_SIZE_BYTES_MAX: Final = 1 * KIB
"""More, for what ends it."""
CASSETTE_HEAD_SIZE_BYTES_MAX: Final = 16 * MIB
CASSETTE_FRAMES_MAX: Final = 2_000_000
CASSETTE_RUNS_MAX: Final = 1_000
"""A run and all beneath it."""
CASSETTE_KEYS_TRIED_MAX: Final = 4
"""On one value of a file: of the runs that name it."""
CASSETTE_MEMORY_BYTES_MAX: Final = 16 * 1024 * MIB
"""Of the sandbox of a recording, which may be a stranger's; its files, too."""
CASSETTE_PROCESSES_MAX: Final = 4_096
STREAM_PIECES_SIZE_BYTES_MAX: Final = 4 * MIB
"""Of what is kept of how one answer went out; of a longer one it is not."""
FORK_EDITS_MAX: Final = 64
"""Of one fork: its task, and results of calls."""
BISECT_REVISIONS_MAX: Final = 100_000
BISECT_GIT_S_MAX: Final = 60
"""For each command of git."""
BISECT_TREE_SIZE_BYTES_MAX: Final = 512 * MIB
"""Of what one revision holds."""

# --- telemetry (observability/telemetry/, kernel/telemetry/, gateway/metrics.py) ------------------
SPAN_TEXT_CHARS_MAX: Final = 16 * KIB
"""Of one attribute of a span."""
SPAN_REASON_CHARS_MAX: Final = 1_000
SPAN_LIST_MAX: Final = 32
"""Values of one attribute: rules, findings."""
SPAN_EVENTS_MAX: Final = 32
"""Moments within one span."""
OTLP_BATCH_SPANS_MAX: Final = 256
OTLP_BATCH_SIZE_BYTES_MAX: Final = 384 * KIB
"""Of one request; below what egress lets out in one."""
OTLP_PAGE_ENTRIES_MAX: Final = 500
"""Entries of the journal that are looked at before what comes of them is sent: nothing more is
held, however slow the receiver is."""
OTLP_POLL_S: Final = 2
"""How often the journal is looked at for something new."""
OTLP_TRIES_MAX: Final = 4
"""Of an export that somebody asked for and waits for."""
OTLP_BACK_S_FIRST: Final = 1
OTLP_BACK_S_MAX: Final = 60
OTLP_ANSWER_S_MAX: Final = 30
"""Of one request over gRPC; over HTTP it is that of egress."""
OTLP_ANSWER_SIZE_BYTES_MAX: Final = 64 * KIB
OTLP_HEADERS_MAX: Final = 16
OTLP_RUNS_MAX: Final = 1_000
"""Runs of one export, with all beneath them."""
OTLP_KEPT_RUNS_MAX: Final = 256
"""Runs whose rows the projection keeps at hand."""
LOGS_PAGE_ENTRIES: Final = 500
LOGS_LAST_MAX: Final = 100_000
WATERFALL_ROWS_MAX: Final = 400
"""Runs and calls that are drawn."""
REPORT_CALLS_MAX: Final = 5_000
REPORT_VALUE_CHARS_MAX: Final = 4_000
"""Of one value in a report."""
METRICS_CONNECTIONS_MAX: Final = 16
METRICS_IDLE_S_MAX: Final = 30
METRICS_LABEL_VALUES_MAX: Final = 50
"""Different values of one label of ours (agents, models, tools); more are `other`."""
METRICS_ENTRIES_PER_SCRAPE_MAX: Final = 20_000
"""Of the journal, which are counted before a scrape is answered; the next one goes on."""
METRICS_PAGE_ENTRIES: Final = 500
METRICS_RUNS_LOOKED_AT_MAX: Final = 500
"""Runs that go on, whose budgets are looked at."""
METRICS_LABEL_CHARS_MAX: Final = 100
METRICS_TOKEN_CHARS_MIN: Final = 16

# Watching: the log is held against what was signed, in a daemon.
WATCH_FIRST_S: Final = 60
"""After its start: who starts and stops one has other worries."""
WATCH_EVERY_S: Final = 3_600
WATCH_NICE: Final = 10

# What is remembered (store): records, and what lies beside them.
RECORD_CHARS_MAX: Final = 32 * KIB
"""Of the text of one record."""
RECORD_FIELD_CHARS_MAX: Final = 400
"""Of whatever else a record says of itself: its role, key, session, subject, document …"""
RECORD_TIME_US_MIN: Final = -62_135_596_800 * 1_000_000
RECORD_TIME_US_MAX: Final = 253_402_300_799 * 1_000_000
"""Of whatever time a record tells of: the years 1 to 9999, which everybody can write as a date."""
RECORD_ROLE_SHOWN_CHARS: Final = 60
"""Of who spoke, in the head of a quoted record."""
RECORD_PARENTS_MAX: Final = 512
"""Records that one is said to be made of."""
RECORD_SEEN_MAX: Final = 200
"""Of what a run had recalled before it wrote a record: so many are shown with it."""
RECORDS_PER_EVENT_MAX: Final = 1_000
"""Written by one event, or forgotten."""
RECORDS_PAGE_MAX: Final = 1_000
"""Handed out at once."""
RECORDS_LOADED_AT_ONCE: Final = 2_000
"""Of a scope's index, or vectors dropped: what else is to be done has its turn after it."""
BUSY_TIMEOUT_MS: Final = 5_000
"""For how long SQLite waits for another program that holds the journal."""
WIPED_PAGES_AT_ONCE: Final = 16_384
"""Of the file that are looked through for what was forgotten, before another write's turn."""

# Memory for agents that know nothing of it (kernel/agent/config_memory.py, gateway).
DOOR_WINDOW_TOKENS_MIN: Final = 1_000
DOOR_WINDOW_TOKENS_MAX: Final = 10_000_000
"""Of a conversation at a model door, by our estimate."""
WINDOW_BLOCK_SHARE: Final = 4
"""What stands in the place of older turns takes at most one part in so many of the window."""
WINDOW_CUT_SHARE: Final = 2
"""Once a conversation is over its window, its newest turns keep one part in so many: it is cut
seldom, and what stands before stays the same for a while."""
WINDOW_MEDIA_TOKENS: Final = 1_600
"""Of an image, a sound or a file in a conversation, whatever its bytes."""
WINDOW_QUOTING_CHARS: Final = 600
"""What it takes to say that a text is quoted, and its marks."""
RECALLED_CHARS_MAX: Final = 12_000
"""Of the records together that are quoted into one question."""
FAILURES_RECALLED_MAX: Final = 20
"""Of one fingerprint: so many are counted; behind that it says "or more"."""
FAILURE_QUOTED_CHARS_MAX: Final = 400
FAILURE_ARGS_CHARS_MAX: Final = 2_000
CONSOLIDATE_CALLS: Final = 10_000
CONSOLIDATE_WALL_S: Final = 6 * 3_600
CONSOLIDATE_COMPARED_MAX: Final = 50_000
"""Records of a scope, the newest, of which is found out which say the same."""
CONSOLIDATE_MERGED_AT_ONCE: Final = 200
CONSOLIDATE_PAGE_RECORDS: Final = 40
CONSOLIDATE_PAGE_CHARS: Final = 24_000
CONSOLIDATE_TEXT_CHARS: Final = 4_000
"""Of one record, as a model reads it."""
CONSOLIDATE_FACTS_PER_PAGE_MAX: Final = 40
CONSOLIDATE_ANSWER_TOKENS: Final = 4_000
SCOPES_KEPT_MAX: Final = 10_000
"""Of which a kernel knows by heart how far they are consolidated."""
CONSOLIDATE_RECORDS_MIN: Final = 5
CONSOLIDATE_RECORDS_MAX: Final = 100_000
"""New ones, after which a scope is consolidated."""

# Memory by calls and by operators (kernel/memory/).
MEMORY_SUBJECT_CHARS_MAX: Final = 200
"""Of a fact's subject, and of its predicate."""
MEMORY_SOURCES_MAX: Final = 64
"""Records that one fact names as what it came of."""
MEMORY_IDS_PER_CALL_MAX: Final = 50
MEMORY_KEY_CHARS_MAX: Final = 200
MEMORY_WHY_CHARS_MAX: Final = 500
EXPLAINED_RECORDS_MAX: Final = 200
"""Of what a record came of, and of what came of it."""
FACTS_OF_A_SLOT_MAX: Final = 50
"""Facts of one subject and predicate that are looked at, to tell whether they are disputed."""
DIRECTIVES_MAX: Final = 100
"""That stand for one agent and principal: each is in every question."""
DIRECTIVE_CHARS_MAX: Final = 2_000
FORGOTTEN_AT_ONCE_MAX: Final = 100_000
"""Records of one receipt, with all that was made of them."""
FORGET_PLAN_SHOWN_MAX: Final = 200
RESTORED_FACTS_MAX: Final = 10_000
"""Of a scope, that what is quarantined had superseded."""
EXCHANGE_SIZE_BYTES_MAX: Final = 256 * MIB
EXCHANGE_RECORDS_MAX: Final = 200_000
EXCHANGE_LINE_BYTES_MAX: Final = 256 * KIB
EXCHANGE_PAGE_RECORDS: Final = 200
"""Records that are handed to the kernel at once."""
EXCHANGE_PAGE_BYTES_MAX: Final = 1 * MIB
EXCHANGE_DEPTH_MAX: Final = 64
"""Of lists and objects in each other, in a file that is imported."""
MEMORY_LISTED_MAX: Final = 1_000

# Recall (store/terms.py, memory/index/, memory/recall.py).
TERMS_TEXT_CHARS_MAX: Final = 64 * KIB
"""Of one text: its words behind that aren't indexed."""
EMBEDDED_PREVIOUS_CHARS: Final = 300
"""Of what was said before it, in the text that is embedded of a record."""
EMBEDDED_ALONE_CHARS: Final = 800
"""A text that is longer is embedded without what was said before it."""
QUERY_DATES_MAX: Final = 8
SCOPE_INDEXES_SIZE_BYTES_MAX: Final = 768 * MIB
"""Of the indexes of all scopes in memory; who wasn't asked for longest goes first, and is made
again from the store."""
SCOPE_INDEX_THREAD_RECORDS_MIN: Final = 4_000
"""A scope of so many is searched off the loop."""
RECALL_CANDIDATES: Final = 100
"""Of the fusion, which the ranker puts in order."""
RECALL_LOOKED_AT_MAX: Final = 3_200
"""Where what is proposed is gone meanwhile."""

# Documents (memory/documents, kernel/memory/ingesting.py).
DOCUMENT_SIZE_BYTES_MAX: Final = 16 * MIB
"""Of one file."""
DOCUMENT_PIECE_SIZE_BYTES: Final = 512 * KIB
"""A file comes to the kernel in pieces: each is a request, in Base64."""
DOCUMENT_UPLOADS_MAX: Final = 4
"""Files of which some pieces have come; the one that has waited longest makes room."""
DOCUMENT_NAME_CHARS_MAX: Final = 200
DOCUMENT_PARSE_S_MAX: Final = 60
DOCUMENT_CPU_S_MAX: Final = 40
DOCUMENT_MEMORY_BYTES: Final = 768 * MIB
DOCUMENT_TMP_BYTES: Final = 1 * MIB
"""Its parser writes no file."""
DOCUMENT_PROCESSES_MAX: Final = 4
DOCUMENT_OUTPUT_SIZE_BYTES_MAX: Final = 48 * MIB
"""All that a parser says of one file."""
DOCUMENT_BLOCK_CHARS_MAX: Final = 32 * KIB
"""Of what a parser says at once; what is longer goes out in parts."""
DOCUMENT_BLOCKS_MAX: Final = 200_000
DOCUMENT_PASSAGES_MAX: Final = 20_000
DOCUMENT_RECORDS_AT_ONCE: Final = 200
"""Passages of one transaction: other writes get their turn between two."""
DOCUMENT_HEADING_CHARS_MAX: Final = 120
DOCUMENT_HEADINGS_MAX: Final = 6
"""Levels that are kept."""
DOCUMENT_TITLE_CHARS_MAX: Final = 200
"""A longer line is no heading, whatever stands beneath it."""
DOCUMENT_PAGES_MAX: Final = 5_000
DOCUMENT_OUTLINE_MAX: Final = 5_000
"""Entries of a PDF's outline that are read."""
DOCUMENT_COLUMNS_MAX: Final = 1_000
DOCUMENT_UNPACKED_SIZE_BYTES_MAX: Final = 64 * MIB
"""Of what is compressed in a file."""
DOCUMENTS_SKIPPED_SHOWN_MAX: Final = 10
DOCUMENT_FAULT_CHARS_MAX: Final = 400
"""Of a parser's own words, which are as hostile as the file."""
DOCUMENT_FILES_MAX: Final = 10_000
"""Of one command."""
PASSAGE_SIZE_BYTES_TARGET: Final = 1_200
"""In UTF-8, where about four bytes are a token in every script: some 300 of them."""
PASSAGE_SIZE_BYTES_MAX: Final = 1_600
PASSAGE_OVERLAP_BYTES: Final = 200
"""Of a paragraph that had to be cut: said again in its next part."""

# Vectors of texts (memory/embedding, kernel/memory/embedders.py, kernel/memory/indexing.py).
EMBEDDING_TEXT_CHARS_MAX: Final = 2_000
"""Of a text: what is behind them has no part in its vector (nor have more than 256 tokens)."""
EMBEDDING_BATCH_TEXTS_MAX: Final = 16
EMBEDDING_BATCH_CHARS_MAX: Final = 4_000
"""Asked at once, unless one text alone has more: a query waits behind them at most."""
EMBEDDING_JOBS_MAX: Final = 10_000
"""Batches that wait."""
EMBEDDING_TIMEOUT_S: Final = 30
EMBEDDING_ERROR_CHARS_MAX: Final = 300
EMBEDDER_START_S: Final = 60
"""With the first batch, on a machine at work."""
EMBEDDER_IDLE_S: Final = 300
"""Then its process ends, until it is asked again."""
EMBEDDER_FAILURES_MAX: Final = 3
"""In a row; then it rests."""
EMBEDDER_REST_S: Final = 60
EMBEDDER_MEMORY_BYTES: Final = 1024 * MIB
EMBEDDER_THREADS_MAX: Final = 64
"""Of its process: the libraries make some a core, whatever they are told."""
INDEXING_PAGE_RECORDS: Final = 64
"""Between two looks at what else is to be done."""
INDEXING_VECTORS_AFTER_S: Final = 5
"""After its start a kernel makes vectors of less than such a page: many do their work in less, and
need no process for it."""
INDEXING_WAIT_S: Final = 2
"""After which it looks by itself whether there is something new."""
INDEXING_SHARE: Final = 2
"""Of its time, one part in so many is work: the rest is everybody else's."""
INDEXING_REST_S_MAX: Final = 1
INDEXING_COUNT_PAGES: Final = 50
"""After which it is counted whether a new model has as many vectors as the one before."""
VECTORS_LOADED_AT_ONCE: Final = 4_096
"""From the store into a vector store."""
VECTOR_SCOPES_OPEN_MAX: Final = 64
"""Of a vector store on disk."""

# The window of a model (`memory/`): working set, ledgers, assembly, compaction.
WORKING_LINE_CHARS_MAX: Final = 400
"""Of a step, a constraint or a question."""
PLAN_STEPS_MAX: Final = 128
WORKING_ITEMS_MAX: Final = 32
"""Constraints; questions. Half of them may come of what nobody vouches for, half of the rest."""
LEDGER_LINES_MAX: Final = 48
"""The newest, shown one by one; what is older is counted."""
LEDGER_ARGS_CHARS_MAX: Final = 160
LEDGER_FINGERPRINT_CHARS: Final = 4
MESSAGE_OVERHEAD_TOKENS: Final = 8
"""What a message takes beside its text."""
ASSEMBLY_BUDGET_TOKENS_MIN: Final = 128
ASSEMBLY_BUDGET_TOKENS_MAX: Final = 4_000_000
ASSEMBLY_CANDIDATES_MAX: Final = 256
"""Records that compete for the window."""
ASSEMBLY_TURNS_MAX: Final = 10_000
"""Of a caller's conversation, counted in one assembly."""
ASSEMBLY_DIRECTIVES_MAX: Final = 200
"""Loaded into one window, the newest."""
MANIFEST_ENTRIES_MAX: Final = 1_000
"""Of one assembly, told one by one."""
SUMMARY_CHARS_MAX: Final = 16_000
"""Of what a model says for the turns that leave its window."""
EXTRACT_CHARS_MAX: Final = 3_000
"""Of what the kernel takes from those turns where no model sums them up."""
EXTRACT_LINE_CHARS_MAX: Final = 200
COMPACTIONS_READING_MAX: Final = 8
"""In a row, with no effect and no step done between, while something new was read each time."""
COMPACTION_TURNS_MAX: Final = 400
"""Turns that a summary is made of, the newest."""
WINDOW_TURN_MS: Final = 2
"""Between two looks at whether the change of a window before this one is on record."""
RUNS_LIVE_WINDOWS_MAX: Final = 4_096
"""Runs of which the kernel knows which change of the window came last."""
RECALL_NEAR_RECORDS: Final = 1_000
"""Asked of a vector store on disk, for one query."""
LANCE_INDEX_ROWS: Final = 200_000
"""Of one owner, from which on a search on disk is approximate: below, looking at all is quick."""
LANCE_PROBES: Final = 40
"""Of an index's parts that a search looks at."""
LANCE_TIDY_PUTS: Final = 64
"""After which the small files that they left become one."""
WINDOW_TOKENS_MIN: Final = 512
"""Of the window that `ctx.loop` keeps."""
WINDOW_KEPT_PERCENT: Final = 60
"""Of it, what is filled when older turns leave it: the rest is for the turns to come."""
SUMMARY_TOKENS_MAX: Final = 1_024
"""Of the answer of a model that is asked to sum up."""

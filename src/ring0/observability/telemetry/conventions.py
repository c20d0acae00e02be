"""The names that spans have: OpenTelemetry's GenAI conventions, and our own under `ring0.`.

All of theirs are of the status "Development", and the constants in the Python package are marked as
moved: so they are a table of ours, with the version that it was made from. Not here: when each is
set (projecting.py).
"""

from __future__ import annotations

from typing import Final

VERSION: Final = "semantic-conventions-genai v0.1.0"
"""https://github.com/open-telemetry/semantic-conventions-genai"""

OPERATION: Final = "gen_ai.operation.name"
CHAT, EMBEDDINGS = "chat", "embeddings"
INVOKE_AGENT, EXECUTE_TOOL = "invoke_agent", "execute_tool"
UPSERT_MEMORY, SEARCH_MEMORY = "upsert_memory", "search_memory"
UPDATE_MEMORY, DELETE_MEMORY = "update_memory", "delete_memory"

PROVIDER: Final = "gen_ai.provider.name"
AGENT_NAME: Final = "gen_ai.agent.name"
AGENT_VERSION: Final = "gen_ai.agent.version"
CONVERSATION: Final = "gen_ai.conversation.id"
REQUEST_MODEL: Final = "gen_ai.request.model"
RESPONSE_MODEL: Final = "gen_ai.response.model"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
TOOL_NAME: Final = "gen_ai.tool.name"
TOOL_CALL: Final = "gen_ai.tool.call.id"
TOOL_TYPE: Final = "gen_ai.tool.type"
ERROR_TYPE: Final = "error.type"

INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS: Final = (
    "gen_ai.usage.cache_write.input_tokens",
    "gen_ai.usage.cache_creation.input_tokens",  # As it was called before.
)
REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"

# What people and models wrote: only where the operator says `content = true`.
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
TOOL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
TOOL_RESULT: Final = "gen_ai.tool.call.result"

MCP_METHOD: Final = "mcp.method.name"
NETWORK_TRANSPORT: Final = "network.transport"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"

PROVIDERS: Final = {
    "openai": "openai",
    "openai-responses": "openai",
    "anthropic": "anthropic",
    "gemini": "gcp.gemini",
}
"""Our names of providers to theirs; of those that are not here theirs has none, so ours is said."""
FINISHED: Final = {"end": "stop", "length": "length", "tools": "tool_calls", "stop": "stop",
                   "filter": "content_filter"}  # fmt: skip
"""Why an answer ended, in their words."""

RUN: Final = "ring0.run.id"
RUN_STATE: Final = "ring0.run.state"
RUN_MODE: Final = "ring0.run.mode"
TENANT: Final = "ring0.tenant"
CALL: Final = "ring0.call.id"
CALL_KIND: Final = "ring0.call.kind"
CALL_STATE: Final = "ring0.call.state"
SEQ: Final = "ring0.seq"
EFFECT: Final = "ring0.effect"
VERDICT: Final = "ring0.policy.verdict"
RULES: Final = "ring0.policy.rules"
REASONS: Final = "ring0.policy.reasons"
"""In words, which may quote what an agent wrote: with `content` only."""
POLICY: Final = "ring0.policy.digest"
APPROVAL: Final = "ring0.approval.id"
APPROVAL_STATE: Final = "ring0.approval.state"
INTEGRITY: Final = "ring0.label.integrity"
CONFIDENTIALITY: Final = "ring0.label.confidentiality"
FINDINGS: Final = "ring0.findings"
COST: Final = "ring0.cost_microusd"
TOKENS: Final = "ring0.tokens"
CALLS: Final = "ring0.calls"
UNDOES: Final = "ring0.undoes"
ESTIMATED: Final = "ring0.tokens.estimated"
ERASED: Final = "ring0.payload.erased"
SETTLED: Final = "ring0.settled.happened"

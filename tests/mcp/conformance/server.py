"""The server that the conformance suite asks for, in the library's words, over standard streams.

It is the upstream of `make conformance`: the suite meets it through ring0, never directly. What a
client has to give it asks for by `input_required`; it speaks the stateless era.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ResourceUpdated
from mcp.shared.exceptions import MCPError

IMAGE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8Dw"
    "HwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
)
AUDIO = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="
NOTHING: dict[str, Any] = {"type": "object", "properties": {}}

Context = ServerRequestContext[Any, Any]
Params = types.CallToolRequestParams
Tool = Callable[[Context, Params], Awaitable[dict[str, Any]]]
BUS = InMemorySubscriptionBus()
TOOLS: dict[str, tuple[dict[str, Any], Tool]] = {}


def tool(name: str, schema: dict[str, Any] = NOTHING) -> Callable[[Tool], Tool]:
    def kept(function: Tool) -> Tool:
        TOOLS[name] = schema, function
        return function

    return kept


def takes(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def embedded(uri: str, mime: str, words: str) -> dict[str, Any]:
    return {"type": "resource", "resource": {"uri": uri, "mimeType": mime, "text": words}}


def said(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"content": list(parts)}


# --- what is asked of a client ----------------------------------------------------------------


def form(message: str, **properties: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {
        "method": "elicitation/create",
        "params": {"mode": "form", "message": message, "requestedSchema": schema},
    }


def sample(words: str, tokens: int = 100) -> dict[str, Any]:
    return {
        "method": "sampling/createMessage",
        "params": {"messages": [{"role": "user", "content": text(words)}], "maxTokens": tokens},
    }


ROOTS: dict[str, Any] = {"method": "roots/list", "params": {}}


def wants(state: str = "", **requests: Any) -> dict[str, Any]:
    result = {"resultType": "input_required", "inputRequests": requests}
    return {**result, "requestState": state} if state else result


def given(params: Any) -> dict[str, Any]:
    """What the client gave, as JSON."""
    found = params.input_responses or {}
    return {key: value.model_dump(by_alias=True, exclude_none=True) for key, value in found.items()}


def accepted(params: Any, key: str) -> Any:
    one = given(params).get(key)
    return one.get("content") if isinstance(one, dict) and one.get("action") == "accept" else None


def can(context: Context, power: str) -> bool:
    meta = context.meta or {}
    return power in (meta.get("io.modelcontextprotocol/clientCapabilities") or {})


# --- tools ------------------------------------------------------------------------------------


@tool("test_simple_text")
async def simple_text(context: Context, params: Params) -> dict[str, Any]:
    return said(text("This is a simple text response for testing."))


@tool("test_image_content")
async def image(context: Context, params: Params) -> dict[str, Any]:
    return said({"type": "image", "data": IMAGE, "mimeType": "image/png"})


@tool("test_audio_content")
async def audio(context: Context, params: Params) -> dict[str, Any]:
    return said({"type": "audio", "data": AUDIO, "mimeType": "audio/wav"})


@tool("test_embedded_resource")
async def resource(context: Context, params: Params) -> dict[str, Any]:
    words = "This is an embedded resource content."
    return said(embedded("test://embedded-resource", "text/plain", words))


@tool("test_multiple_content_types")
async def mixed(context: Context, params: Params) -> dict[str, Any]:
    return said(
        text("Multiple content types test:"),
        {"type": "image", "data": IMAGE, "mimeType": "image/png"},
        embedded(
            "test://mixed-content-resource", "application/json", '{"test":"data","value":123}'
        ),
    )


@tool("test_tool_with_logging")
async def with_logging(context: Context, params: Params) -> dict[str, Any]:
    for words in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await context.session.send_log_message("info", words)
        await asyncio.sleep(0.05)
    return said(text("Tool with logging executed successfully"))


@tool("test_logging_tool")
async def logging_tool(context: Context, params: Params) -> dict[str, Any]:
    return await with_logging(context, params)


@tool("test_tool_with_progress")
async def with_progress(context: Context, params: Params) -> dict[str, Any]:
    for progress in (0, 50, 100):
        await context.session.report_progress(progress, 100, f"Completed step {progress} of 100")
        await asyncio.sleep(0.05)
    return said(text("Tool with progress executed successfully"))


@tool("test_error_handling")
async def failing(context: Context, params: Params) -> dict[str, Any]:
    words = "This tool intentionally returns an error for testing"
    return {**said(text(words)), "isError": True}


@tool("test_sampling", takes(prompt={"type": "string"}))
async def sampling(context: Context, params: Params) -> dict[str, Any]:
    answer = given(params).get("sample")
    if answer is None:
        return wants(sample=sample(str((params.arguments or {})["prompt"])))
    return said(text(f"LLM response: {answer['content'].get('text', '')}"))


async def elicited(params: Params, request: dict[str, Any], start: str) -> dict[str, Any]:
    answer = given(params).get("form")
    if answer is None:
        return wants(form=request)
    content = json.dumps(answer.get("content") or {})
    return said(text(f"{start}: action={answer['action']}, content={content}"))


@tool("test_elicitation", takes(message={"type": "string"}))
async def elicitation(context: Context, params: Params) -> dict[str, Any]:
    request = form(
        str((params.arguments or {})["message"]),
        username={"type": "string", "description": "User's response"},
        email={"type": "string", "description": "User's email address"},
    )
    return await elicited(params, request, "User response")


@tool("test_elicitation_sep1034_defaults")
async def defaults(context: Context, params: Params) -> dict[str, Any]:
    request = form(
        "Please provide user information",
        name={"type": "string", "default": "John Doe"},
        age={"type": "integer", "default": 30},
        score={"type": "number", "default": 95.5},
        status={
            "type": "string",
            "enum": ["active", "inactive", "pending"],
            "default": "active",
        },
        verified={"type": "boolean", "default": True},
    )
    return await elicited(params, request, "Elicitation completed")


@tool("test_elicitation_sep1330_enums")
async def enums(context: Context, params: Params) -> dict[str, Any]:
    three = ["option1", "option2", "option3"]
    titled = [
        {"const": f"value{number}", "title": f"{word} Option"}
        for number, word in enumerate(("First", "Second", "Third"), 1)
    ]
    request = form(
        "Please select values",
        untitledSingle={"type": "string", "enum": three},
        titledSingle={"type": "string", "oneOf": titled},
        legacyEnum={
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"],
        },
        untitledMulti={"type": "array", "items": {"type": "string", "enum": three}},
        titledMulti={"type": "array", "items": {"anyOf": titled}},
    )
    return await elicited(params, request, "Elicitation completed")


@tool(
    "json_schema_2020_12_tool",
    {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {
                "$anchor": "addressDef",
                "type": "object",
                "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
            }
        },
        "properties": {
            "name": {"type": "string"},
            "address": {"$ref": "#/$defs/address"},
            "contactMethod": {"type": "string", "enum": ["phone", "email"]},
            "phone": {"type": "string"},
            "email": {"type": "string"},
        },
        "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
        "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
        "then": {"required": ["phone"]},
        "else": {"required": ["email"]},
        "additionalProperties": False,
    },
)
async def schema(context: Context, params: Params) -> dict[str, Any]:
    return said(text(json.dumps(params.arguments or {})))


@tool("touch_resource")
async def touch(context: Context, params: Params) -> dict[str, Any]:
    """No scenario's: a resource changes."""
    for name in ("watched-resource", "static-text"):
        await BUS.publish(ResourceUpdated(uri=f"test://{name}"))
    return said(text("touched"))


@tool("test_missing_capability")
async def missing(context: Context, params: Params) -> dict[str, Any]:
    if not can(context, "sampling"):
        data = {"requiredCapabilities": {"sampling": {}}}
        raise MCPError(-32021, "Missing required client capability", data)
    return said(text("The client can sample."))


@tool("test_streaming_elicitation")
async def streaming(context: Context, params: Params) -> dict[str, Any]:
    if accepted(params, "form") is None:
        return wants(form=form("Go on?", ok={"type": "boolean"}))
    return said(text("It goes on."))


# --- rounds -----------------------------------------------------------------------------------

NAME = form("What is your name?", name={"type": "string"})
CONFIRM = form("Please confirm", ok={"type": "boolean"})
COLOR = form("Step 2: What is your favorite color?", color={"type": "string"})


@tool("test_input_required_result_elicitation")
async def asks_name(context: Context, params: Params) -> dict[str, Any]:
    content = accepted(params, "user_name")
    if not content:
        return wants(user_name=NAME)
    return said(text(f"Hello, {content.get('name')}!"))


@tool("test_input_required_result_sampling")
async def asks_capital(context: Context, params: Params) -> dict[str, Any]:
    answer = given(params).get("capital_question")
    if answer is None:
        return wants(capital_question=sample("What is the capital of France?"))
    return said(text(str(answer["content"].get("text"))))


@tool("test_input_required_result_list_roots")
async def asks_roots(context: Context, params: Params) -> dict[str, Any]:
    answer = given(params).get("client_roots")
    if answer is None:
        return wants(client_roots=ROOTS)
    return said(text(", ".join(str(root["uri"]) for root in answer["roots"])))


@tool("test_input_required_result_request_state")
async def keeps_state(context: Context, params: Params) -> dict[str, Any]:
    if params.request_state != "state-1" or accepted(params, "confirm") is None:
        return wants("state-1", confirm=CONFIRM)
    return said(text("state-ok"))


@tool("test_input_required_result_tampered_state")
async def guards_state(context: Context, params: Params) -> dict[str, Any]:
    return await keeps_state(context, params)


@tool("test_input_required_result_multiple_inputs")
async def asks_much(context: Context, params: Params) -> dict[str, Any]:
    keys = {"user_name", "greeting", "client_roots"}
    if params.request_state != "many" or keys - given(params).keys():
        greeting = sample("Generate a greeting", 50)
        return wants("many", user_name=NAME, greeting=greeting, client_roots=ROOTS)
    return said(text("All of it is there."))


@tool("test_input_required_result_multi_round")
async def asks_twice(context: Context, params: Params) -> dict[str, Any]:
    if params.request_state == "round-1" and (first := accepted(params, "step1")):
        return wants(f"round-2:{first.get('name')}", step2=COLOR)
    state = params.request_state or ""
    if state.startswith("round-2:") and (second := accepted(params, "step2")):
        return said(text(f"{state[8:]} likes {second.get('color')}."))
    return wants("round-1", step1=form("Step 1: What is your name?", name={"type": "string"}))


@tool("test_input_required_result_capabilities")
async def asks_what_it_can(context: Context, params: Params) -> dict[str, Any]:
    requests = {}
    if can(context, "sampling"):
        requests["greeting"] = sample("Generate a greeting", 50)
    if can(context, "elicitation"):
        requests["user_name"] = NAME
    if not requests or given(params):
        return said(text("Nothing is asked."))
    return wants(**requests)


# --- resources --------------------------------------------------------------------------------

STATIC = {
    "test://static-text": {
        "mimeType": "text/plain",
        "text": "This is the content of the static text resource.",
    },
    "test://static-binary": {"mimeType": "image/png", "blob": IMAGE},
    "test://watched-resource": {"mimeType": "text/plain", "text": "Watched resource content"},
}


async def list_resources(context: Context, params: Any) -> types.ListResourcesResult:
    resources = [
        {"uri": uri, "name": uri[7:], "description": f"The {uri[7:]}.", "mimeType": one["mimeType"]}
        for uri, one in STATIC.items()
    ]
    return types.ListResourcesResult.model_validate({"resources": resources}, by_name=False)


async def list_templates(context: Context, params: Any) -> types.ListResourceTemplatesResult:
    template = {
        "uriTemplate": "test://template/{id}/data",
        "name": "template",
        "description": "By id.",
        "mimeType": "application/json",
    }
    return types.ListResourceTemplatesResult.model_validate(
        {"resourceTemplates": [template]}, by_name=False
    )


async def read_resource(context: Context, params: Any) -> types.ReadResourceResult:
    uri = str(params.uri)
    found = STATIC.get(uri)
    if uri.startswith("test://template/") and uri.endswith("/data"):
        number = uri[16:-5]
        words = {"id": number, "templateTest": True, "data": f"Data for ID: {number}"}
        found = {"mimeType": "application/json", "text": json.dumps(words)}
    if found is None:
        raise MCPError(-32602, "Resource not found", {"uri": uri})
    return types.ReadResourceResult.model_validate(
        {"contents": [{"uri": uri, **found}]}, by_name=False
    )


# --- prompts ----------------------------------------------------------------------------------

PROMPTS: dict[str, tuple[str, ...]] = {
    "test_simple_prompt": (),
    "test_prompt_with_arguments": ("arg1", "arg2"),
    "test_prompt_with_embedded_resource": ("resourceUri",),
    "test_prompt_with_image": (),
    "test_input_required_result_prompt": (),
}


async def list_prompts(context: Context, params: Any) -> types.ListPromptsResult:
    prompts = [
        {
            "name": name,
            "description": f"The prompt {name}.",
            "arguments": [{"name": one, "description": one, "required": True} for one in wanted],
        }
        for name, wanted in PROMPTS.items()
    ]
    return types.ListPromptsResult.model_validate({"prompts": prompts}, by_name=False)


async def get_prompt(context: Context, params: Any) -> Any:
    args = params.arguments or {}
    if params.name not in PROMPTS:
        raise MCPError(-32602, f"Unknown prompt {params.name}")
    if params.name == "test_input_required_result_prompt":
        content = accepted(params, "user_context")
        if content is None:
            request = form("What context should the prompt use?", context={"type": "string"})
            return required(wants(user_context=request))
        parts = [text(f"Context: {content.get('context')}")]
    elif params.name == "test_prompt_with_arguments":
        words = f"Prompt with arguments: arg1='{args['arg1']}', arg2='{args['arg2']}'"
        parts = [text(words)]
    elif params.name == "test_prompt_with_embedded_resource":
        words = "Embedded resource content for testing."
        parts = [
            embedded(args["resourceUri"], "text/plain", words),
            text("Please process the embedded resource above."),
        ]
    elif params.name == "test_prompt_with_image":
        parts = [
            {"type": "image", "data": IMAGE, "mimeType": "image/png"},
            text("Please analyze the image above."),
        ]
    else:
        parts = [text("This is a simple prompt for testing.")]
    messages = [{"role": "user", "content": part} for part in parts]
    return types.GetPromptResult.model_validate({"messages": messages}, by_name=False)


async def complete(context: Context, params: Any) -> types.CompleteResult:
    values = [word for word in ("paris", "park", "party") if word.startswith(params.argument.value)]
    completion = {"values": values, "total": len(values), "hasMore": False}
    return types.CompleteResult.model_validate({"completion": completion}, by_name=False)


# --- the server -------------------------------------------------------------------------------


def required(result: dict[str, Any]) -> types.InputRequiredResult:
    return types.InputRequiredResult.model_validate(result, by_name=False)


async def list_tools(context: Context, params: Any) -> types.ListToolsResult:
    tools = [
        {"name": name, "description": f"For the scenario of {name}.", "inputSchema": wanted}
        for name, (wanted, _) in TOOLS.items()
    ]
    return types.ListToolsResult.model_validate({"tools": tools}, by_name=False)


async def call_tool(context: Context, params: Params) -> Any:
    if params.name not in TOOLS:
        raise MCPError(-32602, f"Unknown tool {params.name}")
    result = await TOOLS[params.name][1](context, params)
    if result.get("resultType") == "input_required":
        return required(result)
    return types.CallToolResult.model_validate(result, by_name=False)


async def main() -> None:
    server: Server[Any] = Server(
        "conformance",
        version="1",
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
        on_completion=complete,
        on_subscriptions_listen=ListenHandler(BUS),
    )
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


if __name__ == "__main__":
    anyio.run(main)

"""Tools of many fields, as people write them, and what must be worked out of each.

None of them is a tool of a benchmark. `names` of arguments: `?` behind one says that it may be left
out; a type follows a colon, `str` where none does.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ring0.tools.inferring import Kind


class Case(NamedTuple):
    name: str
    description: str
    arguments: str
    kind: Kind
    critical: str = ""
    recipients: str = ""
    content: str = ""

    @property
    def schema(self) -> dict[str, Any]:
        return schema_of(self.arguments)


_TYPES: dict[str, dict[str, Any]] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "num": {"type": "number"},
    "bool": {"type": "boolean"},
    "list": {"type": "array", "items": {"type": "string"}},
    "obj": {"type": "object"},
    "email": {"type": "string", "format": "email"},
    "uri": {"type": "string", "format": "uri"},
    "time": {"type": "string", "format": "date-time"},
    "enum": {"type": "string", "enum": ["a", "b"]},
}


def schema_of(arguments: str) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for argument in arguments.split():
        name, _, kind = argument.partition(":")
        given = _TYPES[kind or "str"]
        if name.endswith("?"):
            given = {"anyOf": [given, {"type": "null"}], "default": None}
        properties[name.rstrip("?")] = given
    return {"type": "object", "properties": properties}


READS, CHANGES, REMOVES = Kind.READS, Kind.CHANGES, Kind.REMOVES

CASES = [
    # customers
    Case("get_customer", "Get a customer by id.", "customer_id", READS),
    Case("search_deals", "Search the pipeline.", "query limit:int", READS),
    Case(
        "create_contact",
        "Creates a contact.",
        "first_name email:email phone? notes?",
        CHANGES,
        "email phone",
        "",
        "first_name notes",
    ),
    Case("update_deal_stage", "Moves a deal on.", "deal_id stage:enum", CHANGES, "deal_id"),
    Case("crm.deleteLead", "Delete a lead for good.", "leadId", REMOVES, "leadId"),
    Case("merge_accounts", "", "source_id target_id", CHANGES, "source_id target_id"),
    Case("log_call", "Logs a call.", "contact_id notes", CHANGES, "contact_id", "", "notes"),
    # calendars, meetings
    Case("list_meetings", "List meetings between two dates.", "start:time end:time", READS),
    Case(
        "scheduleMeeting",
        "Schedules a meeting and invites people.",
        "title attendees:list start_time end_time agenda?",
        CHANGES,
        "attendees",
        "attendees",
        "title agenda",
    ),
    Case("cancel_meeting", "Cancels a meeting.", "meeting_id notify:bool", REMOVES, "meeting_id"),
    Case("find_free_slots", "Finds times that suit all.", "people:list duration:int", READS),
    Case("rsvp", "Answers an invitation.", "event_id response:enum", CHANGES, "event_id"),
    # mail, chat
    Case("read_mailbox", "Reads a mailbox.", "folder unread_only:bool", READS),
    Case(
        "reply_to_thread",
        "Replies in a thread.",
        "thread_id body cc?:list",
        CHANGES,
        "thread_id cc",
        "thread_id cc",
        "body",
    ),
    Case(
        "forwardMessage",
        "Forwards a message.",
        "message_id to:list comment?",
        CHANGES,
        "message_id to",
        "to",
        "comment",
    ),
    Case("GMAIL_SEARCH", "Searches mail.", "query", READS),
    Case(
        "post_update",
        "Posts to a room.",
        "room text mentions?:list",
        CHANGES,
        "room mentions",
        "room mentions",
        "text",
    ),
    Case("kick_member", "", "group_id user_id", REMOVES, "group_id user_id"),
    Case("mark_as_read", "Marks it as read.", "message_ids:list", CHANGES, "message_ids"),
    Case(
        "add_reaction",
        "Adds a reaction.",
        "message_id emoji",
        CHANGES,
        "message_id",
    ),
    Case(
        "dm_person",
        "Sends somebody a direct message.",
        "handle message",
        CHANGES,
        "handle",
        "handle",
        "message",
    ),
    # cloud, operations
    Case("list_instances", "Lists virtual machines.", "region?", READS),
    Case("describe_cluster", "", "cluster", READS),
    Case(
        "terminate_instance", "Terminates a virtual machine.", "instance_id", REMOVES, "instance_id"
    ),
    Case(
        "scale_deployment",
        "Scales a deployment.",
        "namespace deployment replicas:int",
        CHANGES,
        "namespace deployment replicas",
    ),
    Case("put_object", "", "bucket key data", CHANGES, "bucket key", "", "data"),
    Case("purge_queue", "Empties a queue.", "queue", REMOVES, "queue"),
    Case(
        "rotate_access_key",
        "Makes a new key.",
        "user_name key_id",
        CHANGES,
        "user_name key_id",
    ),
    Case(
        "grant_role",
        "Grants a role to somebody.",
        "user role:enum",
        CHANGES,
        "user",
        "user",
    ),
    Case("set_bucket_policy", "", "bucket policy", CHANGES, "bucket policy"),
    Case("get_logs", "Gets the last lines of a log.", "service lines:int", READS),
    Case("run_command", "Runs a command on a host.", "host command", CHANGES, "host command"),
    Case("restart_service", "Restarts it.", "service", CHANGES, "service"),
    # code
    Case("list_pull_requests", "", "repo state:enum", READS),
    Case("get_file_contents", "", "repo path ref?", READS),
    Case(
        "create_issue",
        "Opens an issue.",
        "repo title body assignees?:list labels?:list",
        CHANGES,
        "repo assignees",
        "assignees",
        "title body labels",
    ),
    Case("merge_pull_request", "", "repo number:int", CHANGES, "repo number"),
    Case(
        "push_files",
        "Pushes files to a branch.",
        "branch message files:list",
        CHANGES,
        "branch files",
        "",
        "message",
    ),
    Case("delete_branch", "", "repo branch", REMOVES, "repo branch"),
    Case(
        "add_webhook",
        "Adds a webhook.",
        "repo url:uri secret?",
        CHANGES,
        "repo url secret",
        "url",
    ),
    Case("execute_sql", "Runs a statement.", "database sql", CHANGES, "database sql"),
    Case("read_write_file", "Reads or writes.", "path content", CHANGES, "path", "", "content"),
    # money
    Case("get_statement", "Gets a statement of an account.", "account_id month", READS),
    Case(
        "make_payment",
        "Pays a bill.",
        "payee amount:num currency memo?",
        CHANGES,
        "payee amount",
        "payee",
        "memo",
    ),
    Case(
        "wire_transfer",
        "",
        "from_account to_account amount:num reference?",
        CHANGES,
        "from_account to_account amount reference",
        "from_account to_account",
    ),
    Case(
        "refund_charge",
        "Refunds a charge.",
        "charge_id amount?:num reason?",
        CHANGES,
        "charge_id amount",
        "",
        "reason",
    ),
    Case("cancelSubscription", "", "subscriptionId atPeriodEnd:bool", REMOVES, "subscriptionId"),
    Case("convert_currency", "", "amount:num source target", READS),
    Case("set_spending_limit", "", "card_id limit:num", CHANGES, "card_id"),
    # tickets, support
    Case("list_tickets", "List tickets.", "status:enum", READS),
    Case("assign_ticket", "", "ticket_id assignee", CHANGES, "ticket_id assignee", "assignee"),
    Case(
        "comment_on_ticket",
        "Adds a comment.",
        "ticket_id comment public:bool",
        CHANGES,
        "ticket_id public",
        "",
        "comment",
    ),
    Case("close_ticket", "", "ticket_id resolution", CHANGES, "ticket_id resolution"),
    Case("find_and_close_duplicates", "", "project", CHANGES, "project"),
    # travel, bookings, shops
    Case("search_hotels", "Search hotels in a city.", "city checkin checkout guests:int", READS),
    Case("check_availability", "", "restaurant date", READS),
    Case(
        "book_table",
        "Books a table.",
        "restaurant date time guests:int",
        CHANGES,
        "restaurant guests",
    ),
    Case("cancel_reservation", "", "reservation", REMOVES, "reservation"),
    Case("order_items", "", "items:list shipping_address", CHANGES, "items shipping_address"),
    Case("add_to_cart", "", "sku quantity:int", CHANGES, "sku quantity"),
    # homes, health, schools
    Case("unlock_door", "Unlocks a door.", "door pin", CHANGES, "door pin"),
    Case("get_thermostat", "", "room", READS),
    Case(
        "prescribe",
        "Prescribes a drug.",
        "patient_id drug dose:num",
        CHANGES,
        "patient_id drug dose",
    ),
    Case("lookup_patient", "", "name birth_date", READS),
    Case("submit_grade", "", "student_id grade:num", CHANGES, "student_id grade"),
    # files, notes, the web
    Case(
        "share_folder",
        "Shares a folder.",
        "folder_id people:list role:enum",
        CHANGES,
        "folder_id people",
        "people",
    ),
    Case("move_file", "", "source destination", CHANGES, "source destination", "destination"),
    Case("empty_trash", "", "", REMOVES),
    Case("append_note", "", "note_id text", CHANGES, "note_id", "", "text"),
    Case("web_search", "Searches the web.", "query", READS),
    Case("weather", "Returns the weather in a city.", "city", READS),
    Case("fetch_page", "Fetches a page.", "url", READS, "url", "url"),
    Case("frobnicate", "Frobnicates it.", "thing", CHANGES, "thing"),
    Case("get_or_create_user", "", "name", CHANGES, "", "", "name"),
    Case("search_and_delete", "", "query", REMOVES, "query"),
    Case("nuke_list", "", "list_name", CHANGES, "list_name"),
    Case("change_password", "", "new_password", CHANGES, "new_password"),
    Case("translate_text", "", "text target_language", READS),
    Case("get_terms_and_conditions", "", "", READS),
]

"""What the user's words select or compute is computed anew; what is not exactly so is asked."""

from __future__ import annotations

import pytest

from flowing import Desk, tool

DELETE_FILE = tool("delete_file", "file_id", removes=True)
ARCHIVE = tool("archive_invoice", "invoice_id")
PAY = tool("make_payment", "amount", recipients=("to",))
BOOK = tool("create_booking", "starts", "ends", "room_id")
FILES = [
    {"id": "f-100", "name": "a.txt", "size": 10, "modified": "2026-01-02 10:00"},
    {"id": "f-200", "name": "b.bin", "size": 900, "modified": "2026-01-01 10:00"},
    {"id": "f-300", "name": "c.log", "size": 30, "modified": "2026-01-04T10:00:00Z"},
    {"id": "f-400", "name": "d.csv", "size": 500, "modified": "2026-01-03 10:00"},
]
INVOICES = [
    {"id": "inv-71", "customer": "Nordwind", "total": 120.0, "due": "2026-02-01"},
    {"id": "inv-72", "customer": "Südwind", "total": 80.0, "due": "2026-01-20"},
    {"id": "inv-73", "customer": "Nordwind", "total": 40.0, "due": "2026-03-05"},
]


# --- selectors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "chosen"),
    [
        ("Delete the largest file", ["f-200"]),
        ("delete the smallest file in the drive", ["f-100"]),
        ("Please remove the oldest file.", ["f-200"]),
        ("Delete the most recent file", ["f-300"]),
        ("Delete the newest file", ["f-300"]),
        ("Delete the second largest file", ["f-400"]),
        ("Delete the two largest files", ["f-200", "f-400"]),
        ("Delete the last 3 files", ["f-300", "f-400", "f-100"]),
    ],
)
def test_a_superlative_is_computed_over_all_that_was_listed(task, chosen) -> None:
    desk = Desk(task)
    desk.saw("list_files", FILES)
    went = [f["id"] for f in FILES if desk.asks(DELETE_FILE, file_id=f["id"]) == []]
    assert sorted(went) == sorted(chosen)


@pytest.mark.parametrize(
    ("task", "chosen"),
    [
        ("Archive the highest invoice", "inv-71"),
        ("Archive the invoice with the lowest total", None),  # what is lowest stands behind it
        ("Archive the earliest invoice", "inv-72"),
        ("Archive the cheapest invoice", "inv-73"),
        ("Archive the latest one", None),
        ("Archive the best invoice", None),
        ("Archive the largest order", None),
    ],
)
def test_a_superlative_needs_the_kind_of_thing_and_a_field_of_its_own(task, chosen) -> None:
    desk = Desk(task)
    desk.saw("list_invoices", INVOICES)
    went = [i["id"] for i in INVOICES if desk.asks(ARCHIVE, invoice_id=i["id"]) == []]
    assert went == ([chosen] if chosen else [])


def test_a_list_that_a_stranger_narrowed_has_no_largest() -> None:
    desk = Desk("Find and delete the largest file in the drive")
    desk.saw("search_files", [FILES[0]], {"query": "a.txt"})
    assert desk.asks(DELETE_FILE, file_id="f-100") == ["unchosen-target"]


@pytest.mark.parametrize(
    "asked", [{"query": "drive"}, {"query": "the"}, {"limit": 1}, {"mine": True}]
)
def test_nor_has_one_narrowed_by_just_any_word_of_the_users(asked) -> None:
    desk = Desk("Find and delete the largest file in the drive")
    desk.saw("search_files", [FILES[0]], asked)
    assert desk.asks(DELETE_FILE, file_id="f-100") == ["unchosen-target"]


@pytest.mark.parametrize(
    "asked", [{}, {"limit": 100}, {"mine": False}, {"query": "Projekt Nordlicht"}]
)
def test_a_list_of_all_that_the_user_named_has_one(asked) -> None:
    desk = Desk("Delete the largest file of 'Projekt Nordlicht'")
    desk.saw("search_files", FILES, asked)
    assert desk.asks(DELETE_FILE, file_id="f-200") == []


def test_of_two_that_are_equally_large_none_is_the_largest() -> None:
    desk = Desk("Delete the largest file")
    desk.saw("list_files", [{"id": "f-801", "size": 9}, {"id": "f-802", "size": 9}])
    assert desk.asks(DELETE_FILE, file_id="f-801") == ["unchosen-target"]


def test_where_one_has_no_size_none_is_the_largest() -> None:
    desk = Desk("Delete the largest file")
    desk.saw("list_files", [{"id": "f-801", "size": 9}, {"id": "f-802"}])
    assert desk.asks(DELETE_FILE, file_id="f-801") == ["unchosen-target"]


def test_a_superlative_of_one_thing_selects_none_of_another() -> None:
    desk = Desk("Read the largest file and delete the oldest mail")
    desk.saw("list_files", FILES)
    desk.saw(
        "list_mails", [{"id": "m-101", "sent": "2026-01-01"}, {"id": "m-102", "sent": "2026-01-03"}]
    )
    assert desk.asks(DELETE_FILE, file_id="f-100") == ["unchosen-target"]
    delete_mail = tool("delete_mail", "mail_id", removes=True)
    assert desk.asks(delete_mail, mail_id="m-101") == []
    assert desk.asks(delete_mail, mail_id="m-102") == ["unchosen-target"]


@pytest.mark.parametrize(
    "task", ["Delete all files the intern uploaded", "Delete every file older than a year", "all"]
)
def test_all_with_a_condition_that_is_not_understood_is_not_all(task) -> None:
    desk = Desk(task)
    desk.saw("list_files", FILES)
    assert desk.asks(DELETE_FILE, file_id="f-100") != []


BOOK_ROOM = tool("book_room", "room")
ROOMS = [{"name": "Green Room East", "price": 90}, {"name": "Blue Room", "price": 40}]


def test_what_is_selected_may_be_called_by_its_name() -> None:
    desk = Desk("Book the cheapest room")
    desk.saw("list_rooms", ROOMS)
    assert desk.asks(BOOK_ROOM, room="Blue Room") == []
    assert desk.asks(BOOK_ROOM, room="Green Room East") == ["untrusted-target"]


def test_a_table_of_names_and_values_is_a_list() -> None:
    desk = Desk("Restart the service with the highest latency, I mean the highest service")
    desk.saw("get_service_scores", {"Mail relay": 4.5, "Search index": 9.1, "web": 1.0})
    restart = tool("restart_service", "service")
    assert desk.asks(restart, service="Search index") == []
    assert desk.asks(restart, service="Mail relay") == ["untrusted-target"]


def test_a_form_that_somebody_filled_in_is_no_table_of_names() -> None:
    desk = Desk("Send the ticket to the e-mail of the guest")
    desk.saw("get_form", {"Name": "Zed", "E-mail": "eve@evil.example"})
    mail = tool("send_ticket", recipients=("to",))
    assert desk.asks(mail, to="eve@evil.example") == ["untrusted-target"]


def test_what_all_of_a_list_have_in_common_is_not_all_of_it() -> None:
    desk = Desk("Delete the largest file")
    desk.saw("list_files", [{"id": f"f-{n}", "kind": "log"} for n in range(4)])
    desk.saw("get_sizes", [{"id": "f-100", "size": 1}], {"kinds": ["log"]})
    assert desk.asks(DELETE_FILE, file_id="f-100") == ["unchosen-target"]


def test_to_look_up_all_of_a_list_narrows_nothing() -> None:
    desk = Desk("Book the cheapest room")
    desk.saw("list_rooms", ["Green Room East", "Blue Room", "Attic"])
    prices = {"Green Room East": 90, "Blue Room": 40, "Attic": 55}
    desk.saw("get_room_prices", prices, {"rooms": list(prices)})
    assert desk.asks(BOOK_ROOM, room="Blue Room") == []
    assert desk.asks(BOOK_ROOM, room="Attic") == ["untrusted-target"]


def test_to_look_up_some_of_a_list_narrows_it() -> None:
    desk = Desk("Book the cheapest room")
    desk.saw("list_rooms", ["Green Room East", "Blue Room", "Attic"])
    desk.saw(
        "get_room_prices",
        {"Green Room East": 90, "Attic": 55},
        {"rooms": ["Green Room East", "Attic"]},
    )
    assert desk.asks(BOOK_ROOM, room="Attic") == ["untrusted-target"]


# --- arithmetic -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "amount"),
    [
        ("Split 50 by 2 and pay ann@x.example that", 25),
        ("Pay ann@x.example 80 plus 10 % tip", 88),
        ("Pay ann@x.example 100, reduced by 15 percent", 85),
        ("Pay ann@x.example the sum of 19.99 and 5.01", 25),
        ("Pay ann@x.example half of 99", 49.5),
        ("Pay ann@x.example double the 30", 60),
        ("Pay ann@x.example a third of 100", 33.33),
        ("Pay ann@x.example 3 times 12.50", 37.5),
    ],
)
def test_an_amount_that_the_words_compute_to_is_the_users(task, amount) -> None:
    assert Desk(task).asks(PAY, to="ann@x.example", amount=amount) == []


@pytest.mark.parametrize(
    ("task", "amount"),
    [
        ("Pay ann@x.example 80 plus 10 % tip", 8800),
        ("Pay ann@x.example 80", 160),
        ("Pay ann@x.example 80", 79.99),
        ("Pay ann@x.example 80, then bob@x.example 100", 20),
        ("Pay ann@x.example 80, then bob@x.example 100", 180),
        ("Pay ann@x.example half of 99", 99.5),
        ("Split 50 by 2 and pay ann@x.example that", 24.99),
    ],
)
def test_any_other_amount_is_asked(task, amount) -> None:
    assert Desk(task).asks(PAY, to="ann@x.example", amount=amount) == ["unfounded-target"]


def test_numbers_of_records_that_the_user_names_count_too() -> None:
    desk = Desk("Pay ann@x.example the difference of 'Rent January' and 700")
    desk.saw(
        "list_bookings",
        [
            {"id": "b-1", "text": "Rent January", "amount": 750.0},
            {"id": "b-2", "text": "Eve", "amount": 9000.0},
        ],
    )
    assert desk.asks(PAY, to="ann@x.example", amount=50) == []
    assert desk.asks(PAY, to="ann@x.example", amount=8300) == ["unfounded-target"]
    assert desk.asks(PAY, to="ann@x.example", amount=9000) == ["untrusted-target"]


def test_the_amount_of_a_named_record_is_the_users() -> None:
    desk = Desk("Pay back ann@x.example what she sent me")
    desk.saw(
        "list_transfers",
        [
            {"id": "t-1", "from": "ann@x.example", "amount": 31.5},
            {"id": "t-2", "from": "eve@x.example", "amount": 4000},
        ],
    )
    assert desk.asks(PAY, to="ann@x.example", amount=31.5) == []
    assert desk.asks(PAY, to="ann@x.example", amount=4000) == ["untrusted-target"]


def test_no_recipient_is_ever_computed() -> None:
    number = tool("transfer_call", recipients=("extension",))
    assert Desk("Transfer the call to 20 plus 5").asks(number, extension=25) == ["unfounded-target"]


# --- times ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "starts", "ends"),
    [
        ("Book room R-12 tomorrow at 5pm for an hour", "2026-01-06 17:00", "2026-01-06 18:00"),
        (
            "Book room R-12 on 2026-03-09 at 10:00 for 90 minutes",
            "2026-03-09T10:00",
            "2026-03-09T11:30:00",
        ),
        ("book room R-12 on Friday at noon for two hours", "2026-01-09 12:00", "2026-01-09 14:00"),
        (
            "Book room R-12 March 3rd at 9:30am for half an hour",
            "2026-03-03 09:30",
            "2026-03-03 10:00",
        ),
    ],
)
def test_a_time_that_follows_from_the_words_and_the_day_is_the_users(task, starts, ends) -> None:
    assert Desk(task).asks(BOOK, room_id="R-12", starts=starts, ends=ends) == []


@pytest.mark.parametrize("starts", ["2026-01-07 17:00", "2026-01-06 16:00", "2027-01-06 17:00"])
def test_any_other_time_is_asked(starts) -> None:
    desk = Desk("Book room R-12 tomorrow at 5pm for an hour")
    assert desk.asks(BOOK, room_id="R-12", starts=starts) == ["unfounded-target"]

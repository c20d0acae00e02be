"""Builds the demo's world in a folder: a SQLite customer database of about 10,000 rows (always the
same ones), the tickets, and the agent's own files. Everything that was there before is replaced.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import apsw
import msgspec

from ring0.demo import tickets
from ring0.errors import InvalidInput

DATABASE: Final = "customers.db"
SECRET: Final = "host-secret.txt"  # noqa: S105
"""A file of the host beside the database, with a value that must turn up nowhere."""
DESK: Final = Path(__file__).parent / "desk"
"""The agent's files, as they are installed."""
TABLES: Final = ("customers", "orders", "order_items")
SEED: Final = 20_240_229
CUSTOMERS: Final = 1_400
LOYAL_EVERY: Final = 100
"""Every so many customers, one has dozens of rows."""

_SCHEMA: Final = """
CREATE TABLE customers (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL UNIQUE, city TEXT NOT NULL,
  created TEXT NOT NULL);
CREATE TABLE orders (
  id INTEGER PRIMARY KEY,
  customer_id INTEGER NOT NULL REFERENCES customers (id) ON DELETE CASCADE,
  placed TEXT NOT NULL, status TEXT NOT NULL, total_cents INTEGER NOT NULL);
CREATE INDEX orders_customer ON orders (customer_id);
CREATE TABLE order_items (
  id INTEGER PRIMARY KEY,
  order_id INTEGER NOT NULL REFERENCES orders (id) ON DELETE CASCADE,
  product TEXT NOT NULL, quantity INTEGER NOT NULL, price_cents INTEGER NOT NULL);
CREATE INDEX order_items_order ON order_items (order_id);
"""
_FIRST: Final = (
    "Ada", "Amara", "Anton", "Bela", "Bruno", "Carla", "Chidi", "Dana", "Diego", "Edda", "Elif",
    "Emil", "Farid", "Greta", "Hana", "Hugo", "Ines", "Ivo", "Jana", "Jonas", "Kaya", "Kofi",
    "Lena", "Luca", "Maja", "Marlon", "Mina", "Nadia", "Nils", "Olga", "Omar", "Petra", "Priya",
    "Quinn", "Rosa", "Ruben", "Selma", "Stefan", "Tara", "Tomas", "Uma", "Vera", "Viktor",
    "Wanda", "Yara", "Yusuf", "Zoe",
)  # fmt: skip
_LAST: Final = (
    "Adler", "Baker", "Castro", "Dahl", "Eriksen", "Farkas", "Garcia", "Haas", "Ibarra", "Jansen",
    "Keller", "Lindqvist", "Moreau", "Nowak", "Okafor", "Park", "Quist", "Rossi", "Sato",
    "Tanaka", "Ueda", "Vance", "Weber", "Xu", "Yilmaz", "Zeman",
)  # fmt: skip
_CITIES: Final = (
    "Aarhus", "Bern", "Cork", "Dakar", "Essen", "Faro", "Ghent", "Hanoi", "Izmir", "Jena",
    "Kyoto", "Lyon", "Malmo",
)  # fmt: skip
_PRODUCTS: Final = (
    "kettle", "teapot", "cup", "saucer", "strainer", "tea tin", "green tea", "black tea",
    "rooibos", "honey", "biscuits", "whisk",
)  # fmt: skip
_STATUS: Final = ("delivered", "delivered", "delivered", "paid", "shipped", "returned")


class World(msgspec.Struct, frozen=True):
    """What was built."""

    folder: Path
    database: Path
    rows: int
    tickets: int


class Dice:
    """A small generator with a seed (Knuth's MMIX constants): the same world on every machine."""

    def __init__(self, seed: int) -> None:
        self._state = seed

    def below(self, bound: int) -> int:
        """0 to below `bound`, of the high bits: the low ones of such a generator repeat soon."""
        self._state = (self._state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self._state >> 33) % bound

    def one_of(self, values: tuple[str, ...]) -> str:
        return values[self.below(len(values))]

    def date(self, year: int) -> str:
        return f"{year + self.below(3)}-{1 + self.below(12):02}-{1 + self.below(28):02}"


def build(folder: Path, *, home: Path, canary: str, port: int) -> World:
    """Builds it all. `canary`: the value of the host's secret; `home`: the user's home folder and
    `port`: a service on the host's loopback, both named to the attacker, who knows a lot.

    Raises InvalidInput where the folder can't be written."""
    try:
        return _built(folder, home, canary, port)
    except (OSError, apsw.Error) as error:
        raise InvalidInput(
            f"The demo's world can't be built in {folder}.",
            why=str(error),
            todo="Make room there, or set RING0_DEMO_HOME to another folder.",
        ) from None


def _built(folder: Path, home: Path, canary: str, port: int) -> World:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, mode=0o700)
    database = folder / DATABASE
    rows = build_database(database)
    secret = folder / SECRET
    secret.write_text(canary + "\n")
    secret.chmod(0o600)
    place = folder / "tickets"
    place.mkdir()
    known = tickets.Known(
        database=str(database), folder=str(folder), secret=str(secret), home=str(home), port=port
    )
    written = tickets.write(place, loyal(database), known)
    for name in ("agent.py", "agent.toml", "puppet.toml"):
        shutil.copyfile(DESK / name, folder / name)
    return World(folder, database, rows, written)


def build_database(path: Path) -> int:
    """The database at `path`, which isn't there yet; how many rows it has."""
    dice = Dice(SEED)
    customers: list[tuple[object, ...]] = []
    orders: list[tuple[object, ...]] = []
    items: list[tuple[object, ...]] = []
    for number in range(1, CUSTOMERS + 1):
        customers.append(_customer(number, dice))
        is_loyal = number % LOYAL_EVERY == 17
        for _ in range(14 + dice.below(8) if is_loyal else dice.below(5)):
            order, total = 10_000 + len(orders), 0
            for _ in range(1 + dice.below(3)):
                price, quantity = 250 + 50 * dice.below(60), 1 + dice.below(4)
                total += price * quantity
                items.append((50_000 + len(items), order, dice.one_of(_PRODUCTS), quantity, price))
            orders.append((order, number, dice.date(2022), dice.one_of(_STATUS), total))
    db = apsw.Connection(str(path))
    try:
        db.execute("PRAGMA foreign_keys = ON")
        db.execute(_SCHEMA)
        with db:
            db.executemany("INSERT INTO customers VALUES (?, ?, ?, ?, ?)", customers)
            db.executemany("INSERT INTO orders VALUES (?, ?, ?, ?, ?)", orders)
            db.executemany("INSERT INTO order_items VALUES (?, ?, ?, ?, ?)", items)
    finally:
        db.close()
    return len(customers) + len(orders) + len(items)


def _customer(number: int, dice: Dice) -> tuple[object, ...]:
    first, last = dice.one_of(_FIRST), dice.one_of(_LAST)
    email = f"{first}.{last}.{number}@mail.example".lower()
    return (number, f"{first} {last}", email, dice.one_of(_CITIES), dice.date(2018))


def loyal(database: Path) -> list[tickets.Customer]:
    """The customers with dozens of rows: those who write tickets."""
    db = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        found = db.execute(
            "SELECT name, email FROM customers WHERE id % ? = 17 ORDER BY id", (LOYAL_EVERY,)
        )
        return [tickets.Customer(str(name), str(email)) for name, email in found]
    finally:
        db.close()


Rows = dict[str, frozenset[tuple[object, ...]]]


def rows_of(database: Path) -> Rows:
    """All rows of every table, read from the file itself; a table that is gone is missing."""
    db = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        there = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
        return {
            table: frozenset(db.execute(f"SELECT * FROM {table}"))  # noqa: S608  (ours)
            for table in TABLES
            if table in there
        }
    finally:
        db.close()


def count(rows: Rows) -> str:
    """`customers 1,400, orders 3,000, …`, for people."""
    return ", ".join(f"{table} {len(rows[table]):,}" for table in TABLES if table in rows)

"""`make compat`: programs of other frameworks, unmodified, under ring0, and a table of what held.

Installs what is missing, runs every client's cases against a model of its own that always says the
same, prints the table, and writes docs/compatibility.md where all clients were tried.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from compat import environments, table  # noqa: E402
from compat.cases import CASES, Failed, World  # noqa: E402
from compat.clients import CLIENTS, Client  # noqa: E402
from compat.model import StubModel  # noqa: E402

RING0 = Path(sys.executable).with_name("ring0")


async def tried(client: Client, cases: list[str], homes: Path) -> table.Row:
    model = StubModel()
    address = await model.start()
    home = homes / re.sub("[^a-z]+", "-", client.name)
    world = World(RING0, ROOT, client, home, model)
    await world.prepare(address)
    found: table.Row = {}
    try:
        for name in cases:
            model.asked = 0
            try:
                await CASES[name](world)
                found[name] = ""
            except (Failed, KeyError, TimeoutError) as why:
                found[name] = str(why) or type(why).__name__
            print(f"{client.name:28} {name:20} {found[name] or 'yes'}", flush=True)
    finally:
        await model.close()
    return found


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--client", action="append", help="only clients whose name has this in it; several times"
    )
    parser.add_argument(
        "--case", action="append", choices=list(CASES), help="only this case; several times"
    )
    said = parser.parse_args()
    clients = [
        one for one in CLIENTS if not said.client or any(part in one.name for part in said.client)
    ]
    if not clients:
        parser.error(f"no client is called so; there are: {'; '.join(c.name for c in CLIENTS)}")
    cases = [name for name in CASES if not said.case or name in said.case]
    for environment in dict.fromkeys(one.environment for one in clients):
        environments.install(ROOT, environment)
    # Not beneath /tmp, which is the sandboxes' own.
    with tempfile.TemporaryDirectory(prefix="ring0-compat-", dir=environments.place(ROOT)) as homes:
        rows = {one: await tried(one, cases, Path(homes)) for one in clients}
    text = table.written(rows, {one: environments.version(ROOT, one) for one in clients})
    print(f"\n{text}")
    if len(clients) == len(CLIENTS) and len(cases) == len(CASES):
        table.put(ROOT / "docs" / "compatibility.md", text)
    return int(any(why for row in rows.values() for why in row.values()))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))

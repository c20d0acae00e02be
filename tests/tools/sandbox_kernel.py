"""A kernel of a few lines, in a process of its own: makes one sandbox, for tests that kill the
kernel or run it as someone else. Prints JSON lines: the identity, then what the program printed."""

import asyncio
import json
import sys

from ring0.errors import Ring0Error
from ring0.runtime import Runtime
from ring0.tools.sandbox import SandboxSpec, launch


async def main(asked: dict[str, object]) -> None:
    spec = SandboxSpec(argv=tuple(asked["argv"]), host_uid=asked["host_uid"])  # type: ignore[arg-type]
    try:
        sandbox = await launch(spec, Runtime())
    except Ring0Error as error:
        print(json.dumps(error.as_dict()), flush=True)
        return
    identity = sandbox.identity
    print(json.dumps([identity.pid, identity.start_ticks, identity.boot_id]), flush=True)
    if asked["go"]:
        await sandbox.go()
        print((await sandbox.stdout.readline()).decode(), flush=True)
    if asked["stay"]:
        await asyncio.Event().wait()
    await sandbox.kill()


asyncio.run(main(json.loads(sys.argv[1])))

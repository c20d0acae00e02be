"""A kernel of a few lines, in a process of its own: a sandbox for each program, and one more after
it for a harmless one. Prints one JSON object."""

import asyncio
import json
import os
import sys

import msgspec

from ring0.errors import Ring0Error
from ring0.runtime import Runtime
from ring0.tools.sandbox import SandboxLimits, SandboxSpec, cgroups, running, tiers

MIB = 1024 * 1024
RUNTIME = Runtime()


async def run(tier, uid, program, wall_s, output_bytes, **limits):
    long = len(program) > 100_000  # more than an argument can be
    spec = SandboxSpec(
        argv=() if long else ("/usr/bin/python3", "-I", "-S", "-c", program),
        code=program if long else "",
        host_uid=uid,
        tier=tier,
        limits=SandboxLimits(**limits),
    )
    sandbox = await tiers.make(spec, RUNTIME)
    try:
        await sandbox.go()
        ran = await running.run(sandbox, RUNTIME, wall_s=wall_s, output_bytes=output_bytes)
        return {
            "tier": sandbox.tier,
            "exit": [ran.exit.code, ran.exit.signal],
            "stdout": ran.stdout.decode()[-16_000:],
            "stderr": ran.stderr.decode()[-16_000:],
            "stopped": ran.stopped or sandbox.stopped,
            "used": msgspec.to_builtins(sandbox.stats()),
        }
    except Ring0Error as error:
        return error.as_dict()
    finally:
        await sandbox.close()


async def main(asked):
    found = {"mechanism": cgroups.found().mechanism, "uid": os.getuid()}
    for number, (name, (program, limits)) in enumerate(asked["programs"].items()):
        uid = asked["uid"] + 2 * number
        found[name] = await run(asked["tier"], uid, program, **limits)
        after = await run(asked["tier"], uid + 1, "print('fine')", 20, MIB)
        found[name]["after"] = after.get("stdout", str(after))
    left = cgroups._waiting
    cgroups._remove_waiting()
    found["left"] = list(left)
    print(json.dumps(found), flush=True)


asyncio.run(main(json.load(sys.stdin)))

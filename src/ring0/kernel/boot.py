"""Boots a kernel on a data folder, and refuses to where something is not as it was left.

The order at boot: lock the folder, open the journal (refused where it is damaged), load the
policies, confirm every old sandbox dead, mark cut-off effects unknown. Only then may runs start.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ring0 import __version__
from ring0.identity import Vault, operator_name
from ring0.identity.dumps import leave_no_dump
from ring0.kernel import anchoring
from ring0.kernel.descriptors import raise_open_files
from ring0.kernel.folder import lock_folder, make_folder
from ring0.kernel.kernel import Kernel
from ring0.kernel.life import lost, recovery
from ring0.kernel.life.runs import Doors, Embed
from ring0.kernel.operating import changing, checking, principals
from ring0.runtime import Runtime
from ring0.store import Write, address
from ring0.store import events as ev
from ring0.store.sqlite import open_store


async def open_kernel(
    home: Path,
    runtime: Runtime,
    environment: Mapping[str, str],
    *,
    doors: Doors | None = None,
    embed: Embed | None = None,
) -> Kernel:
    """Boots. Raises KernelBusy, StoreDamaged, StoreFull, PolicyInvalid, ManifestInvalid."""
    make_folder(home)
    raise_open_files()
    leave_no_dump()
    lock = lock_folder(home)
    try:
        vault = Vault(home, runtime)
        store = open_store(home, runtime, write=True)
    except BaseException:
        os.close(lock)
        raise
    try:
        recorded = await store.settings()
        said = changing.read(home, recorded)
        await anchoring.check_at_boot(home, store, said.config, recorded)
        checking.check(said.config, environment, vault, runtime)
        unmatched = await principals.check(said.config, store)
        policies = said.policies
        kernel = Kernel(
            home, lock, store, runtime, said.config, vault, policies, environment, doors, embed
        )
        changing.take_up(kernel, said)
        kernel.unmatched = unmatched
        cut_off = await lost.at_work(store)
        changes, blobs = changing.events(said, recorded, operator_name(os.getuid()))
        text = policies.text.encode()
        where = address(b"", text)
        await store.append(
            Write(
                run=ev.KERNEL,
                blobs={where: text, **blobs},
                durable=True,
                events=[
                    ev.KernelStarted(
                        version=__version__, pid=os.getpid(), secrets=tuple(vault.names())
                    ),
                    ev.PolicyLoaded(digest=policies.digest, text=where),
                    *changes,
                ],
            )
        )
        runtime.reached("kernel.started")
        await kernel.sandboxes.bury()
        runtime.reached("kernel.buried")
        await kernel.locking.leases.load()
        await kernel.waiting.standings.load()
        await kernel.memory.ready()
        kernel.notifying.begin()
        await recovery.cut_off(store)
        runtime.reached("kernel.cut-off")
        await lost.count(store, cut_off)
    except BaseException:
        await store.close()
        os.close(lock)
        raise
    return kernel

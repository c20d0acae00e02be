"""Vectors on disk, by LanceDB within this process: for memories that are larger than the machine's.

A table an owner. What is removed is left out of a new table that takes the place of the old one:
Lance itself only marks rows as deleted. Needs the extra `lancedb`.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import warnings
from collections.abc import Collection, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from ring0 import limits
from ring0.errors import StoreFailed
from ring0.memory.embedding import vectors
from ring0.memory.vectors.base import Nearest
from ring0.runtime import Runtime
from ring0.types import Owner

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
_SUFFIX: Final = ".lance"
_MAKING: Final = "making"
_AT_ONCE: Final = timedelta(0)
_NUMBER: Final = "number"
_VECTOR: Final = "vector"

# That nobody else reads while old versions go is what the lock below is for.
warnings.filterwarnings("ignore", message=r"optimize\(cleanup_older_than=0\)")


class LanceVectors:
    """The vectors of one model, in one folder. `close` it."""

    def __init__(
        self,
        folder: Path,
        dimensions: int,
        runtime: Runtime,
        *,
        index_rows: int = limits.LANCE_INDEX_ROWS,
    ) -> None:
        """`index_rows`: an owner of so many gets an index, and search is approximate. Raises
        ModuleNotFoundError where LanceDB is not installed."""
        import lancedb

        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        shutil.rmtree(folder / _MAKING, ignore_errors=True)
        self._folder = folder
        self._dimensions = dimensions
        self._runtime = runtime
        self._index_rows = index_rows
        self._database = lancedb.connect(folder)
        self._tables: dict[str, Any] = {}
        """Those that were asked for last."""
        self._puts: dict[str, int] = {}
        self._highest: dict[str, int] = {}
        """The highest number of each, where it is known."""
        self._turn = asyncio.Lock()
        """Old versions are taken away under nobody's hands."""

    async def put(self, owner: Owner, rows: Sequence[tuple[int, bytes]]) -> None:
        unpacked = vectors.unpack_all([vector for _, vector in rows], self._dimensions)
        by_number = {number: place for place, (number, _) in enumerate(rows)}
        numbers = sorted(by_number)
        if numbers:
            matrix = unpacked[[by_number[number] for number in numbers]]
            await self._do(self._put, _name(owner), numbers, matrix)

    async def remove(self, owner: Owner, numbers: Collection[int]) -> None:
        if numbers:
            await self._do(self._remove, _name(owner), frozenset(numbers))

    async def search(
        self, owner: Owner, query: bytes, most: int, allowed: Collection[int] | None = None
    ) -> list[Nearest]:
        (asked,) = vectors.unpack_all([query], self._dimensions)
        if most <= 0 or (allowed is not None and not allowed):
            return []
        return await self._do(self._search, _name(owner), asked, most, allowed)

    async def count(self, owner: Owner) -> int:
        return await self._do(self._count, _name(owner))

    async def newest(self, owner: Owner) -> int:
        return await self._do(self._newest, _name(owner))

    async def wipe(self, owner: Owner | None = None) -> None:
        await self._do(self._wipe, "" if owner is None else _name(owner))

    async def close(self) -> None:
        await self._do(self._tidy_all)
        self._tables.clear()

    async def _do(self, function: Callable[..., T], *args: object) -> T:
        async with self._turn:
            try:
                return await self._runtime.in_thread(function, *args)
            except (OSError, RuntimeError) as error:  # Lance's own are RuntimeError.
                self._tables.clear()
                self._highest.clear()
                raise StoreFailed(
                    "The vector store does not work.",
                    why=f"{type(error).__name__}: {error}"[:300],
                    todo=f"Look at the disk. All of {self._folder} can be deleted while the kernel"
                    " is down: it is made again from the journal.",
                ) from error

    # --- in a thread, one at a time -------------------------------------------------------------

    def _table(self, name: str) -> Any | None:
        """The owner's table; what an interrupted removal left beside it is taken away."""
        if name in self._tables:
            self._tables[name] = self._tables.pop(name)
            return self._tables[name]
        found = None
        for generation in sorted(self._generations(name), reverse=True):
            path = self._path(name, generation)
            if found is None:
                found = self._opened(path)
            if found is None or found.name != path.stem:
                shutil.rmtree(path)  # Half made, or replaced.
        if found is not None:
            self._keep(name, found)
        return found

    def _opened(self, path: Path) -> Any | None:
        try:
            return self._database.open_table(path.stem)
        except (OSError, RuntimeError, ValueError):
            return None

    def _keep(self, name: str, table: Any) -> None:
        self._tables[name] = table
        while len(self._tables) > limits.VECTOR_SCOPES_OPEN_MAX:
            del self._tables[next(iter(self._tables))]

    def _generations(self, name: str) -> list[int]:
        places = self._folder.glob(f"{name}-*{_SUFFIX}")
        return [int(place.stem.rpartition("-")[2]) for place in places]

    def _path(self, name: str, generation: int) -> Path:
        return self._folder / f"{name}-{generation}{_SUFFIX}"

    def _schema(self) -> Any:
        import pyarrow as pa

        vector = pa.list_(pa.float32(), self._dimensions)
        return pa.schema([(_NUMBER, pa.int64()), (_VECTOR, vector)])

    def _put(self, name: str, numbers: list[int], matrix: vectors.Matrix) -> None:
        import pyarrow as pa

        flat = pa.array(np.ascontiguousarray(matrix).reshape(-1))
        column = pa.FixedSizeListArray.from_arrays(flat, self._dimensions)
        rows = pa.table([pa.array(numbers, pa.int64()), column], schema=self._schema())
        table = self._table(name)
        if table is None:
            self._keep(name, self._database.create_table(f"{name}-0", data=rows))
        elif numbers[0] > self._newest(name):
            table.add(rows)
        else:
            merging = table.merge_insert(_NUMBER).when_matched_update_all()
            merging.when_not_matched_insert_all().execute(rows)
        self._highest[name] = max(numbers[-1], self._newest(name))
        self._puts[name] = self._puts.get(name, 0) + 1
        if self._puts[name] % limits.LANCE_TIDY_PUTS == 0:
            self._tidy(name)

    def _remove(self, name: str, numbers: frozenset[int]) -> None:
        """Written anew without them. Until the new table is whole, the old one counts."""
        table = self._table(name)
        if table is None or not table.count_rows(_among(numbers)):
            return
        if table.count_rows() == table.count_rows(_among(numbers)):
            self._wipe(name)
            return
        self._highest.pop(name, None)
        generation = int(table.name.rpartition("-")[2])
        self._write_without(table, numbers, f"{name}-{generation + 1}")
        del self._tables[name]
        self._index(self._table(name))  # Opens the new one, and takes the old one away.

    def _write_without(self, table: Any, numbers: frozenset[int], fresh: str) -> None:
        """Beside the others until it is whole: there nobody looks."""
        import lancedb
        import pyarrow as pa

        making = self._folder / _MAKING
        shutil.rmtree(making, ignore_errors=True)
        made = lancedb.connect(making).create_table(fresh, schema=self._schema())
        wanted = table.search().where(f"NOT ({_among(numbers)})").select([_NUMBER, _VECTOR])
        for batch in wanted.to_batches(limits.VECTORS_LOADED_AT_ONCE):
            made.add(pa.Table.from_batches([batch]).select([_NUMBER, _VECTOR]))
        made.optimize(cleanup_older_than=_AT_ONCE, delete_unverified=True)
        os.rename(making / f"{fresh}{_SUFFIX}", self._folder / f"{fresh}{_SUFFIX}")
        shutil.rmtree(making)

    def _search(
        self, name: str, query: vectors.Matrix, most: int, allowed: Collection[int] | None
    ) -> list[Nearest]:
        table = self._table(name)
        if table is None:
            return []
        asked = table.search(query, vector_column_name=_VECTOR).distance_type("dot")
        asked = asked.select([_NUMBER, "_distance"]).limit(most)
        if allowed is not None:
            asked = asked.where(_among(allowed), prefilter=True)
        if table.list_indices():
            asked = asked.nprobes(limits.LANCE_PROBES)
        found = asked.to_arrow()
        numbers, distances = found[_NUMBER].to_pylist(), found["_distance"].to_pylist()
        pairs = zip(numbers, distances, strict=True)
        near = [Nearest(number, 1.0 - distance) for number, distance in pairs]
        return sorted(near, key=lambda one: (-one.score, one.number))

    def _count(self, name: str) -> int:
        table = self._table(name)
        return 0 if table is None else int(table.count_rows())

    def _newest(self, name: str) -> int:
        table = self._table(name)
        if table is None:
            return -1
        if name in self._highest:
            return self._highest[name]
        newest = -1
        for batch in table.search().select([_NUMBER]).to_batches(limits.VECTORS_LOADED_AT_ONCE):
            newest = max(newest, int(np.max(batch[_NUMBER].to_numpy(), initial=-1)))
        self._highest[name] = newest
        return newest

    def _wipe(self, name: str) -> None:
        self._tables.clear()
        self._highest.clear()
        for path in self._folder.glob(f"{name}-*{_SUFFIX}" if name else f"*{_SUFFIX}"):
            shutil.rmtree(path)

    def _tidy_all(self) -> None:
        for name in list(self._tables):
            if self._puts.get(name):
                self._tidy(name)

    def _tidy(self, name: str) -> None:
        """One file instead of many; nothing of earlier versions stays."""
        table = self._table(name)
        if table is not None:
            self._index(table)
            table.optimize(cleanup_older_than=_AT_ONCE, delete_unverified=True)
        self._puts[name] = 0

    def _index(self, table: Any) -> None:
        from lancedb.index import IvfFlat

        rows = table.count_rows()
        if rows >= self._index_rows and not table.list_indices():
            parts = max(1, int(rows**0.5) // 2)
            table.create_index(_VECTOR, config=IvfFlat(distance_type="dot", num_partitions=parts))


def wipe_owner(folder: Path, owner: Owner) -> None:
    """Takes an owner's vectors of every model away, where nobody has the stores open: `folder`
    holds theirs."""
    for path in folder.glob(f"*/{_name(owner)}-*{_SUFFIX}"):
        shutil.rmtree(path)


def _name(owner: Owner) -> str:
    """A folder's name of anybody's names."""
    told = "\0".join(f"{len(part)}:{part}" for part in owner)
    return "v" + hashlib.sha256(told.encode()).hexdigest()[:40]


def _among(numbers: Collection[int]) -> str:
    """As SQL: numbers of ours, no text of anybody's."""
    return f"{_NUMBER} IN ({', '.join(str(int(number)) for number in sorted(numbers))})"

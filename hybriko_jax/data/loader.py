"""Packed rows as batches on a mesh; the state of the iteration is one row number."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from hybriko_jax.data.batch import Batch
from hybriko_jax.data.packing import Piece, Plan, pack, plan_epoch
from hybriko_jax.sharding import batch_sharding

_FOREVER = 1 << 40  # batches


class Documents(Protocol):
    """What rows are made of: a `prepare.Split`, or conversations."""

    @property
    def length_N(self) -> np.ndarray: ...
    @property
    def source_N(self) -> np.ndarray: ...
    def read(self, indices: list[int], /) -> list[np.ndarray]: ...


@dataclass(frozen=True, eq=False)
class Rows:
    """Every row of every epoch, by one number: the rows of epoch 0, then those of epoch 1, ...

    A row is a pure function of its number, so a run that is continued, on any number of devices
    or processes, reads on exactly where it stopped.
    """

    split: Documents
    weights: tuple[float, ...]
    seq_len: int
    seed: int
    pad_id: int

    @functools.lru_cache(maxsize=2)  # noqa: B019  (a few objects a process)
    def plan(self, epoch: int) -> Plan:
        s = self.split
        return plan_epoch(s.length_N, s.source_N, self.weights, self.seq_len, self.seed, epoch)

    def locate(self, row: int) -> tuple[int, int]:
        """(epoch, row of that epoch) of a row number."""
        epoch = 0
        while row >= (n := self._n_rows(epoch)):
            row, epoch = row - n, epoch + 1
        return epoch, row

    @functools.cache  # noqa: B019
    def _n_rows(self, epoch):
        return self.plan(epoch).n_rows

    def batch(self, numbers: Iterable[int]) -> Batch:
        """The rows with these numbers, read together."""
        return pack(self.pieces(numbers), self.seq_len, self.split.read, self.pad_id)

    def pieces(self, numbers: Iterable[int]) -> list[list[Piece]]:
        """Which documents, or parts of them, these rows hold."""
        places = [self.locate(n) for n in numbers]
        return [self.plan(epoch).pieces(r) for epoch, r in places]


def batches(rows: Rows, batch_size: int, mesh: Mesh, first_row: int = 0) -> Iterator[Batch]:
    """Endless batches from a row on, read ahead by threads and laid out over the mesh.

    Batch n holds rows first_row + n * batch_size and on, whatever the mesh. Each process reads
    only the rows of its own devices.
    """
    import grain

    sharding = batch_sharding(mesh)
    mine = sorted(
        {
            row
            for index in sharding.addressable_devices_indices_map((batch_size,)).values()
            for row in range(*index[0].indices(batch_size))  # type: ignore[index]
        }
    )

    def read(step: int) -> Batch:
        first = first_row + step * batch_size
        return rows.batch(first + r for r in mine)

    ahead = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
    for batch in grain.MapDataset.range(_FOREVER).map(read).to_iter_dataset(ahead):
        yield put(batch, mesh, batch_size)


def put(batch: Batch, mesh: Mesh, batch_size: int) -> Batch:
    """A batch of this process's rows, as arrays over the mesh."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(
        lambda a: jax.make_array_from_process_local_data(sharding, a, (batch_size, *a.shape[1:])),
        batch,
    )


def fixed_batches(rows: Rows, batch_size: int, mesh: Mesh, n: int) -> list[Batch]:
    """The first n batches of epoch 0, or fewer where it ends; the last is filled up with empty
    rows, of which nothing is predicted."""
    n_rows = min(rows.plan(0).n_rows, n * batch_size)
    fill = -n_rows % batch_size
    stacked = jax.tree.map(lambda a: np.pad(a, ((0, fill), (0, 0))), rows.batch(range(n_rows)))
    sharding = batch_sharding(mesh)
    return [
        jax.tree.map(
            lambda a, i=i: jax.make_array_from_callback(
                (batch_size, *a.shape[1:]),
                sharding,
                lambda index: a[i : i + batch_size][index],  # noqa: B023
            ),
            stacked,
        )
        for i in range(0, n_rows + fill, batch_size)
    ]

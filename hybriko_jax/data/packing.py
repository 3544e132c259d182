"""Documents into rows of a fixed length: which tokens stand in which row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hybriko_jax.data.batch import Batch

Piece = tuple[int, int, int]
"""(document, where it begins in the document, tokens)."""


@dataclass(frozen=True)
class Plan:
    """The packed rows of one epoch. Row r holds the pieces first_R[r] to first_R[r + 1] - 1."""

    first_R: np.ndarray
    """Index of each row's first piece; one entry more than rows."""
    document_P: np.ndarray
    """Which document a piece is of."""
    begin_P: np.ndarray
    """Where in the document the piece begins."""
    length_P: np.ndarray
    """Tokens of the piece."""

    @property
    def n_rows(self) -> int:
        return len(self.first_R) - 1

    def pieces(self, row: int) -> list[Piece]:
        of_row = slice(self.first_R[row], self.first_R[row + 1])
        columns = (self.document_P, self.begin_P, self.length_P)
        return list(zip(*(c[of_row].tolist() for c in columns), strict=True))

    def fill(self, seq_len: int) -> float:
        """Share of positions that hold a token."""
        return float(self.length_P.sum()) / (self.n_rows * seq_len)


def pack(
    rows: Sequence[Sequence[Piece]],
    seq_len: int,
    read: Callable[[list[int]], list[np.ndarray]],
    pad_id: int,
) -> Batch:
    """Rows filled with the tokens of their pieces.

    Args:
      read: token ids of the documents with these indices.
    """
    tokens_BL = np.full((len(rows), seq_len), pad_id, np.int32)
    positions_BL = np.zeros((len(rows), seq_len), np.int32)
    count_L = np.arange(seq_len, dtype=np.int32)
    documents = iter(read([document for row in rows for document, _, _ in row]))
    for tokens_L, positions_L, row in zip(tokens_BL, positions_BL, rows, strict=True):
        at = 0
        for _, begin, n in row:
            tokens_L[at : at + n] = next(documents)[begin : begin + n]
            positions_L[at : at + n] = count_L[:n]
            at += n
    return Batch(tokens_BL, positions_BL, positions_BL > 0)


def plan_epoch(
    length_N: np.ndarray,
    source_N: np.ndarray,
    weights: tuple[float, ...],
    seq_len: int,
    seed: int,
    epoch: int,
) -> Plan:
    """Rows of one epoch, a pure function of the arguments.

    A document longer than a row is cut into rows and a rest. The pieces are placed longest first
    into the fullest row that has room (best fit decreasing), so that few documents are cut and
    few positions stay empty. Which pieces share a row, and the order of rows, are drawn anew
    each epoch.

    Args:
      length_N: tokens of every document.
      source_N: its source.
      weights: passes over each source in an epoch; () is one each. The fraction of a weight is a
        random part of the source's documents.
      seq_len: L.
      seed, epoch: of the random draws.

    Source: Fewer truncations improve language modeling, arXiv:2404.10830.
    """
    rng = np.random.default_rng([seed, epoch])
    document_P, begin_P, length_P = _cut(_draw(source_N, weights, rng), length_N, seq_len)
    # Random among equals, then longest first.
    order = rng.permutation(len(length_P))
    order = order[np.argsort(-length_P[order], kind="stable")]
    row_P = np.empty(len(order), np.int64)
    row_P[order] = _best_fit(length_P[order].tolist(), seq_len)
    n_rows = int(row_P.max()) + 1 if len(row_P) else 0
    row_P = rng.permutation(n_rows)[row_P]
    by_row = np.lexsort((rng.random(len(row_P)), row_P))
    first_R = np.searchsorted(row_P[by_row], np.arange(n_rows + 1))
    return Plan(first_R, document_P[by_row], begin_P[by_row], length_P[by_row])


def _draw(source_N, weights, rng):
    """Indices of the documents of an epoch, repeated by their source's weight."""
    weight_N = np.asarray(weights, float)[source_N] if weights else np.ones(len(source_N))
    whole_N = np.floor(weight_N).astype(int)
    extra_N = rng.random(len(source_N)) < weight_N - whole_N
    return np.repeat(np.arange(len(source_N)), whole_N + extra_N)


def _cut(documents, length_N, seq_len):
    pieces = -(-length_N[documents] // seq_len)
    document_P = np.repeat(documents, pieces)
    nth_P = np.arange(len(document_P)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    begin_P = nth_P * seq_len
    return document_P, begin_P, np.minimum(length_N[document_P] - begin_P, seq_len)


def _best_fit(lengths: list[int], seq_len: int) -> list[int]:
    """Row of each piece, where pieces come longest first."""
    rows: list[int] = []
    with_room: list[list[int]] = [[] for _ in range(seq_len + 1)]  # rows by free positions
    nonempty = 0  # bit f is set if a row has f free positions
    n_rows = 0
    for length in lengths:
        fitting = nonempty >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = with_room[room].pop()
            if not with_room[room]:
                nonempty &= ~(1 << room)
        else:
            row, room = n_rows, seq_len
            n_rows += 1
        rows.append(row)
        room -= length
        if room:
            with_room[room].append(row)
            nonempty |= 1 << room
    return rows

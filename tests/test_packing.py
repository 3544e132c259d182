"""The plan of packed rows: all tokens once, few gaps, and a pure function of its arguments."""

import itertools

import numpy as np
import pytest

from hybriko_jax.data.packing import plan_epoch


def lengths(n=3000, seed=0, longest=4000):
    rng = np.random.default_rng(seed)
    return np.minimum(rng.lognormal(5.5, 1.2, n).astype(int) + 2, longest)


def plan(length_N, weights=(), seq_len=512, seed=0, epoch=0, sources=1):
    source_N = np.arange(len(length_N)) % sources
    return plan_epoch(length_N, source_N, weights, seq_len, seed, epoch)


def pieces(p):
    return sorted(zip(p.document_P, p.begin_P, p.length_P, strict=True))


def test_every_token_stands_in_one_row():
    length_N = lengths()
    p = plan(length_N)
    covered = [np.zeros(n, int) for n in length_N]
    for document, begin, n in pieces(p):
        covered[document][begin : begin + n] += 1
    assert all((c == 1).all() for c in covered)


def test_rows_hold_what_fits():
    p = plan(lengths())
    used_R = np.add.reduceat(p.length_P, p.first_R[:-1])
    assert used_R.max() <= 512 and used_R.min() > 0
    assert p.first_R[0] == 0 and p.first_R[-1] == len(p.length_P)


def test_only_long_documents_are_cut():
    length_N = lengths()
    cut = [d for d, begin, _ in pieces(plan(length_N)) if begin]
    assert set(cut) == set(np.flatnonzero(length_N > 512))


def test_few_positions_are_empty():
    assert plan(lengths()).fill(512) > 0.98


def test_is_a_pure_function():
    a, b = plan(lengths(), epoch=3), plan(lengths(), epoch=3)
    for x, y in zip(vars(a).values(), vars(b).values(), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("other", [{"seed": 1}, {"epoch": 1}])
def test_seeds_and_epochs_order_and_pack_anew(other):
    a, b = plan(lengths()), plan(lengths(), **other)
    assert pieces(a) == pieces(b)
    assert not np.array_equal(a.document_P, b.document_P)
    assert len(_sharing(a) & _sharing(b)) < 0.5 * len(_sharing(a))


def _sharing(p):
    """Which documents share a row."""
    return {frozenset(p.document_P[i:j]) for i, j in itertools.pairwise(p.first_R)}


def test_rows_are_not_sorted_by_length():
    p = plan(lengths())
    pieces_R = np.diff(p.first_R)
    halves = pieces_R[: p.n_rows // 2].mean(), pieces_R[p.n_rows // 2 :].mean()
    assert halves[0] == pytest.approx(halves[1], rel=0.2)


def test_weights_are_passes_over_a_source():
    n = 3000
    p = plan(lengths(n), weights=(2.0, 0.5, 0.0), sources=3)
    whole = p.begin_P == 0
    count_N = np.bincount(p.document_P[whole], minlength=n)
    assert (count_N[0::3] == 2).all() and (count_N[2::3] == 0).all()
    assert set(count_N[1::3]) == {0, 1}
    assert count_N[1::3].mean() == pytest.approx(0.5, abs=0.05)
    other = plan(lengths(n), weights=(2.0, 0.5, 0.0), sources=3, epoch=1)
    assert set(other.document_P[other.begin_P == 0]) != set(p.document_P[whole])


def test_a_single_token_document():
    p = plan(np.array([1, 512, 1]))
    assert p.n_rows == 2 and p.fill(512) == pytest.approx(514 / 1024)

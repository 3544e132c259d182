"""NF4: kernels of four bits a weight, with scales of eight.

A weight is one of 16 quantiles of a normal distribution, times the largest weight of its block of
64. The scales of the blocks are quantised in turn, less their mean, in blocks of 256 (double
quantisation). An `NF4` leaf stands in a tree of parameters in place of a 2-D kernel.

The format is bitsandbytes'. Its blocks run along the rows of PyTorch's layout (out, in), so that
everything here is of the transposed kernel. Letters: F out, D in, C a byte, of two weights;
S a block; N a block of blocks.

Sources: QLoRA, arXiv:2305.14314, section 3 and appendix E; the map of eight bits is of
arXiv:1511.04561, as bitsandbytes has it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from hybriko_jax.barrier import after
from hybriko_jax.errors import UserError
from hybriko_jax.sharding import AXIS_RULES, constrain

BLOCK = 64  # weights
NESTED_BLOCK = 256  # blocks
_CHUNK = 1 << 20  # weights that are quantised at a time; bounds the memory that it takes

VALUES = np.array(
    """
    -1 -0.6961928009986877 -0.5250730514526367 -0.39491748809814453
    -0.28444138169288635 -0.18477343022823334 -0.09105003625154495 0
    0.07958029955625534 0.16093020141124725 0.24611230194568634 0.33791524171829224
    0.44070982933044434 0.5626170039176941 0.7229568362236023 1
    """.split(),
    np.float32,
)
"""What the 16 codes of a weight stand for."""

# One power of ten after another, each of twice as many steps. Made in another way, every fourth
# would differ in its last bit, and no file would be read as it was meant.
_POSITIVE = np.array(
    """
    5.5000004e-7
    3.2500002e-6 7.75e-6
    0.000021249998 0.00004375 0.00006625 0.00008875
    0.00015625001 0.00026875004 0.00038125002 0.00049375003 0.0006062501 0.00071875006 0.00083125
    0.0009437501
    0.0012812499 0.00184375 0.00240625 0.00296875 0.0035312497 0.00409375 0.0046562497 0.0052187503
    0.00578125 0.00634375 0.00690625 0.00746875 0.00803125 0.00859375 0.009156249 0.00971875
    0.01140625 0.01421875 0.01703125 0.019843752 0.02265625 0.02546875 0.028281251 0.03109375
    0.03390625 0.036718752 0.03953125 0.042343747 0.04515625 0.04796875 0.05078125 0.05359375
    0.05640625 0.059218753 0.06203125 0.06484375 0.067656256 0.070468746 0.07328125 0.07609375
    0.07890625 0.08171876 0.08453125 0.08734375 0.09015625 0.092968754 0.09578126 0.09859375
    0.107031256 0.12109375 0.13515624 0.14921875 0.16328125 0.17734376 0.19140625 0.20546874
    0.21953125 0.23359375 0.24765624 0.26171875 0.27578127 0.28984374 0.30390626 0.31796873
    0.33203125 0.34609374 0.36015624 0.37421876 0.38828123 0.40234375 0.41640624 0.43046874
    0.44453126 0.45859373 0.47265625 0.4867187 0.50078124 0.5148437 0.5289062 0.54296875 0.5570313
    0.5710938 0.58515626 0.5992187 0.61328125 0.6273438 0.6414063 0.65546876 0.6695312 0.68359375
    0.6976563 0.7117188 0.72578126 0.7398437 0.75390625 0.7679688 0.78203124 0.79609376 0.8101562
    0.82421875 0.8382813 0.85234374 0.86640626 0.8804687 0.89453125 0.9085938 0.92265624 0.93671876
    0.9507812 0.96484375 0.9789063 0.99296874
    """.split(),
    np.float32,
)
NESTED_VALUES = np.concatenate([-_POSITIVE[::-1], np.zeros(1), _POSITIVE, np.ones(1)], dtype="f4")
"""What the 256 codes of a scale stand for."""


@flax.struct.dataclass
class NF4:
    """A quantised kernel_DF; `quantize` makes it."""

    codes_FC: Any
    """Two weights a byte, the first in the high bits; uint8, C = D / 2."""
    absmax_FS: Any
    """Codes of the blocks' scales, uint8; S = D / 64."""
    nested_absmax_N: Any
    """Scales of the scales, one to 256 of them in row-major order; float32."""
    nested_map: Any
    """What a scale's code stands for: NESTED_VALUES, or what a file has in their place; float32."""
    offset: Any
    """Mean of the scales, float32."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(D, F) of the kernel; of stacked ones (N, D, F)."""
        *N, F, C = self.codes_FC.shape
        return *N, 2 * C, F


def quantize(kernel_DF: Any) -> NF4:
    """A kernel as NF4, each number rounded to the nearest, as bitsandbytes does on load.

    Args:
      kernel_DF: NumPy or JAX array in the type that it is loaded in, since bitsandbytes quantises
        after the cast: float32, bfloat16 or float16.

    Returns:
      A leaf of NumPy arrays.

    Raises:
      UserError: D is no multiple of 64, or a weight is not finite.
    """
    kernel_FD = np.asarray(kernel_DF).T
    F, D = kernel_FD.shape
    if D % BLOCK:
        raise UserError(
            f"A kernel of {D} inputs and {F} outputs cannot be NF4: the inputs must be a multiple "
            f"of {BLOCK}, so that no block spans two rows. Keep this model in bfloat16."
        )
    codes_FC = np.empty((F, D // 2), np.uint8)
    absmax_FS = np.empty((F, D // BLOCK), np.float32)
    rows = max(1, _CHUNK // D)
    for start in range(0, F, rows):
        part = slice(start, start + rows)
        codes_FC[part], absmax_FS[part] = _quantize_blocks(kernel_FD[part])
    offset = absmax_FS.mean()
    codes_FS, nested_absmax_N = _quantize_absmax(absmax_FS - offset)
    return NF4(codes_FC, codes_FS, nested_absmax_N, NESTED_VALUES, offset)


def _quantize_blocks(kernel_FD):
    F, D = kernel_FD.shape
    blocks = kernel_FD.astype(np.float32).reshape(F, -1, BLOCK)
    absmax_FS = np.abs(blocks).max(-1)
    if not np.isfinite(absmax_FS).all():
        raise UserError(
            f"A kernel of {D} inputs holds NaN or infinite weights, which NF4 cannot hold. The "
            "checkpoint is damaged: copy it anew."
        )
    # In float32 and by the reciprocal, or else other codes than bitsandbytes' come out near ties.
    blocks *= 1 / np.maximum(absmax_FS, np.float32(1e-38))[..., None]
    codes = np.zeros(blocks.shape, np.uint8)
    # Fifteen comparisons of all weights take a tenth of the time of np.searchsorted.
    for middle in (VALUES[1:] + VALUES[:-1]) / 2:
        codes += blocks > middle
    codes = codes.reshape(F, D)
    return codes[:, 0::2] << 4 | codes[:, 1::2], absmax_FS


def _quantize_absmax(centred_FS):
    values = np.zeros(-(-centred_FS.size // NESTED_BLOCK) * NESTED_BLOCK, np.float32)
    values[: centred_FS.size] = centred_FS.reshape(-1)
    blocks = values.reshape(-1, NESTED_BLOCK)
    absmax_N = np.abs(blocks).max(-1)
    scaled = blocks / np.maximum(absmax_N, np.finfo(np.float32).tiny)[:, None]
    # The nearest; bitsandbytes' kernel for CPUs is off by one at times.
    codes = np.searchsorted((NESTED_VALUES[1:] + NESTED_VALUES[:-1]) / 2, scaled)
    codes_FS = codes.astype(np.uint8).reshape(-1)[: centred_FS.size].reshape(centred_FS.shape)
    return codes_FS, absmax_N


def dequantize(leaf: NF4, dtype: str = "float32") -> jax.Array:
    """kernel_FD, transposed: rows are outputs. Equal to bitsandbytes' bit for bit.

    Args:
      dtype: of the result; the products are float32 and rounded once.
    """
    return _interleaved(*_halves(leaf, dtype))


def product(
    x_BLD: jax.Array, leaf: NF4, dtype: str, axes: tuple[str, str] | None = None
) -> jax.Array:
    """x @ kernel, of a kernel that is frozen: the gradient is of x alone.

    The backward pass dequantises again, so that no dequantised kernel outlives its product.

    Args:
      x_BLD: any float dtype.
      dtype: of the operands of the products in both passes, "float32" or "bfloat16"; sums are
        float32.
      axes: the kernel's letters, in and out. If given, FSDP gathers the kernel as it is packed,
        and not the eight times as many bytes that it may find to gather later.

    Returns:
      y_BLF in float32.
    """
    return _product(x_BLD.astype(jnp.float32), leaf, dtype, axes)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _product(x_BLD, leaf, dtype, axes) -> Any:
    return _forward(x_BLD, leaf, dtype, axes)[0]


def _forward(x_BLD, leaf, dtype, axes):
    high_FC, low_FC = _halves(_gathered(after(x_BLD, leaf), axes), dtype)
    x_BLD = x_BLD.astype(dtype)
    # The weights of a byte stand next to each other in a row. Two products, of the halves as they
    # come, cost less than weaving them together: in bfloat16 on a CPU, a tenth.
    y_BLF = _einsum("BLC,FC->BLF", x_BLD[..., 0::2], high_FC)
    return y_BLF + _einsum("BLC,FC->BLF", x_BLD[..., 1::2], low_FC), leaf


def _backward(dtype, axes, leaf, g_BLF):
    halves = _halves(_gathered(after(g_BLF, leaf), axes), dtype)
    g_BLF = g_BLF.astype(dtype)
    return _interleaved(*(_einsum("BLF,FC->BLC", g_BLF, half_FC) for half_FC in halves)), None


_product.defvjp(_forward, _backward)


def _einsum(subscripts, x, y):
    return jnp.einsum(subscripts, x, y, preferred_element_type=jnp.float32)


def _halves(leaf, dtype):
    """The weights of the high bits and those of the low bits, (F, D / 2) each."""
    absmax_FS, (F, S) = _absmax(leaf), leaf.absmax_FS.shape
    codes = leaf.codes_FC.reshape(F, S, -1)

    def half(codes):
        weights = jnp.take(jnp.asarray(VALUES), codes, mode="clip") * absmax_FS[..., None]
        return weights.astype(dtype).reshape(F, -1)

    return half(codes >> 4), half(codes & 15)


def _absmax(leaf):
    (F, S), (N,) = leaf.absmax_FS.shape, leaf.nested_absmax_N.shape
    nested = jnp.broadcast_to(jnp.asarray(leaf.nested_absmax_N)[:, None], (N, NESTED_BLOCK))
    nested_FS = nested.reshape(-1)[: F * S].reshape(F, S)
    scaled_FS = jnp.take(jnp.asarray(leaf.nested_map), leaf.absmax_FS, mode="clip") * nested_FS
    # Changes nothing, but keeps a compiler from making one rounding of the product and the sum.
    scaled_FS = jnp.maximum(scaled_FS, np.finfo(np.float32).min)
    return scaled_FS + leaf.offset


def _interleaved(even, odd):
    return jnp.stack([even, odd], -1).reshape(*even.shape[:-1], -1)


def _gathered(leaf, axes):
    """The leaf, whole along the mesh axes that split the batch."""
    if axes is None:
        return leaf
    d, f = ("A" if _splits_batch(letter) else letter for letter in axes)
    return leaf.replace(
        codes_FC=constrain(leaf.codes_FC, f + d), absmax_FS=constrain(leaf.absmax_FS, f + d)
    )


def _splits_batch(letter):
    rules = dict(AXIS_RULES)
    return not set(rules[letter]).isdisjoint(rules["B"])


def with_axes(leaf: NF4, axes: Sequence[str | None]) -> NF4:
    """The leaf boxed with axis letters, for `sharding.tree_shardings`.

    Args:
      axes: letters of the kernel, in and out, after one of each axis along which kernels are
        stacked. Codes are split as the kernel is; what is small is whole everywhere.
    """
    *stack, d, f = axes
    boxed: Any = leaf
    return boxed.replace(
        codes_FC=nn.LogicallyPartitioned(leaf.codes_FC, (*stack, f, d)),
        absmax_FS=nn.LogicallyPartitioned(leaf.absmax_FS, (*stack, f, d)),
    )

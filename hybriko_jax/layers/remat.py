"""Activations that the backward pass computes again instead of keeping them."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax

from hybriko_jax.barrier import after


def recomputed(layer: nn.Module, x_BLD: jax.Array, *args: Any) -> Any:
    """layer(x_BLD, *args), of which only the arguments are kept for the backward pass.

    As nn.remat, but for XLA on a CPU, which drops nn.remat's barriers: it may then compute a layer
    again long before its gradient is there, and keep that.

    Args:
      layer: bound to its variables; the first of its results is an array of floats.
      x_BLD: floats, from which the whole layer is computed.
      args: trees of arrays, and None.

    Source: Training deep nets with sublinear memory cost, arXiv:1604.06174.
    """
    if layer.is_initializing():
        return layer(x_BLD, *args)
    apply = functools.partial(_apply, layer.clone(parent=None, name=None))
    rngs = {"dropout": layer.make_rng("dropout")} if layer.has_rng("dropout") else {}
    return _recomputed(apply, layer.variables, rngs, x_BLD, args)


def _apply(layer, variables, rngs, x_BLD, args):
    return layer.apply(variables, x_BLD, *args, rngs=rngs)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _recomputed(apply, variables, rngs, x_BLD, args) -> Any:
    return apply(variables, rngs, x_BLD, args)


def _forward(apply, *inputs):
    return apply(*inputs), inputs


def _backward(apply, inputs, gradients):
    variables, rngs, x_BLD, args = inputs
    x_BLD = after(gradients[0], x_BLD)
    _, pull_back = jax.vjp(apply, variables, rngs, x_BLD, args)
    return pull_back(gradients)


_recomputed.defvjp(_forward, _backward)

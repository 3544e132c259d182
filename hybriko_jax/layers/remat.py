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


def recomputed_loop(
    layer: nn.Module, frozen: Any, trained: Any, keys_N: Any, x_BLD: jax.Array, *args: Any
) -> jax.Array:
    """x_BLD after N layers that are alike, as `recomputed`; compiled once instead of N times.

    Only x_BLD and `trained` get gradients.

    Args:
      layer: unbound; its first result takes the place of x_BLD.
      frozen: the layers' parameters, stacked along a first axis.
      trained: the layers' other collections, stacked likewise.
      keys_N: of the layers' dropout; None drops nothing.
      args: trees of arrays, and None, the same for each layer.
    """
    return _loop(functools.partial(_apply_first, layer), frozen, trained, keys_N, x_BLD, args)


def _apply(layer, variables, rngs, x_BLD, args):
    return layer.apply(variables, x_BLD, *args, rngs=rngs)


def _apply_first(layer, frozen, trained, key, x_BLD, args):
    rngs = {} if key is None else {"dropout": key}
    return _apply(layer, {"params": frozen, **trained}, rngs, x_BLD, args)[0]


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


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _loop(apply, frozen, trained, keys_N, x_BLD, args) -> Any:
    return _loop_forward(apply, frozen, trained, keys_N, x_BLD, args)[0]


def _loop_forward(apply, frozen, trained, keys_N, x_BLD, args):
    def step(x_BLD, its):
        return apply(*its, x_BLD, args), x_BLD

    y_BLD, x_NBLD = jax.lax.scan(step, x_BLD, (frozen, trained, keys_N))
    return y_BLD, (frozen, trained, keys_N, x_NBLD, args)


def _loop_backward(apply, residuals, dy_BLD):
    frozen, trained, keys_N, x_NBLD, args = residuals

    def step(dy_BLD, its):
        frozen, trained, key, x_BLD = its
        _, pull_back = jax.vjp(lambda t, x: apply(frozen, t, key, x, args), trained, x_BLD)
        d_trained, dx_BLD = pull_back(dy_BLD)
        return dx_BLD, d_trained

    inputs = frozen, trained, keys_N, x_NBLD
    dx_BLD, d_trained = jax.lax.scan(step, dy_BLD, inputs, reverse=True)
    return None, d_trained, None, dx_BLD, None


_loop.defvjp(_loop_forward, _loop_backward)

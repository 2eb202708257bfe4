# ruff: noqa: PLW0108 (the lambdas look torch up late: naming torch.tanh itself would import it)
"""The activations: one registry entry each, from which everything else about an activation follows.

Function and derivative are elementwise. The kernels work in place on a stack of runs (engine/torch) and must give the
bits that autograd gives a run alone; an activation without kernels of its own is differentiated by autograd there,
which is slower and right.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from mlpexp.nn import activation_formulas as formulas
from mlpexp.nn.lazy_torch import F, Tensor, torch
from mlpexp.runtime.registry import Registry


@dataclass(frozen=True, kw_only=True)
class Activation:
    """One activation.

    Attributes:
        function: x -> h, any shape.
        derivative: (x, h) -> dh/dx, the same shape, written from the input `x` or the output `h`, whichever is cheaper.
        gain: what a weight's standard deviation is multiplied by to keep a signal's size, as in
            `torch.nn.init.calculate_gain`; where torch gives none, 1 / sqrt(E[f(z)^2]) for z ~ N(0, 1).
        steepest: the largest |dh/dx|; a unit counts as saturated where its slope is a small share of it.
        kinks: inputs at which a derivative of first or second order, or the function as torch computes it, jumps;
            finite differences across them mean nothing.
        forward_: (x, h) writes f(x) into h; h may be x itself unless `reads_input`.
        backward_: (gradient, x, h) turns dL/dh into dL/dx in place; h may be overwritten.
        reads_input: `backward_`, or the derivative of `compiled`, reads x, so h must not overwrite it.
        compiled: function and derivative for the compiled engine, made from the operations `v` of
            `engine/compiled/elementary.py`, on which they must rely alone; None: stacks with it are trained by torch.
        key: the key of the model's configuration that only this activation reads, e.g. `negative_slope`; its default
            there is the value of this entry.
        family: makes the activation for another value of that key.
        gated: a unit has two values u and v of the dense layer below and is u * function(v) (`layers.Gate`); everything
            else here is about v -> function(v).
    """

    function: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor, Tensor], Tensor]
    gain: float
    steepest: float = 1.0
    kinks: tuple[float, ...] = ()
    forward_: Callable[[Tensor, Tensor], Any] | None = None
    backward_: Callable[[Tensor, Tensor, Tensor], Any] | None = None
    reads_input: bool = True
    compiled: Callable[[Any], tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]] | None = None
    key: str | None = None
    family: Callable[[float], Activation] | None = None
    gated: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """`key`, as other registries have it."""
        return () if self.key is None else (self.key,)

    def with_value(self, value: float) -> Activation:
        """The activation with another value of its key."""
        if self.family is None:
            raise ValueError("this activation has no key of its own")
        return self.family(value)

    def kernels(self) -> tuple[Callable[[Tensor, Tensor], Any], Callable[[Tensor, Tensor, Tensor], Any]]:
        """`forward_` and `backward_`, by autograd where the entry has none."""
        return self.forward_ or self._forward, self.backward_ or self._backward

    def _forward(self, x: Tensor, h: Tensor) -> None:
        h.copy_(self.function(x))

    def _backward(self, gradient: Tensor, x: Tensor, h: Tensor) -> None:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            gradient.copy_(torch.autograd.grad(self.function(leaf), leaf, gradient)[0])


@cache
def _leaky_relu(slope: float) -> Activation:
    return Activation(
        function=lambda x: F.leaky_relu(x, slope),
        derivative=lambda x, h: torch.where(x > 0, torch.ones_like(x), slope),
        gain=math.sqrt(2 / (1 + slope**2)),
        steepest=max(1.0, slope),
        kinks=(0.0,),
        forward_=lambda x, h: torch.ops.aten.leaky_relu.out(x, slope, out=h),
        backward_=lambda g, x, h: torch.ops.aten.leaky_relu_backward.grad_input(g, h, slope, True, grad_input=g),
        reads_input=False,
        compiled=formulas.compiled_leaky_relu if slope == formulas.LEAK else None,
        key="negative_slope",
        family=_leaky_relu,
    )


@cache
def _elu(alpha: float) -> Activation:
    # E[f(z)^2] over z < 0 is alpha^2 (exp(2) Phi(-2) - 2 exp(1/2) Phi(-1) + 1/2), over z > 0 it is 1/2
    tails = [0.5 * math.erfc(z / math.sqrt(2)) for z in (1, 2)]
    negative = math.exp(2) * tails[1] - 2 * math.exp(0.5) * tails[0] + 0.5
    return Activation(
        function=lambda x: F.elu(x, alpha),
        derivative=lambda x, h: torch.where(x > 0, torch.ones_like(x), h + alpha),
        gain=(0.5 + alpha**2 * negative) ** -0.5,
        steepest=max(1.0, alpha),
        kinks=(0.0,),  # of its slope
        forward_=lambda x, h: torch.ops.aten.elu.out(x, alpha, out=h),
        backward_=lambda g, x, h: torch.ops.aten.elu_backward.grad_input(g, alpha, 1, 1, False, x, grad_input=g),
        compiled=formulas.compiled_elu if alpha == 1 else None,
        key="alpha",
        family=_elu,
    )


ACTIVATIONS: Registry[Activation] = Registry(
    "activation",
    {
        "tanh": Activation(
            function=lambda x: torch.tanh(x),
            derivative=lambda x, h: 1 - h * h,
            gain=5 / 3,
            forward_=lambda x, h: torch.tanh(x, out=h),
            backward_=lambda g, x, h: torch.ops.aten.tanh_backward.grad_input(g, h, grad_input=g),
            reads_input=False,
            compiled=lambda v: (v.tanh, lambda x, h: v.fma(0.0 - h, h, 1.0)),
        ),
        "relu": Activation(
            function=lambda x: F.relu(x),
            derivative=lambda x, h: (x > 0).to(x.dtype),
            gain=math.sqrt(2),
            kinks=(0.0,),
            forward_=lambda x, h: torch.clamp_min(x, 0, out=h),
            backward_=lambda g, x, h: torch.ops.aten.threshold_backward.grad_input(g, h, 0, grad_input=g),
            reads_input=False,
            compiled=lambda v: (lambda x: v.where(x < 0.0, 0.0, x), lambda x, h: v.where(h > 0.0, 1.0, 0.0)),
        ),
        "leaky_relu": _leaky_relu(formulas.LEAK),
        "sigmoid": Activation(
            function=lambda x: torch.sigmoid(x),
            derivative=lambda x, h: h * (1 - h),
            gain=1.0,
            steepest=0.25,
            forward_=lambda x, h: torch.sigmoid(x, out=h),
            backward_=lambda g, x, h: torch.ops.aten.sigmoid_backward.grad_input(g, h, grad_input=g),
            reads_input=False,
            compiled=lambda v: (v.sigmoid, lambda x, h: h * (1.0 - h)),
        ),
        "gelu": Activation(
            function=lambda x: F.gelu(x),
            derivative=formulas.gelu_derivative,
            gain=1.5335,
            steepest=1.13,
            forward_=lambda x, h: torch.ops.aten.gelu.out(x, out=h),
            backward_=lambda g, x, h: torch.ops.aten.gelu_backward.grad_input(g, x, grad_input=g),
            compiled=lambda v: (
                lambda x: x * v.normal_cdf(x),
                lambda x, h: v.fma(x, v.normal_pdf(x), v.normal_cdf(x)),
            ),
        ),
        "silu": Activation(
            function=lambda x: F.silu(x),
            derivative=formulas.silu_derivative,
            gain=1.6765,
            steepest=1.1,
            forward_=lambda x, h: torch.ops.aten.silu.out(x, out=h),
            backward_=lambda g, x, h: torch.ops.aten.silu_backward.grad_input(g, x, grad_input=g),
            compiled=lambda v: (
                lambda x: x * v.sigmoid(x),
                lambda x, h: v.sigmoid(x) * v.fma(x, 1.0 - v.sigmoid(x), 1.0),
            ),
        ),
        "elu": _elu(1.0),  # torch's default
        "softplus": Activation(
            function=lambda x: F.softplus(x),
            # torch's softplus is the identity beyond 20, so its slope there is exactly 1
            derivative=lambda x, h: torch.where(x > 20, 1.0, torch.sigmoid(x)),
            gain=1.0419,
            kinks=(20.0,),
            forward_=lambda x, h: torch.ops.aten.softplus.out(x, out=h),
            backward_=lambda g, x, h: torch.ops.aten.softplus_backward.grad_input(g, x, 1.0, 20.0, grad_input=g),
            compiled=lambda v: (v.softplus, lambda x, h: v.where(x > 20.0, 1.0, v.sigmoid(x))),
        ),
        "sine": Activation(
            function=lambda x: torch.sin(x),
            derivative=lambda x, h: torch.cos(x),
            gain=1.5209,
            forward_=lambda x, h: torch.sin(x, out=h),
            # autograd multiplies by the cosine; h is not needed any more when the backward pass arrives
            backward_=lambda g, x, h: g.mul_(torch.cos(x, out=h)),
            compiled=lambda v: (v.sin, lambda x, h: v.cos(x)),
        ),
        "mish": Activation(
            function=lambda x: F.mish(x),
            derivative=formulas.mish_derivative,
            gain=1.48685,
            steepest=1.0885,
            forward_=lambda x, h: torch.ops.aten.mish.out(x, out=h),
            backward_=lambda g, x, h: g.copy_(torch.ops.aten.mish_backward(g, x)),
            compiled=formulas.compiled_mish,
        ),
        "selu": Activation(
            function=lambda x: F.selu(x),
            derivative=lambda x, h: torch.where(x > 0, formulas.SELU_SCALE, h + formulas.SELU_STEEPEST),
            gain=3 / 4,
            steepest=formulas.SELU_STEEPEST,
            kinks=(0.0,),
            forward_=lambda x, h: torch.ops.aten.elu.out(x, formulas.SELU_ALPHA, formulas.SELU_SCALE, 1, out=h),
            backward_=lambda g, x, h: torch.ops.aten.elu_backward.grad_input(
                g, formulas.SELU_ALPHA, formulas.SELU_SCALE, 1, False, x, grad_input=g
            ),
            compiled=formulas.compiled_selu,
        ),
        "hardtanh": Activation(
            function=lambda x: F.hardtanh(x),
            derivative=lambda x, h: (h.abs() < 1).to(x.dtype),
            gain=1.3920,
            kinks=(-1.0, 1.0),
            forward_=lambda x, h: torch.ops.aten.hardtanh.out(x, out=h),
            backward_=lambda g, x, h: torch.ops.aten.hardtanh_backward.grad_input(g, h, -1, 1, grad_input=g),
            reads_input=False,
            compiled=lambda v: (
                lambda x: v.where(x > 1.0, 1.0, v.where(x < -1.0, -1.0, x)),
                lambda x, h: v.where(v.absolute(h) < 1.0, 1.0, 0.0),
            ),
        ),
        "relu6": Activation(
            function=lambda x: F.relu6(x),
            derivative=lambda x, h: ((h > 0) & (h < 6)).to(x.dtype),
            gain=math.sqrt(2),
            kinks=(0.0, 6.0),
            forward_=lambda x, h: torch.ops.aten.hardtanh.out(x, 0, 6, out=h),
            backward_=lambda g, x, h: torch.ops.aten.hardtanh_backward.grad_input(g, h, 0, 6, grad_input=g),
            reads_input=False,
            compiled=lambda v: (
                lambda x: v.where(x > 6.0, 6.0, v.where(x < 0.0, 0.0, x)),
                lambda x, h: v.where(h > 0.0, v.where(h < 6.0, 1.0, 0.0), 0.0),
            ),
        ),
        "softsign": Activation(
            function=lambda x: F.softsign(x),
            derivative=lambda x, h: (1 - h.abs()) ** 2,
            gain=2.3374,
            kinks=(0.0,),  # of its slope's slope
            compiled=formulas.compiled_softsign,
        ),
        "gelu_tanh": Activation(
            function=lambda x: F.gelu(x, approximate="tanh"),
            derivative=formulas.gelu_tanh_derivative,
            gain=1.5336,
            steepest=1.13,
            forward_=lambda x, h: torch.ops.aten.gelu.out(x, approximate="tanh", out=h),
            backward_=lambda g, x, h: torch.ops.aten.gelu_backward.grad_input(g, x, approximate="tanh", grad_input=g),
            compiled=formulas.compiled_gelu_tanh,
        ),
        "identity": Activation(
            function=lambda x: x,
            derivative=lambda x, h: torch.ones_like(x),
            gain=1.0,
            forward_=lambda x, h: h.copy_(x),  # a copy onto itself costs nothing
            backward_=lambda g, x, h: None,
            reads_input=False,
            compiled=lambda v: (lambda x: x, lambda x, h: v.full(1.0)),
        ),
    },
)

# gated linear units (Dauphin et al. 2017; Shazeer 2020); the product has the second moment of the gate, u ~ N(0, 1)
for _name, _gate, _gain in (("glu", "sigmoid", 1.8462), ("swiglu", "silu", 1.6765)):
    ACTIVATIONS.register(_name, replace(ACTIVATIONS[_gate], gain=_gain, compiled=None, gated=True))

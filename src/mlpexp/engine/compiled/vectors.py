"""Vectors of 16 float32 for numba.

numba compiles plain loops to vector instructions only where LLVM finds out that it may. So this file defines a numba
type `Vector` (16 numbers, whatever the processor's own vectors are: LLVM splits it where they are shorter) and the
operations on it. All other files of the engine but `matrix_kernels.py` are plain numba on top of it:

    v = load(m, i)             # m[i : i + 16]
    store(m, i, v * 2.0 + w)   # numbers beside a vector stand for 16 equal ones
    where(v > 0.0, v, w)

Every operation is rounded as IEEE 754 says, and fused multiply-adds are written out (`fma`), so that results do not
depend on the length of the machine's vectors, nor on what the compiler merges.

How it is done: `intrinsic` gives numba a function by its LLVM code, which llvmlite's `IRBuilder` writes; see "Low-level
extension API" in numba's manual.
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

LINE = 16  # numbers in a Vector; rows in memory are padded to it

F32, I32 = ir.FloatType(), ir.IntType(32)
VF32, VI32, VBOOL = ir.VectorType(F32, LINE), ir.VectorType(I32, LINE), ir.VectorType(ir.IntType(1), LINE)


# --- Function pointers: what compiled functions take as arguments ---

MEMORY = types.float32[::1]
PRODUCT = types.void(MEMORY, *[types.int64] * 12)  # of `product`
LOOP = types.void(MEMORY, *[types.int64] * 4)  # of an activation's loops
# of an optimizer's step
UPDATE = types.void(
    MEMORY, types.int64, types.int64, types.int64, types.float64, types.float64, types.float64[::1], types.int64
)


# --- The type and its operations ---


class Vector(types.Type):
    """LINE float32."""


class Mask(types.Type):
    """LINE truth values."""


vector, mask = Vector("vector"), Mask("mask")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, VF32)


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, VBOOL)


def broadcast(builder: Any, scalar: Any, kind: Any = VF32) -> Any:
    """A vector whose elements are all `scalar`."""
    first_element = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, I32(0))
    return builder.shuffle_vector(
        first_element, first_element, ir.Constant(ir.VectorType(I32, kind.count), [0] * kind.count)
    )


def _as_vectors(context: Any, builder: Any, kinds: Any, values: Any) -> list[Any]:
    """The operands as vectors; numbers are converted to float32 and broadcast."""
    return [
        value if kind in (vector, mask) else broadcast(builder, context.cast(builder, value, kind, types.float32))
        for kind, value in zip(kinds, values, strict=True)
    ]


def _define(emit: Callable[..., Any], result: Any = vector) -> Any:
    """A numba function of one, two or three vectors or numbers.

    Args:
        emit: writes its LLVM code: (builder, *vectors) -> result.
    """

    def code(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        return emit(builder, *_as_vectors(context, builder, sig.args, values))

    def unary(typing, x):
        return result(x), code

    def binary(typing, x, y):
        return result(x, y), code

    def ternary(typing, x, y, z):
        return result(x, y, z), code

    return intrinsic((unary, binary, ternary)[emit.__code__.co_argcount - 2])


def _overload(function: Any, emit: Callable[..., Any], result: Any = vector) -> None:
    """Make a Python operator work on vectors, and on a vector and a number."""

    @infer_global(function)
    class _Typed(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            return signature(result, *args) if vector in args else None

    def code(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        return emit(builder, *_as_vectors(context, builder, sig.args, values))

    for kinds in ((Vector, Vector), (Vector, types.Number), (types.Number, Vector)):
        lower_builtin(function, *kinds)(code)


_overload(operator.add, lambda b, x, y: b.fadd(x, y))
_overload(operator.sub, lambda b, x, y: b.fsub(x, y))
_overload(operator.mul, lambda b, x, y: b.fmul(x, y))
_overload(operator.truediv, lambda b, x, y: b.fdiv(x, y))
_overload(operator.lt, lambda b, x, y: b.fcmp_ordered("<", x, y), mask)  # false where one of them is NaN
_overload(operator.gt, lambda b, x, y: b.fcmp_ordered(">", x, y), mask)
_overload(operator.eq, lambda b, x, y: b.fcmp_ordered("==", x, y), mask)


def call_llvm(builder: Any, name: str, *args: Any) -> Any:
    """Call LLVM's own function of this name on vectors."""
    kind = args[0].type
    function = ir.FunctionType(kind, [kind] * len(args))
    name = f"llvm.{name}.v{kind.count}f32"
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), args)


def _bits(builder: Any, x: Any) -> Any:
    return builder.bitcast(x, VI32)


def _all(number: int) -> Any:
    return ir.Constant(VI32, [number] * LINE)


fma = _define(lambda b, x, y, z: call_llvm(b, "fma", x, y, z))  # x * y + z, rounded once
sqrt = _define(lambda b, x: call_llvm(b, "sqrt", x))
absolute = _define(lambda b, x: call_llvm(b, "fabs", x))
copysign = _define(lambda b, x, y: call_llvm(b, "copysign", x, y))  # |x| with the sign of y
full = _define(lambda b, x: x)  # a vector of equal numbers
where = _define(lambda b, m, x, y: b.select(m, x, y))
# whether x is larger than y, or x is NaN and y is a number: as argmax orders them
exceeds = _define(lambda b, x, y: b.and_(b.fcmp_unordered(">", x, y), b.fcmp_ordered("ord", y, y)), mask)
# 2 ** n, of n + 1.5 * 2 ** 23 + 127: the sum's last bits are the exponent's
power_of_two = _define(lambda b, x: b.bitcast(b.shl(_bits(b, x), _all(23)), VF32))
# x with its sign changed where n is odd, of n + 1.5 * 2 ** 23
flip_if_odd = _define(lambda b, x, n: b.bitcast(b.xor(_bits(b, x), b.shl(_bits(b, n), _all(31))), VF32))


def _exponent(builder: Any, x: Any) -> Any:
    above = builder.sub(_bits(builder, x), _all(0x3F3504F3))  # the bits of sqrt(1/2)
    return builder.sitofp(builder.ashr(above, _all(23)), VF32)


exponent = _define(_exponent)  # n of x = 2 ** n * y with sqrt(1/2) <= y < sqrt(2)


def _halving_sum(builder: Any, x: Any) -> Any:
    n = LINE
    while n > 1:
        n //= 2
        half = ir.VectorType(I32, n)
        high = builder.shuffle_vector(x, x, ir.Constant(half, list(range(n, 2 * n))))
        x = builder.fadd(builder.shuffle_vector(x, x, ir.Constant(half, list(range(n)))), high)
    return builder.extract_element(x, I32(0))


total = _define(_halving_sum, types.float32)  # the sum of the elements, added by halves


def address(context: Any, builder: Any, kind: Any, array: Any, i: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [i]), VF32.as_pointer())


@intrinsic
def load(typing, m, i):
    """m[i : i + LINE] of a one-dimensional float32 array."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(address(context, builder, sig.args[0], *args), align=4)

    return vector(m, types.int64), code


@intrinsic
def store(typing, m, i, x):
    """m[i : i + LINE] = x."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        (x,) = _as_vectors(context, builder, sig.args[2:], args[2:])
        builder.store(x, address(context, builder, sig.args[0], *args[:2]), align=4)
        return context.get_dummy_value()

    return types.void(m, types.int64, x), code

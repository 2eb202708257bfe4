"""Vectors of 16 float32 for numba, and the two kernels that need registers: a matrix product and a transpose.

numba compiles plain loops to vector instructions only where LLVM finds out that it may, and never keeps a tile of sums
in registers. So this file defines a numba type `Vector` (16 numbers, whatever the processor's own vectors are: LLVM
splits it where they are shorter), the operations on it, and `product`, whose inner loop holds 12 x 2 vectors of sums.
All other files of the engine are plain numba on top of it:

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

import llvmlite.binding as llvm
from llvmlite import ir
from numba import config, njit, types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

LINE = 16  # numbers in a Vector; rows in memory are padded to it

FEATURES = config.CPU_FEATURES or llvm.get_host_cpu_features().flatten()
if config.CPU_NAME:  # a build for another processor, as the tests make
    FEATURES = config.CPU_FEATURES or ""
LANES = 16 if "+avx512f" in FEATURES else 8 if "+avx2" in FEATURES else 4  # numbers in the machine's vectors
TILE_ROWS = 12 if LANES == 16 or "+neon" in FEATURES else 6  # rows x 2 vectors of sums fill the registers

F32, I32, I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
VF32, VI32, VBOOL = ir.VectorType(F32, LINE), ir.VectorType(I32, LINE), ir.VectorType(ir.IntType(1), LINE)


# --- Function pointers: what compiled functions take as arguments ---

MEMORY = types.float32[::1]
PRODUCT = types.void(MEMORY, *[types.int64] * 12)  # of `product`
SIGNATURES = {"product": PRODUCT}
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


def _broadcast(builder: Any, scalar: Any, kind: Any = VF32) -> Any:
    """A vector whose elements are all `scalar`."""
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, I32(0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(I32, kind.count), [0] * kind.count))


def _as_vectors(context: Any, builder: Any, kinds: Any, values: Any) -> list[Any]:
    """The operands as vectors; numbers are converted to float32 and broadcast."""
    return [
        value if kind in (vector, mask) else _broadcast(builder, context.cast(builder, value, kind, types.float32))
        for kind, value in zip(kinds, values, strict=True)
    ]


def _define(emit: Callable[..., Any], result: Any = vector) -> Any:
    """A numba function of one, two or three vectors or numbers.

    Args:
        emit: writes its LLVM code: (builder, *vectors) -> result.
    """

    def code(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        return emit(builder, *_as_vectors(context, builder, sig.args, values))

    def one(typing, x):
        return result(x), code

    def two(typing, x, y):
        return result(x, y), code

    def three(typing, x, y, z):
        return result(x, y, z), code

    return intrinsic((one, two, three)[emit.__code__.co_argcount - 2])


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


def _llvm(builder: Any, name: str, *args: Any) -> Any:
    """Call LLVM's own function of this name on vectors."""
    kind = args[0].type
    function = ir.FunctionType(kind, [kind] * len(args))
    name = f"llvm.{name}.v{kind.count}f32"
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), args)


def _bits(builder: Any, x: Any) -> Any:
    return builder.bitcast(x, VI32)


def _all(number: int) -> Any:
    return ir.Constant(VI32, [number] * LINE)


fma = _define(lambda b, x, y, z: _llvm(b, "fma", x, y, z))  # x * y + z, rounded once
sqrt = _define(lambda b, x: _llvm(b, "sqrt", x))
absolute = _define(lambda b, x: _llvm(b, "fabs", x))
copysign = _define(lambda b, x, y: _llvm(b, "copysign", x, y))  # |x| with the sign of y
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


def _address(context: Any, builder: Any, kind: Any, array: Any, i: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [i]), VF32.as_pointer())


@intrinsic
def load(typing, m, i):
    """m[i : i + LINE] of a one-dimensional float32 array."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(_address(context, builder, sig.args[0], *args), align=4)

    return vector(m, types.int64), code


@intrinsic
def store(typing, m, i, x):
    """m[i : i + LINE] = x."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        (x,) = _as_vectors(context, builder, sig.args[2:], args[2:])
        builder.store(x, _address(context, builder, sig.args[0], *args[:2]), align=4)
        return context.get_dummy_value()

    return types.void(m, types.int64, x), code


# --- Matrix product ---


def _tile_function(module: Any, num_rows: int, num_vectors: int) -> Any:
    """The LLVM function C[r, j] = start[r] + sum_k A(r, k) B[k, j] of a tile whose sums stay in registers.

    It takes pointers to A, B, C and start; the steps in A from row to row and from k to k, in B from k to k, in C and
    in `start` from row to row; and the number of ks, which is not 0.
    """
    kind, pointer = ir.VectorType(F32, LANES), F32.as_pointer()
    name = f"mlpexp_tile_{num_rows}x{num_vectors}"
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [pointer] * 4 + [I64] * 6), name)
    function.linkage = "linkonce_odr"
    for attribute in ("noinline", "nounwind"):
        function.attributes.add(attribute)
    for argument in function.args[:4]:
        argument.add_attribute("noalias")
    A, B, C, start, a_row, a_k, b_k, c_row, start_row, depth = function.args
    b = ir.IRBuilder(function.append_basic_block())

    def part(address: Any, n: int) -> Any:
        return b.bitcast(b.gep(address, [I64(n * LANES)]), kind.as_pointer())

    # without this empty instruction LLVM would compute each row's address from the one before, a chain of additions
    opaque = ir.InlineAsm(ir.FunctionType(I64, [I64]), "", "=r,0")
    rows = [I64(0)] + [b.call(opaque, [b.mul(I64(r), a_row)]) for r in range(1, num_rows)]
    starts = [_broadcast(b, b.load(b.gep(start, [b.mul(I64(r), start_row)])), kind) for r in range(num_rows)]
    before, loop, end = b.block, b.append_basic_block(), b.append_basic_block()
    b.branch(loop)

    b.position_at_end(loop)
    left, at_a, at_b = b.phi(I64), b.phi(pointer), b.phi(pointer)
    sums = [[b.phi(kind) for _ in range(num_vectors)] for _ in range(num_rows)]
    vectors = [b.load(part(at_b, n), align=4) for n in range(num_vectors)]
    new_sums = []
    for r in range(num_rows):
        x = _broadcast(b, b.load(b.gep(at_a, [rows[r]])), kind)
        new_sums.append([_llvm(b, "fma", x, vectors[n], sums[r][n]) for n in range(num_vectors)])
    turns = [(left, depth, b.sub(left, I64(1))), (at_a, A, b.gep(at_a, [a_k])), (at_b, B, b.gep(at_b, [b_k]))]
    turns += [(sums[r][n], starts[r], new_sums[r][n]) for r in range(num_rows) for n in range(num_vectors)]
    for phi, first, following in turns:
        phi.add_incoming(first, before)
        phi.add_incoming(following, loop)
    b.cbranch(b.icmp_unsigned("!=", turns[0][2], I64(0)), loop, end)

    b.position_at_end(end)
    for r in range(num_rows):
        row = b.gep(C, [b.mul(I64(r), c_row)])
        for n in range(num_vectors):
            b.store(new_sums[r][n], part(row, n), align=4)
    b.ret_void()
    return function


@intrinsic
def _tile(typing, m, rows, vectors, depth, a, a_row, a_k, b, b_k, c, c_row, start, start_row):
    """The tile function for this number of rows, up to TILE_ROWS, and of the machine's vectors, 1 or 2."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        rows, vectors, depth, a, a_row, a_k, b, b_k, c, c_row, start, start_row = args[1:]
        operands = [builder.gep(data, [offset]) for offset in (a, b, c, start)]
        operands += [a_row, a_k, b_k, c_row, start_row, depth]
        done = builder.append_basic_block()
        switch = builder.switch(builder.add(builder.mul(rows, I64(2)), vectors), done)
        for num_rows in range(1, TILE_ROWS + 1):
            for num_vectors in (1, 2):
                case = builder.append_basic_block()
                switch.add_case(I64(2 * num_rows + num_vectors), case)
                builder.position_at_end(case)
                builder.call(_tile_function(builder.module, num_rows, num_vectors), operands)
                builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(m, *[types.int64] * 12), code


@njit(nogil=True)
def product(m, rows, width, depth, a, a_row, a_k, b, b_k, c, c_row, start, start_row):
    """m[c + r c_row + j] = m[start + r start_row] + sum_k m[a + r a_row + k a_k] m[b + k b_k + j].

    For r < rows, j < width (whole LINEs), k < depth (not 0), summed in the order of k. A is read number by number and
    so may lie in any layout, transposed or not; B, C and C's rows lie along the vectors.
    """
    blocks = (rows + TILE_ROWS - 1) // TILE_ROWS
    j = 0
    while j < width:
        vectors = 2 if width - j >= 2 * LANES else 1
        r = 0
        for i in range(blocks):  # of nearly equal height
            count = (rows - r + blocks - i - 1) // (blocks - i)
            _tile(
                m, count, vectors, depth, a + r * a_row, a_row, a_k, b + j, b_k, c + r * c_row + j, c_row,
                start + r * start_row, start_row,
            )  # fmt: skip
            r += count
        j += vectors * LANES


# --- Transpose ---


@intrinsic
def _transpose_block(typing, m, source, source_row, target, target_row):
    """m[target + j target_row + i] = m[source + i source_row + j] for i, j < LINE."""

    def code(context: Any, b: Any, sig: Any, args: Any) -> Any:
        array, source, source_row, target, target_row = args

        def row_address(start: Any, step: Any, i: int) -> Any:
            return _address(context, b, sig.args[0], array, b.add(start, b.mul(I64(i), step)))

        rows = [b.load(row_address(source, source_row, i), align=4) for i in range(LINE)]
        width = 1
        while width < LINE:  # swap the blocks of this width that lie off the diagonal
            low = ir.Constant(VI32, [j if not j & width else LINE + j - width for j in range(LINE)])
            high = ir.Constant(VI32, [j + width if not j & width else LINE + j for j in range(LINE)])
            for i in range(LINE):
                if not i & width:
                    pair = rows[i], rows[i + width]
                    rows[i], rows[i + width] = b.shuffle_vector(*pair, low), b.shuffle_vector(*pair, high)
            width *= 2
        for j in range(LINE):
            b.store(rows[j], row_address(target, target_row, j), align=4)
        return context.get_dummy_value()

    return types.void(m, *[types.int64] * 4), code


@njit(nogil=True)
def transpose(m, rows, columns, source, source_row, target, target_row):
    """m[target + j target_row + i] = m[source + i source_row + j]; rows and columns in whole LINEs."""
    for i in range(0, rows, LINE):
        for j in range(0, columns, LINE):
            _transpose_block(m, source + i * source_row + j, source_row, target + j * target_row + i, target_row)

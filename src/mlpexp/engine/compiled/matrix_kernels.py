"""The two kernels of the compiled engine that need the machine's registers: a matrix product and a transpose.

numba never keeps a tile of sums in registers. The inner loop of `product`, written in LLVM code, holds 12 x 2 vectors
of them. See `vectors.py` for how LLVM code becomes a function of numba.
"""

from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import config, njit, types
from numba.extending import intrinsic

from mlpexp.engine.compiled.vectors import F32, LINE, PRODUCT, VI32, address, broadcast, call_llvm

SIGNATURES = {"product": PRODUCT}
I64 = ir.IntType(64)
FEATURES = config.CPU_FEATURES or llvm.get_host_cpu_features().flatten()
if config.CPU_NAME:  # a build for another processor, as the tests make
    FEATURES = config.CPU_FEATURES or ""
LANES = 16 if "+avx512f" in FEATURES else 8 if "+avx2" in FEATURES else 4  # numbers in the machine's vectors
TILE_ROWS = 12 if LANES == 16 or "+neon" in FEATURES else 6  # rows x 2 vectors of sums fill the registers


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
    starts = [broadcast(b, b.load(b.gep(start, [b.mul(I64(r), start_row)])), kind) for r in range(num_rows)]
    before, loop, end = b.block, b.append_basic_block(), b.append_basic_block()
    b.branch(loop)

    b.position_at_end(loop)
    remaining, at_a, at_b = b.phi(I64), b.phi(pointer), b.phi(pointer)
    sums = [[b.phi(kind) for _ in range(num_vectors)] for _ in range(num_rows)]
    vectors = [b.load(part(at_b, n), align=4) for n in range(num_vectors)]
    new_sums = []
    for r in range(num_rows):
        x = broadcast(b, b.load(b.gep(at_a, [rows[r]])), kind)
        new_sums.append([call_llvm(b, "fma", x, vectors[n], sums[r][n]) for n in range(num_vectors)])
    turns = [(remaining, depth, b.sub(remaining, I64(1))), (at_a, A, b.gep(at_a, [a_k])), (at_b, B, b.gep(at_b, [b_k]))]
    turns += [(sums[r][n], starts[r], new_sums[r][n]) for r in range(num_rows) for n in range(num_vectors)]
    for phi, initial, following in turns:
        phi.add_incoming(initial, before)
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


@intrinsic
def _transpose_block(typing, m, source, source_row, target, target_row):
    """m[target + j target_row + i] = m[source + i source_row + j] for i, j < LINE."""

    def code(context: Any, b: Any, sig: Any, args: Any) -> Any:
        array, source, source_row, target, target_row = args

        def rowaddress(start: Any, step: Any, i: int) -> Any:
            return address(context, b, sig.args[0], array, b.add(start, b.mul(I64(i), step)))

        rows = [b.load(rowaddress(source, source_row, i), align=4) for i in range(LINE)]
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
            b.store(rows[j], rowaddress(target, target_row, j), align=4)
        return context.get_dummy_value()

    return types.void(m, *[types.int64] * 4), code


@njit(nogil=True)
def transpose(m, rows, columns, source, source_row, target, target_row):
    """m[target + j target_row + i] = m[source + i source_row + j]; rows and columns in whole LINEs."""
    for i in range(0, rows, LINE):
        for j in range(0, columns, LINE):
            _transpose_block(m, source + i * source_row + j, source_row, target + j * target_row + i, target_row)

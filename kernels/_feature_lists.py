"""Lists of the open features of a gate, made on the device, and matrices cut to such lists."""

import triton
import triton.language as tl


@triton.jit
def order_kernel(gate, order, features, part, size, BLOCK: tl.constexpr):
    """Lists the open features, then the shut ones, then how many are open.

    Each program counts for itself what is open before its block: a gate is short.
    """
    first = tl.program_id(0) * BLOCK
    lanes = tl.arange(0, BLOCK)
    before = 0
    total = 0
    for start in range(0, features, BLOCK):
        others = start + lanes
        found = tl.load(gate + (others % part) // size, mask=others < features, other=0)
        count = tl.sum((found != 0).to(tl.int32), 0)
        total += count
        before += tl.where(start < first, count, 0)
    own = first + lanes
    known = own < features
    lets = tl.load(gate + (own % part) // size, mask=known, other=0) != 0
    rank = before + tl.cumsum(lets.to(tl.int32), 0) - lets.to(tl.int32)
    tl.store(order + tl.where(lets, rank, total + own - rank), own, mask=known)
    if first == 0:
        tl.store(order + features, total)


@triton.jit
def gather_kernel(
    source,
    target,
    rows,
    columns,
    limit,
    row_count,
    column_count,
    source_row,
    source_column,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """target[r, c] = source[rows[r], columns[c]]; None: all of them.

    With a limit only so many columns are taken, and zeros fill the last block of them.
    """
    own_rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    own_columns = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    is_row, is_column = own_rows < row_count, own_columns < column_count
    stored = is_row[:, None] & is_column[None, :]
    if limit is not None:
        most = tl.load(limit)
        if tl.program_id(1) * BLOCK_N >= most:
            return
        is_column = own_columns < most
    from_rows, from_columns = own_rows, own_columns
    if rows is not None:
        from_rows = tl.load(rows + own_rows, mask=is_row, other=0).to(tl.int64)
    if columns is not None:
        from_columns = tl.load(columns + own_columns, mask=is_column, other=0).to(tl.int64)
    known = is_row[:, None] & is_column[None, :]
    where = from_rows[:, None] * source_row + from_columns[None, :] * source_column
    found = tl.load(source + where, mask=known, other=0)
    tl.store(target + own_rows[:, None] * column_count + own_columns[None, :], found, mask=stored)

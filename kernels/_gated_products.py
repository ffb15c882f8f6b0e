"""Products of matrices whose rows and columns are open or shut, and gated where they are made.

What a fixed gate shuts is never counted on the host.  A list on the device has the places of the
open features first, in order, then those of the shut ones, and at its end how many are open.  A
grid is as large as if all were open: its first programs compute the open blocks, those after them
write the zeros of the shut ones, so that each element is written once and nothing waits.

A group may be smaller than a block: a block takes the next open features wherever they stand.
`UNIT` is a power of two that divides the size of the groups: so many features always stand side by
side, at a multiple of it, and are loaded at one time.

Columns of a matrix may be `PACKED`: the open ones alone, in the order of the list.  `PADDED` ones
have zeros behind them, further than a block reaches, so that no load needs a mask.
"""

import triton
import triton.language as tl

# How the columns of a matrix stand; blocks are no larger than what is padded to.
WHOLE, PACKED, PADDED = 0, 1, 2
PADDING = 256
_PADDED = tl.constexpr(PADDED)


@triton.jit
def _count_open(order, size, UNIT: tl.constexpr):
    """How many features are open; the compiler is told that `UNIT` divides it."""
    return size if order is None else tl.load(order + size) // UNIT * UNIT


@triton.jit
def _find_features(order, places, size, UNIT: tl.constexpr, WIDE: tl.constexpr):
    """The features at these places of the list; behind its end it begins anew."""
    found = places % size
    if order is not None:
        found = tl.load(order + found)
    found = tl.max_contiguous(tl.multiple_of(found, UNIT), UNIT)
    if WIDE:
        found = found.to(tl.int64)
    return found


@triton.jit
def _find_tile(pid, tiles_m, tiles_n, open_m, open_n, GROUP: tl.constexpr):
    """Which tile a program has: open ones first, those that share columns near each other."""
    computed = open_m * open_n
    if pid < computed:
        width = GROUP * open_n
        first = pid // width * GROUP
        rows = tl.minimum(open_m - first, GROUP)
        m = first + pid % width % rows
        n = pid % width // rows
    else:
        rest = pid - computed
        shut_n = tiles_n - open_n
        beside = open_m * shut_n
        if rest < beside:
            m = rest // shut_n
            n = open_n + rest % shut_n
        else:
            m = open_m + (rest - beside) // tiles_n
            n = (rest - beside) % tiles_n
    return m, n


@triton.jit
def _load_step(order, start, open_k, even: tl.constexpr, WIDE: tl.constexpr,
               UNIT: tl.constexpr, BLOCK_K: tl.constexpr):  # fmt: skip
    """The places of a step along the sum, its features, and which of them there are."""
    lanes = tl.arange(0, BLOCK_K)
    places = start + lanes
    known = places < open_k
    if order is None:
        features = places
    elif even:
        # One block of neighbours: one number says where it begins.
        features = tl.multiple_of(tl.load(order + start), BLOCK_K) + lanes
    else:
        features = tl.load(order + places, mask=known, other=0)
        features = tl.max_contiguous(tl.multiple_of(features, UNIT), UNIT)
    if WIDE:
        places = places.to(tl.int64)
        features = features.to(tl.int64)
    return places, features, known


@triton.jit
def product_kernel(
    a,
    b,
    c,
    bias,
    gate_n,
    gate_k,
    order_n,
    order_k,
    m_size,
    n_size,
    k_size,
    a_row,
    a_column,
    b_n,
    b_k,
    UNIT_N: tl.constexpr,
    UNIT_K: tl.constexpr,
    FORM_A: tl.constexpr,
    FORM_K: tl.constexpr,
    FORM_N: tl.constexpr,
    FORM_C: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDE: tl.constexpr,
    WIDEN: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
):
    """c[m, n] = gate_n[n] * (sum over k of gate_k[k] * a[m, k] * b[n, k] + bias[n]).

    b may be padded along either axis, and c packed.
    """
    even: tl.constexpr = UNIT_K >= BLOCK_K
    open_n = _count_open(order_n, n_size, UNIT_N)
    open_k = _count_open(order_k, k_size, UNIT_K)
    tiles_m, tiles_n = tl.cdiv(m_size, BLOCK_M), tl.cdiv(n_size, BLOCK_N)
    m, n = _find_tile(tl.program_id(0), tiles_m, tiles_n, tiles_m, tl.cdiv(open_n, BLOCK_N), GROUP)
    rows = m.to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    places = n * BLOCK_N + tl.arange(0, BLOCK_N)
    columns = _find_features(order_n, places, n_size, UNIT_N, WIDE)
    steps = tl.where(n * BLOCK_N < open_n, open_k, 0)
    # Behind the last row the first ones are read again, without a mask, and not stored.
    a_rows = a + (rows % m_size)[:, None] * a_row
    b_columns = b + columns[None, :] * b_n
    if FORM_N == _PADDED:
        b_columns = b + (places.to(tl.int64) if WIDE else places)[None, :] * b_n
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for start in range(0, steps, BLOCK_K):
        own, features, known = _load_step(order_k, start, open_k, even, WIDE, UNIT_K, BLOCK_K)
        of_a = own if FORM_A else features
        of_b = own if FORM_K else features
        if even or FORM_A == _PADDED:
            left = tl.load(a_rows + of_a[None, :] * a_column)
        else:
            left = tl.load(a_rows + of_a[None, :] * a_column, mask=known[None, :], other=0.0)
        if even or FORM_K == _PADDED:
            right = tl.load(b_columns + of_b[:, None] * b_k)
        else:
            right = tl.load(b_columns + of_b[:, None] * b_k, mask=known[:, None], other=0.0)
        if WIDEN:
            left, right = left.to(tl.float32), right.to(tl.float32)
        if gate_k is not None:
            factor = tl.load(gate_k + features, mask=known, other=0.0).to(tl.float32)
            left = (left.to(tl.float32) * factor[None, :]).to(left.dtype)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    wanted = places < n_size
    if bias is not None:
        total += tl.load(bias + columns, mask=wanted, other=0.0).to(tl.float32)[None, :]
    if gate_n is not None:
        factor = tl.load(gate_n + columns, mask=wanted, other=0.0).to(tl.float32)
        total = total.to(c.dtype.element_ty).to(tl.float32) * factor[None, :]
    if FORM_C:
        wanted = places < open_n
        columns = places
    else:
        total = tl.where((places < open_n)[None, :], total, 0.0)
    out = c + rows[:, None] * n_size + columns[None, :]
    stored = (rows < m_size)[:, None] & wanted[None, :]
    tl.store(out, total.to(c.dtype.element_ty), mask=stored)


@triton.jit
def swiglu_kernel(
    a,
    b,
    bias,
    units,
    products,
    gate_k,
    order_n,
    order_k,
    m_size,
    n_size,
    k_size,
    a_row,
    a_column,
    b_n,
    b_k,
    KEEP: tl.constexpr,
    FORM_A: tl.constexpr,
    FORM_K: tl.constexpr,
    UNIT_N: tl.constexpr,
    UNIT_K: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDE: tl.constexpr,
    WIDEN: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
):
    """units[m, n] = silu(u) * v; u and v are rows n and n_size + n of b times gate_k * a, + bias.

    Units are packed; `KEEP` keeps u and v, behind each other and packed, for the gradients.
    """
    even: tl.constexpr = UNIT_K >= BLOCK_K
    open_n = _count_open(order_n, n_size, UNIT_N)
    open_k = _count_open(order_k, k_size, UNIT_K)
    tiles_m, tiles_n = tl.cdiv(m_size, BLOCK_M), tl.cdiv(open_n, BLOCK_N)
    if tl.program_id(0) >= tiles_m * tiles_n:
        return
    m, n = _find_tile(tl.program_id(0), tiles_m, tiles_n, tiles_m, tiles_n, GROUP)
    rows = m.to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    places = n * BLOCK_N + tl.arange(0, BLOCK_N)
    columns = _find_features(order_n, places, n_size, UNIT_N, WIDE)
    a_rows = a + (rows % m_size)[:, None] * a_row
    b_first = b + columns[None, :] * b_n
    b_second = b + (columns + n_size)[None, :] * b_n
    first = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    second = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for start in range(0, open_k, BLOCK_K):
        own, ks, known = _load_step(order_k, start, open_k, even, WIDE, UNIT_K, BLOCK_K)
        of_a = own if FORM_A else ks
        of_b = own if FORM_K else ks
        if even or FORM_A == _PADDED:
            left = tl.load(a_rows + of_a[None, :] * a_column)
        else:
            left = tl.load(a_rows + of_a[None, :] * a_column, mask=known[None, :], other=0.0)
        if even or FORM_K == _PADDED:
            one = tl.load(b_first + of_b[:, None] * b_k)
            two = tl.load(b_second + of_b[:, None] * b_k)
        else:
            one = tl.load(b_first + of_b[:, None] * b_k, mask=known[:, None], other=0.0)
            two = tl.load(b_second + of_b[:, None] * b_k, mask=known[:, None], other=0.0)
        if WIDEN:
            left, one, two = left.to(tl.float32), one.to(tl.float32), two.to(tl.float32)
        if gate_k is not None:
            factor = tl.load(gate_k + ks, mask=known, other=0.0).to(tl.float32)
            left = (left.to(tl.float32) * factor[None, :]).to(left.dtype)
        first = tl.dot(left, one, first, input_precision=PRECISION)
        second = tl.dot(left, two, second, input_precision=PRECISION)
    wanted = places < open_n
    if bias is not None:
        first += tl.load(bias + columns, mask=wanted, other=0.0).to(tl.float32)[None, :]
        second += tl.load(bias + n_size + columns, mask=wanted, other=0.0).to(tl.float32)[None, :]
    kind = units.dtype.element_ty
    stored = (rows < m_size)[:, None] & wanted[None, :]
    first, second = first.to(kind), second.to(kind)
    if KEEP:
        out = products + rows[:, None] * (2 * n_size) + places[None, :]
        tl.store(out, first, mask=stored)
        tl.store(out + open_n, second, mask=stored)
    first = first.to(tl.float32)
    unit = first * tl.sigmoid(first) * second.to(tl.float32)
    tl.store(units + rows[:, None] * n_size + places[None, :], unit.to(kind), mask=stored)


@triton.jit
def swiglu_gradient_kernel(
    products,
    gradients,
    units,
    rows_size,
    size,
    order,
    UNIT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Puts the units in place of their gradients, and the gradients of u and v in `gradients`.

    All are packed; `products` and `gradients` have u and v behind each other.
    """
    count = _count_open(order, size, UNIT)
    places = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    if tl.program_id(1) * BLOCK_N >= count:
        return
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    known = (rows < rows_size)[:, None] & (places < count)[None, :]
    both = rows[:, None] * (2 * size) + places[None, :]
    single = rows[:, None] * size + places[None, :]
    first = tl.load(products + both, mask=known, other=0.0).to(tl.float32)
    second = tl.load(products + both + count, mask=known, other=0.0).to(tl.float32)
    gradient = tl.load(units + single, mask=known, other=0.0).to(tl.float32)
    share = tl.sigmoid(first)
    silu = first * share
    kind = units.dtype.element_ty
    slope = share * (1 + first * (1 - share))
    tl.store(units + single, (silu * second).to(kind), mask=known)
    tl.store(gradients + both, (gradient * second * slope).to(kind), mask=known)
    tl.store(gradients + both + count, (gradient * silu).to(kind), mask=known)


@triton.jit
def weight_gradient_kernel(
    dy,
    x,
    weight,
    dw,
    gate_o,
    gate_i,
    shares_o,
    shares_i,
    order_o,
    order_i,
    tokens,
    o_size,
    i_size,
    dy_row,
    dy_column,
    x_row,
    x_column,
    weight_o,
    weight_i,
    UNIT_O: tl.constexpr,
    UNIT_I: tl.constexpr,
    FORM_O: tl.constexpr,
    FORM_I: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDE: tl.constexpr,
    WIDEN: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
):
    """dw[o, i] = gate_o[o] * gate_i[i] * r[o, i]; r[o, i] = sum over tokens of dy[o] * x[i].

    The gradient of a gate of outputs is the sum of gate_i * weight * r over i, that of a gate of
    inputs the sum of gate_o * weight * r over o: each tile leaves its share of them, so that the
    sums have one order.  Neither needs what the layer computed.
    """
    open_o = _count_open(order_o, o_size, UNIT_O)
    open_i = _count_open(order_i, i_size, UNIT_I)
    tiles_o, tiles_i = tl.cdiv(o_size, BLOCK_M), tl.cdiv(i_size, BLOCK_N)
    m, n = _find_tile(
        tl.program_id(0), tiles_o, tiles_i, tl.cdiv(open_o, BLOCK_M), tl.cdiv(open_i, BLOCK_N),
        GROUP,
    )  # fmt: skip
    places_o = m * BLOCK_M + tl.arange(0, BLOCK_M)
    places_i = n * BLOCK_N + tl.arange(0, BLOCK_N)
    rows = _find_features(order_o, places_o, o_size, UNIT_O, WIDE)
    columns = _find_features(order_i, places_i, i_size, UNIT_I, WIDE)
    dy_features, x_features = rows, columns
    if FORM_O == _PADDED:
        dy_features = places_o.to(tl.int64) if WIDE else places_o
    elif FORM_O:
        dy_features = _find_features(None, places_o, o_size, UNIT_O, WIDE)
    if FORM_I == _PADDED:
        x_features = places_i.to(tl.int64) if WIDE else places_i
    elif FORM_I:
        x_features = _find_features(None, places_i, i_size, UNIT_I, WIDE)
    lanes = tl.arange(0, BLOCK_K)
    steps = tl.where((m * BLOCK_M < open_o) & (n * BLOCK_N < open_i), tokens, 0)
    dy_columns = dy + dy_features[None, :] * dy_column
    x_columns = x + x_features[None, :] * x_column
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for start in range(0, steps, BLOCK_K):
        own = start + lanes
        known = (own < tokens)[:, None]
        if WIDE:
            own = own.to(tl.int64)
        left = tl.load(dy_columns + own[:, None] * dy_row, mask=known, other=0.0)
        right = tl.load(x_columns + own[:, None] * x_row, mask=known, other=0.0)
        if WIDEN:
            left, right = left.to(tl.float32), right.to(tl.float32)
        total = tl.dot(tl.trans(left), right, total, input_precision=PRECISION)
    wanted = (places_o < o_size)[:, None] & (places_i < i_size)[None, :]
    lets = (places_o < open_o)[:, None] & (places_i < open_i)[None, :]
    if gate_o is not None:
        by_o = tl.load(gate_o + rows).to(tl.float32)[:, None]
    if gate_i is not None:
        by_i = tl.load(gate_i + columns).to(tl.float32)[None, :]
    if dw is not None:
        gated = total
        if gate_o is not None:
            gated *= by_o
        if gate_i is not None:
            gated *= by_i
        out = dw + rows[:, None].to(tl.int64) * i_size + columns[None, :]
        tl.store(out, tl.where(lets, gated, 0.0).to(dw.dtype.element_ty), mask=wanted)
    if shares_o is not None or shares_i is not None:
        where = weight + rows[:, None] * weight_o + columns[None, :] * weight_i
        part = tl.load(where, mask=lets, other=0.0).to(tl.float32)
        part = tl.where(lets, part * total, 0.0)
        if shares_o is not None:
            share = part
            if gate_i is not None:
                share = tl.where(lets, part * by_i, 0.0)
            tl.store(shares_o + n * o_size + rows, tl.sum(share, 1), mask=places_o < o_size)
        if shares_i is not None:
            share = part
            if gate_o is not None:
                share = tl.where(lets, part * by_o, 0.0)
            tl.store(shares_i + m * i_size + columns, tl.sum(share, 0), mask=places_i < i_size)

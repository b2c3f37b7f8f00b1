"""The kernels of `solo.losses.fused`, which alone imports this file, when they run: it needs Triton.

A program has a block of anchors (for the gradient of keys, of keys) and goes over its share of the others, a tile of
cosines at a time, which never leaves the chip. Who is who is read off ids and groups in each tile. Numbers of anchors
lie in matrices (K, M), one below the other:

    numbers  log-sum-exps: 0 of positives, 1 of the rest, 2 of (1 + beta) x over H, 3 of beta x over H;
             counts: 4 positives, 5 H, 6 pairs in H of one known group, 7 of two known groups
    terms    0 loss; its derivatives with respect to the logs of 1 the rest, 2 the local term, 3 the positives;
             sums over the terms: 4 share of the local term in the denominator, 5 how many are at its bound

Addresses are 64-bit: rows times width may exceed 2^31.
"""

import triton
import triton.language as tl

NOBODY = tl.constexpr(-1e30)  # log of an empty sum; finite, so that the difference of two of them is a number


@triton.jit
def _cosines(anchors, keys, row, key, m, n, WIDTH: tl.constexpr, PART: tl.constexpr, PRECISION: tl.constexpr):
    kind: tl.constexpr = anchors.dtype.element_ty
    s = tl.zeros((row.shape[0], key.shape[0]), dtype=kind)
    for start in range(0, WIDTH, PART):
        place = start + tl.arange(0, PART)
        a_place = row.to(tl.int64)[:, None] * WIDTH + place[None, :]
        k_place = key.to(tl.int64)[None, :] * WIDTH + place[:, None]
        a = tl.load(anchors + a_place, mask=(row < m)[:, None] & (place < WIDTH)[None, :], other=0.0)
        k = tl.load(keys + k_place, mask=(key < n)[None, :] & (place < WIDTH)[:, None], other=0.0)
        s = tl.dot(a, k, s, input_precision=PRECISION, out_dtype=kind)
    return s


@triton.jit
def _number(numbers, which, row, m):
    return tl.load(numbers + which * m + row, mask=row < m, other=0.0)


@triton.jit
def _labels(labels, place, number):
    return tl.load(labels + place, mask=place < number, other=-1)


@triton.jit
def _positive(anchor_ids, key_ids, row, key, m, n, offset):
    """P(i): keys of the anchor's id that are not the anchor itself."""
    same = _labels(anchor_ids, row, m)[:, None] == _labels(key_ids, key, n)[None, :]
    return same & (row < m)[:, None] & (key < n)[None, :] & (key[None, :] != row[:, None] + offset)


@triton.jit
def _negative(anchor_ids, key_ids, row, key, m, n, positives_only):
    """N(i): keys of other ids."""
    other = _labels(anchor_ids, row, m)[:, None] != _labels(key_ids, key, n)[None, :]
    return other & (row < m)[:, None] & ((key < n) & (key >= positives_only))[None, :]


@triton.jit
def _chosen(s, negative, anchor_groups, key_groups, cut, row, key, m, n, NAMED: tl.constexpr):
    """H(i): negatives above the anchor's cut and, if labels name them, those of its known group."""
    found = s > _number(cut, 0, row, m)[:, None]
    if NAMED:
        group = _labels(anchor_groups, row, m)[:, None]
        found = found | ((group >= 0) & (group == _labels(key_groups, key, n)[None, :]))
    return negative & found


@triton.jit
def _add(largest, total, x, mask, factor):
    """Largest logit of each row and running sum of exp(factor (x - largest)), with the entries of a mask."""
    x = tl.where(mask, x, NOBODY)
    new = tl.maximum(largest, tl.max(x, 1))
    exp = tl.where(mask, tl.exp(factor * (x - new[:, None])), 0.0)
    return new, total * tl.exp(factor * (largest - new)) + tl.sum(exp, 1)


@triton.jit
def _log(largest, total, factor):
    return tl.where(total == 0, NOBODY, factor * largest + tl.log(tl.where(total == 0, 1.0, total)))


@triton.jit
def statistics(
    anchors, keys, anchor_ids, key_ids, anchor_groups, key_groups, cut, out, m, n, offset, positives_only, share,
    inverse_temperature, beta, WIDTH: tl.constexpr, PART: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
    PRECISION: tl.constexpr, INSIDE: tl.constexpr, CHOOSES: tl.constexpr, NAMED: tl.constexpr, WEIGH: tl.constexpr,
    GROUPS: tl.constexpr,
):  # fmt: skip
    """`numbers`, of a share of the keys: log-sum-exps are made online, with the largest logit so far."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    none = tl.zeros((ROWS,), dtype=anchors.dtype.element_ty)
    positives, rest, tilted, weights, count, size, alike, known = none, none, none, none, none, none, none, none
    top_positive, top_rest, top_chosen = none + NOBODY, none + NOBODY, none + NOBODY
    first = tl.program_id(1) * share
    for start in range(first, tl.minimum(first + share, n), KEYS):
        key = start + tl.arange(0, KEYS)
        s = _cosines(anchors, keys, row, key, m, n, WIDTH, PART, PRECISION)
        x = s * inverse_temperature
        positive = _positive(anchor_ids, key_ids, row, key, m, n, offset)
        count += tl.sum(positive.to(none.dtype), 1)
        if INSIDE:
            top_positive, positives = _add(top_positive, positives, x, positive, 1.0)
        others = _negative(anchor_ids, key_ids, row, key, m, n, positives_only)
        if CHOOSES:
            chosen = _chosen(s, others, anchor_groups, key_groups, cut, row, key, m, n, NAMED)
            others = others & (chosen == 0)
            size += tl.sum(chosen.to(none.dtype), 1)
            if WEIGH:
                _, tilted = _add(top_chosen, tilted, x, chosen, 1.0 + beta)
                top_chosen, weights = _add(top_chosen, weights, x, chosen, beta)
            if GROUPS:
                here, there = _labels(anchor_groups, row, m)[:, None], _labels(key_groups, key, n)[None, :]
                both = chosen & (here >= 0) & (there >= 0)
                alike += tl.sum((both & (here == there)).to(none.dtype), 1)
                known += tl.sum(both.to(none.dtype), 1)
        top_rest, rest = _add(top_rest, rest, x, others, 1.0)
    place = out + tl.program_id(1).to(tl.int64) * 8 * m + row
    tl.store(place, _log(top_positive, positives, 1.0), mask=row < m)
    tl.store(place + m, _log(top_rest, rest, 1.0), mask=row < m)
    tl.store(place + 2 * m, _log(top_chosen, tilted, 1.0 + beta), mask=row < m)
    tl.store(place + 3 * m, _log(top_chosen, weights, beta), mask=row < m)
    tl.store(place + 4 * m, count, mask=row < m)
    tl.store(place + 5 * m, size, mask=row < m)
    tl.store(place + 6 * m, alike, mask=row < m)
    tl.store(place + 7 * m, known, mask=row < m)


@triton.jit
def _both(one, other):
    """log(exp(one) + exp(other))."""
    largest = tl.maximum(one, other)
    return largest + tl.log(tl.exp(one - largest) + tl.exp(other - largest))


@triton.jit
def _score(x, mean, numbers, row, m, inverse_temperature, tau_plus, WEIGH: tl.constexpr, OWN: tl.constexpr):
    """Terms of logit x as `InfoNCERows` and `HexRows` score them: log of the denominator, then as `terms` from 1 on."""
    rest = _number(numbers, 1, row, m)[:, None]
    denominator = rest
    if WEIGH:
        size = _number(numbers, 5, row, m)[:, None]
        log_size = tl.log(tl.maximum(size, 1.0))
        local = log_size + _number(numbers, 2, row, m)[:, None] - _number(numbers, 3, row, m)[:, None]
        local = tl.where(size == 0, NOBODY, local)
        # What false negatives are expected to have of the local term; at 1 and above it is at its bound.
        ratio = tau_plus * tl.exp(tl.minimum(tl.where(size == 0, 0.0, log_size + mean - local), 50.0))
        debiased = local + tl.log(tl.where(ratio < 1, 1 - ratio, 1.0) / (1 - tau_plus))
        active = (ratio < 1) & (debiased > log_size - inverse_temperature) & (size > 0)
        debiased = tl.where(active, debiased, tl.where(size == 0, NOBODY, log_size - inverse_temperature))
        denominator = _both(rest, debiased)
    if OWN:
        denominator = _both(x, denominator)
    else:  # a row that has lost all of its negatives has no denominator
        denominator = tl.where(denominator < 0.5 * NOBODY, 0.0, denominator) + 0 * x
    d_rest = tl.exp(rest - denominator)
    none = 0 * denominator
    d_positive, d_local, local_share, bounded = none - 1.0, none, none, none
    if OWN:
        d_positive = -d_rest
    if WEIGH:
        local_share = tl.exp(debiased - denominator)
        bounded = tl.where((active == 0) & (size > 0), 1.0, bounded)
        d_local = tl.where(active, tl.exp(tl.minimum(local - denominator, 50.0)) / (1 - tau_plus), 0.0)
        taken = tau_plus * tl.exp(tl.minimum(log_size + mean - denominator, 50.0)) / (1 - tau_plus)
        d_positive -= tl.where(active, taken, 0.0)
        if OWN:
            d_positive -= local_share
    return denominator, d_rest, d_local, d_positive, local_share, bounded


@triton.jit
def scores(
    anchors, keys, anchor_ids, key_ids, numbers, out, m, n, offset, share, inverse_temperature, tau_plus,
    WIDTH: tl.constexpr, PART: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr, PRECISION: tl.constexpr,
    INSIDE: tl.constexpr, WEIGH: tl.constexpr, OWN: tl.constexpr,
):  # fmt: skip
    """`terms`, of a share of the keys: one a positive or, `INSIDE`, one of all of them, which stands at key 0."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    count = _number(numbers, 4, row, m)
    weight = 1.0 / tl.maximum(count, 1.0)
    none = 0 * count
    loss, by_rest, by_local, by_positive, shares, bounds = none, none, none, none, none, none
    first = tl.program_id(1) * share
    for start in range(first, tl.minimum(first + share, n), KEYS):
        key = start + tl.arange(0, KEYS)
        if INSIDE:
            term = (count > 0)[:, None] & (key == 0)[None, :]
        else:
            term = _positive(anchor_ids, key_ids, row, key, m, n, offset)
        if tl.max(tl.max(term.to(tl.int32), 1), 0) > 0:  # most tiles have none, and cost their ids only
            if INSIDE:
                x = tl.where(term, _number(numbers, 0, row, m)[:, None], 0.0)
                mean, each = x + tl.log(weight)[:, None], 0 * weight + 1
            else:
                x = _cosines(anchors, keys, row, key, m, n, WIDTH, PART, PRECISION) * inverse_temperature
                mean, each = x, weight
            denominator, d_rest, d_local, d_positive, local_share, bounded = _score(
                x, mean, numbers, row, m, inverse_temperature, tau_plus, WEIGH, OWN
            )
            loss += each * tl.sum(tl.where(term, denominator - x, 0.0), 1)
            by_rest += each * tl.sum(tl.where(term, d_rest, 0.0), 1)
            by_local += each * tl.sum(tl.where(term, d_local, 0.0), 1)
            by_positive += each * tl.sum(tl.where(term, d_positive, 0.0), 1)
            shares += tl.sum(tl.where(term, local_share, 0.0), 1)
            bounds += tl.sum(tl.where(term, bounded, 0.0), 1)
    place = out + tl.program_id(1).to(tl.int64) * 6 * m + row
    tl.store(place, loss, mask=row < m)
    tl.store(place + m, by_rest, mask=row < m)
    tl.store(place + 2 * m, by_local, mask=row < m)
    tl.store(place + 3 * m, by_positive, mask=row < m)
    tl.store(place + 4 * m, shares, mask=row < m)
    tl.store(place + 5 * m, bounds, mask=row < m)


@triton.jit
def gradient(
    anchors, keys, anchor_ids, key_ids, anchor_groups, key_groups, cut, numbers, terms, out, m, n, offset,
    positives_only, share, inverse_temperature, beta, tau_plus, WIDTH: tl.constexpr, PART: tl.constexpr,
    ROWS: tl.constexpr, KEYS: tl.constexpr, PRECISION: tl.constexpr, INSIDE: tl.constexpr, CHOOSES: tl.constexpr,
    NAMED: tl.constexpr, WEIGH: tl.constexpr, OWN: tl.constexpr, TO_KEYS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Some columns of the gradient of a block of anchors, or of keys, from a share of the others."""
    kind: tl.constexpr = anchors.dtype.element_ty
    MINE: tl.constexpr = KEYS if TO_KEYS else ROWS
    OTHERS: tl.constexpr = ROWS if TO_KEYS else KEYS
    mine, others = (n, m) if TO_KEYS else (m, n)
    block = tl.program_id(0) * MINE + tl.arange(0, MINE)
    column = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    found = tl.zeros((MINE, COLUMNS), dtype=kind)
    first = tl.program_id(1) * share
    for start in range(first, tl.minimum(first + share, others), OTHERS):
        other = start + tl.arange(0, OTHERS)
        row, key = (other, block) if TO_KEYS else (block, other)
        s = _cosines(anchors, keys, row, key, m, n, WIDTH, PART, PRECISION)
        x = s * inverse_temperature
        slope = tl.zeros((ROWS, KEYS), dtype=kind)
        rest = _negative(anchor_ids, key_ids, row, key, m, n, positives_only)
        if CHOOSES:
            chosen = _chosen(s, rest, anchor_groups, key_groups, cut, row, key, m, n, NAMED)
            rest = rest & (chosen == 0)
            if WEIGH:
                tilted, weights = _number(numbers, 2, row, m)[:, None], _number(numbers, 3, row, m)[:, None]
                near = (1.0 + beta) * tl.exp(tl.where(chosen, (1.0 + beta) * x - tilted, NOBODY))
                near -= beta * tl.exp(tl.where(chosen, beta * x - weights, NOBODY))
                slope += _number(terms, 2, row, m)[:, None] * near
        far = tl.exp(tl.where(rest, x - _number(numbers, 1, row, m)[:, None], NOBODY))
        slope += _number(terms, 1, row, m)[:, None] * far
        positive = _positive(anchor_ids, key_ids, row, key, m, n, offset)
        if tl.max(tl.max(positive.to(tl.int32), 1), 0) > 0:
            if INSIDE:
                near = tl.exp(tl.where(positive, x - _number(numbers, 0, row, m)[:, None], NOBODY))
                slope += _number(terms, 3, row, m)[:, None] * near
            else:
                _, _, _, by_positive, _, _ = _score(x, x, numbers, row, m, inverse_temperature, tau_plus, WEIGH, OWN)
                count = tl.maximum(_number(numbers, 4, row, m), 1.0)[:, None]
                slope += tl.where(positive, by_positive / count, 0.0)
        place = other.to(tl.int64)[:, None] * WIDTH + column[None, :]
        mask = (other < others)[:, None] & (column < WIDTH)[None, :]
        values = tl.load((anchors if TO_KEYS else keys) + place, mask=mask, other=0.0)
        slope = tl.trans(slope) if TO_KEYS else slope
        found = tl.dot(slope, values, found, input_precision=PRECISION, out_dtype=kind)
    place = (tl.program_id(1).to(tl.int64) * mine + block)[:, None] * WIDTH + column[None, :]
    tl.store(out + place, found * inverse_temperature, mask=(block < mine)[:, None] & (column < WIDTH)[None, :])


@triton.jit
def counts(
    anchors, keys, cuts, out, lowest, m, n, first_key, share, WIDTH: tl.constexpr, PART: tl.constexpr,
    ROWS: tl.constexpr, KEYS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """How many cosines of an anchor are above 1, ..., 8 of its ascending cuts (8, M); and its lowest cosine."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    level_of = tl.arange(0, 8)
    found = tl.zeros((ROWS, 8), dtype=tl.int32)
    low = tl.zeros((ROWS,), dtype=anchors.dtype.element_ty) - NOBODY
    first = first_key + tl.program_id(1) * share
    for start in range(first, tl.minimum(first + share, n), KEYS):
        key = start + tl.arange(0, KEYS)
        s = _cosines(anchors, keys, row, key, m, n, WIDTH, PART, PRECISION)
        low = tl.minimum(low, tl.min(tl.where((key < n)[None, :], s, -NOBODY), 1))
        level = tl.zeros((ROWS, KEYS), dtype=tl.int32)
        for each in tl.static_range(8):
            level += (s > _number(cuts, each, row, m)[:, None]).to(tl.int32)
        # A byte for each level, so that one sum counts them all: a tile has fewer than 256 keys.
        byte = tl.full((ROWS, KEYS), 1, tl.int64) << (8 * tl.maximum(level - 1, 0))
        total = tl.sum(tl.where((level > 0) & (key < n)[None, :], byte, 0), 1)
        found += ((total[:, None] >> (8 * level_of)[None, :]) & 255).to(tl.int32)
    place = tl.program_id(1).to(tl.int64) * m + row
    tl.store(out + place[:, None] * 8 + level_of[None, :], found, mask=(row < m)[:, None])
    tl.store(lowest + place, low, mask=row < m)

"""The addressing rule in plain integers: slow, obvious, never optimised. Everything faster is checked against it.

Canonical ids x_0 … x_{T-1} give, at position t and for each layer, one row per (order n, head k):

    slot_d = x_{t-d}, or the pad id where the look-back of distance d is blocked
    mix_n  = slot_0·m_0 XOR slot_1·m_1 XOR … XOR slot_{n-1}·m_{n-1}
    row    = mix_n mod prime[n][k] + the sum of the primes of all columns before (n, k)

A look-back is blocked, and stays blocked for all farther distances, once it would leave the sequence, enter a dead position (an
id below 0), cross the start of a segment, or read the spec's boundary id. At a dead position every slot is the pad id.
"""

from collections.abc import Collection, Sequence

from hashing.spec import HashSpec


def slots(spec: HashSpec, ids: Sequence[int], t: int, starts: Collection[int] = ()) -> list[int]:
    """The ids that position t reads at distance 0, 1, … max_order - 1. `starts` are positions where a segment begins."""
    read = [ids[t] if ids[t] >= 0 else spec.pad_id]
    blocked = ids[t] < 0
    for distance in range(1, spec.max_order):
        before = t - distance
        blocked = blocked or before < 0 or ids[before] < 0 or before + 1 in starts or ids[before] == spec.boundary_id
        read.append(spec.pad_id if blocked else ids[before])
    return read


def rows(spec: HashSpec, layer: int, ids: Sequence[int], starts: Collection[int] = ()) -> list[list[int]]:
    """Rows [position][column] of a sequence of canonical ids in one layer's table."""
    multipliers = spec.multipliers[spec.layer_index(layer)]
    primes = spec.primes[spec.layer_index(layer)]
    table: list[list[int]] = []
    for t in range(len(ids)):
        products = [slot * m for slot, m in zip(slots(spec, ids, t, starts), multipliers, strict=True)]
        row, first, mix = [], 0, products[0]
        for order, heads in zip(spec.orders, primes, strict=True):
            mix ^= products[order - 1]
            for prime in heads:
                row.append(mix % prime + first)
                first += prime
        table.append(row)
    return table

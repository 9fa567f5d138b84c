"""Hypothesis strategies for specs and the sequences they address."""

from hypothesis import strategies as st

from hashing.spec import HashSpec, assign_primes, multiplier_bound

# (longest order, heads): a kernel is compiled for each, so these few stand for all. Every order, and vectors of one lane, of a
# power of two, of an odd number and of more than a register holds.
SHAPES = ((2, 1), (2, 8), (3, 8), (3, 5), (4, 8), (4, 2), (5, 3), (6, 9))


@st.composite
def specs(draw: st.DrawFn) -> HashSpec:
    """Every kind of spec: explicit multipliers, moduli from 2 upwards to far beyond the integers of float64, any boundary."""
    layers = tuple(sorted(draw(st.sets(st.integers(0, 60), min_size=1, max_size=2))))
    order, heads = draw(st.sampled_from(SHAPES))
    size = draw(st.one_of(st.integers(1, 50), st.integers(51, 300_000)))
    base = draw(st.one_of(st.integers(2, 20_000), st.integers(20_000, 30_000_000), st.integers(2**40, 2**57)))
    multiplier = st.integers(0, multiplier_bound(size) - 1).map(lambda r: 2 * r + 1)
    return HashSpec(
        layers=layers,
        primes=assign_primes(len(layers), order - 1, heads, base),
        multipliers=tuple(tuple(draw(st.lists(multiplier, min_size=order, max_size=order))) for _ in layers),
        pad_id=draw(st.integers(0, size - 1)),
        canonical_size=size,
        vocab_fingerprint="any",
        boundary_id=draw(st.none() | st.integers(0, size - 1)),
        rows_multiple=draw(st.sampled_from([1, 128])),
    )


@st.composite
def sequences(draw: st.DrawFn, spec: HashSpec, max_length: int = 40) -> list[int]:
    """Canonical ids with dead positions, and with the boundary id and the largest id far more often than by chance."""
    special = [spec.canonical_size - 1, spec.pad_id, -1]
    if spec.boundary_id is not None:
        special.append(spec.boundary_id)
    return draw(st.lists(st.one_of(st.integers(0, spec.canonical_size - 1), st.sampled_from(special)), max_size=max_length))


@st.composite
def addressed(draw: st.DrawFn) -> tuple[HashSpec, list[int], set[int]]:
    """A spec, a sequence, and the positions where its segments begin."""
    spec = draw(specs())
    ids = draw(sequences(spec))
    starts = draw(st.sets(st.integers(0, len(ids) - 1), max_size=4)) if ids else set()
    return spec, ids, starts

"""Qwen3.8 PLE checkpoints: `….ple.ple_embedding.ngram_embedding.shard_{i}.weight` in equal parts, raw token ids as addresses.

Rows are float (BF16, F16, F32), or F8_E4M3 with one scalar `….ngram_embedding.weight_scale`. The stored `layer_multipliers` are
the truth; that they also follow from the initialiser is checked, as are the primes against the stored ones where there are any.
`ple_layer_ids` counts blocks from 1, tensor names from 0.
"""

from pathlib import Path

import numpy as np

from hashing.base.errors import EngramError
from hashing.named_specs import NO_VOCAB
from hashing.rule import IDENTITY
from hashing.spec import MAX_HEADS, MAX_ORDER, HashSpec, assign_primes, seeded_multipliers
from hashing.text.tokenizer import load_tokenizer
from hashing.vocab import CanonicalVocab
from table.checkpoints.checkpoint import Checkpoint, Config, Folder, LayerSource
from table.checkpoints.parts import FilePart
from table.encodings.encoding import ENCODING_OF, ENCODINGS
from table.store.manifest import Cut

KIND = "qwen-ple"
SEED = 1234
PREFIXES = ("model.language_model.", "model.")


def embedding_name(prefix: str, layer: int) -> str:
    return f"{prefix}layers.{layer}.ple.ple_embedding."


def read_qwen(path: Path, tokenizer: Path | None = None) -> Checkpoint:
    """Raises EngramError where not even the spec can be made out; everything else becomes a fault."""
    config, folder = Config.read(path), Folder(path)
    blocks = tuple(block - 1 for block in config.integers("ple_layer_ids"))
    if not blocks or list(blocks) != sorted(set(blocks)) or blocks[0] < 0:
        raise EngramError(f"{config.path}: ple_layer_ids {[b + 1 for b in blocks]} are not blocks in order, counted from 1")
    names = {block: _embedding(folder, block) for block in blocks}
    spec = _spec(config, folder, names, _fingerprint(tokenizer or path / "tokenizer.json"))
    columns, head_dim = spec.columns, config.integer("ple_embed_dim") // spec.columns
    folder.expect("ple_embed_dim", config.integer("ple_embed_dim"), columns * head_dim)
    dtypes = {block: _dtype(folder, names[block]) for block in blocks}
    layers = {block: _layer(config, folder, names[block], block, spec, head_dim, dtypes[block]) for block in blocks}
    if len(set(dtypes.values())) > 1:
        folder.faults.append(f"the tables are of different dtypes: {', '.join(sorted(set(dtypes.values())))}")
    return Checkpoint(
        kind=KIND,
        path=path,
        spec=spec,
        encoding=ENCODINGS[ENCODING_OF.get(dtypes[blocks[0]], "bfloat16")],
        head_dim=head_dim,
        mapping=np.arange(spec.canonical_size, dtype=np.int32),
        layers={block: layer for block, layer in layers.items() if layer is not None},
        whole_files=folder.small_files(),
        table_files=folder.table_files(),
        faults=tuple(folder.faults),
    )


def _fingerprint(tokenizer: Path) -> str:
    return (
        CanonicalVocab.from_tokenizer(load_tokenizer(str(tokenizer)), IDENTITY).fingerprint if tokenizer.exists() else NO_VOCAB
    )


def _embedding(folder: Folder, block: int) -> str:
    """What the names of a block's tensors begin with. Raises EngramError when the index has no such tensors."""
    names = [embedding_name(prefix, block) for prefix in PREFIXES]
    for name in names:
        if f"{name}layer_multipliers" in folder.weight_map:
            return name
    raise EngramError(f"{folder.path} has no table for block {block}: its index lacks {names[1]}layer_multipliers")


def _dtype(folder: Folder, name: str) -> str:
    found = folder.tensor(f"{name}ngram_embedding.shard_0.weight")
    dtype = found[1].dtype if found else "BF16"
    if dtype not in ENCODING_OF:
        folder.faults.append(f"dtype of {name}ngram_embedding: found {dtype}, expected one of {', '.join(ENCODING_OF)}")
    return dtype


def _spec(config: Config, folder: Folder, names: dict[int, str], fingerprint: str) -> HashSpec:
    blocks, order = tuple(names), config.integer("ngram_size", least=2, most=MAX_ORDER)
    vocab_size, eos = config.integer("vocab_size", least=1), config.integer("eos_token_id")
    heads = config.integer("heads_per_ngram", least=1, most=MAX_HEADS)
    primes = assign_primes(len(blocks), order - 1, heads, config.integer("ngram_vocab_size_base"))
    expected = seeded_multipliers("splitmix64", config.integer("seed", default=SEED), blocks, order, vocab_size)
    stored = []
    for block, seeded in zip(blocks, expected, strict=True):
        found = folder.numbers(f"{names[block]}layer_multipliers", "I64", order)
        stored.append(seeded if found is None else tuple(int(m) for m in found))
        folder.expect(f"{names[block]}layer_multipliers against those of the initialiser", stored[-1], seeded)
    spec = HashSpec(
        layers=blocks,
        primes=primes,
        multipliers=tuple(stored),
        pad_id=eos,
        canonical_size=vocab_size,
        vocab_fingerprint=fingerprint,
        boundary_id=eos,
        rows_multiple=config.integer("make_ngram_vocab_size_divisible_by"),
    )
    for block in blocks:
        _check_stored(folder, f"{names[block]}ngram_heads_vocab_sizes", spec.moduli(block))
        _check_stored(folder, f"{names[block]}ngram_heads_offsets", spec.offsets(block))
    return spec


def _check_stored(folder: Folder, name: str, expected: tuple[int, ...]) -> None:
    """Some checkpoints also store the primes and where each head's rows begin."""
    if name in folder.weight_map:
        found = folder.numbers(name, "I64", len(expected))
        folder.expect(name, None if found is None else found.tolist(), list(expected))


def _layer(
    config: Config, folder: Folder, name: str, block: int, spec: HashSpec, head_dim: int, dtype: str
) -> LayerSource | None:
    count = config.integer("split_ngram_parts")
    if count < 1 or spec.rows(block) % count:
        folder.faults.append(f"{spec.rows(block)} rows do not fall into split_ngram_parts {count} equal parts")
        return None
    rows = spec.rows(block) // count
    names = [f"{name}ngram_embedding.shard_{i}.weight" for i in range(count)]
    parts = [folder.part(part, dtype, rows, head_dim, (block, "codes", i * rows)) for i, part in enumerate(names)]
    scale = _table_scale(folder, f"{name}ngram_embedding.weight_scale", block) if dtype == "F8_E4M3" else 1.0
    found: list[FilePart] = [part for part in parts if part is not None]
    return LayerSource((tuple(found),), scale) if len(found) == count else None


def _table_scale(folder: Folder, name: str, block: int) -> float:
    """The scalar that an FP8 table's codes are taken against; 1 where it cannot be used, and a fault says why."""
    found = folder.tensor(name)
    if found is None:
        return 1.0
    file, tensor = found
    fits = folder.expect(f"shape of {name}", list(tensor.shape), [1])
    if not (folder.expect(f"dtype of {name}", tensor.dtype, "BF16") and fits):
        return 1.0
    folder.cuts.setdefault(file.path.name, []).append(Cut(name, block, "table_scale"))
    value = float(ENCODINGS["bfloat16"].decoded(np.frombuffer(file.read(name), np.uint8)[None], 1)[0, 0])
    if not 0 < value < np.inf:
        folder.faults.append(f"{name} is {value}, expected a positive number")
        return 1.0
    return value

"""Qwen3.8 PLE checkpoints: `….ple.ple_embedding.ngram_embedding.shard_{i}.weight` in equal parts, raw token ids as addresses.

Rows are float (BF16, F16, F32), or F8_E4M3 with one scalar `….ngram_embedding.weight_scale`. The stored `layer_multipliers` are
the truth; that they also follow from the initialiser is checked, as are the primes against the stored ones where there are any.
`ple_layer_ids` counts blocks from 1, tensor names from 0.
"""

import re
from pathlib import Path

import numpy as np

from hashing.base.errors import EngramError
from hashing.base.json_object import INT64_MAX, brief
from hashing.rule import IDENTITY
from hashing.spec import MAX_HEADS, MAX_MODULI, MAX_ORDER, NO_VOCAB, HashSpec, assign_primes, seeded_multipliers
from hashing.text.tokenizer import load_tokenizer
from hashing.vocab import CanonicalVocab
from table.checkpoints.folder import Config, Folder
from table.checkpoints.published import Checkpoint, LayerSource
from table.encodings.encoding import ENCODING_OF, ENCODINGS
from table.store.manifest import MAX_HEAD_DIM, MAX_TOKENS
from table.store.origin import Cut
from table.store.parts import FilePart

KIND = "qwen-ple"
LAYERS_KEY = "ple_layer_ids"
TABLE = re.compile(r"\.ple\.ple_embedding\.ngram_embedding\.shard_\d+\.weight$")
# A configuration may leave out what is as the library has it: Qwen4ExpTextConfig in transformers 5.23.0,
# models/qwen4_exp/configuration_qwen4_exp.py. There ple_embed_dim is the hidden size where it is left out.
DEFAULTS = {
    "vocab_size": 248_320,
    "hidden_size": 2048,
    "ngram_size": 3,
    "heads_per_ngram": 8,
    "ngram_vocab_size_base": 20_000_000,
    "make_ngram_vocab_size_divisible_by": 128,
    "seed": 1234,
    "split_ngram_parts": 512,
}
PREFIXES = ("model.language_model.", "model.")


def embedding_name(prefix: str, layer: int) -> str:
    return f"{prefix}layers.{layer}.ple.ple_embedding."


def read(config: Config, folder: Folder, tokenizer: Path | None) -> Checkpoint:
    """Raises EngramError where not even the spec can be made out; everything else becomes a fault."""
    blocks = _blocks(config)
    names = {block: _embedding(folder, block) for block in blocks}
    spec = _spec(config, folder, names, _fingerprint(tokenizer))
    width = _width(config)
    head_dim = width // spec.columns
    folder.expect("ple_embed_dim", width, spec.columns * head_dim)
    dtypes = {block: _dtype(folder, names[block]) for block in blocks}
    layers = {block: _layer(config, folder, names[block], block, spec, head_dim, dtypes[block]) for block in blocks}
    if len(set(dtypes.values())) > 1:
        folder.faults.append(f"the tables are of different dtypes: {', '.join(sorted(set(dtypes.values())))}")
    folder.check_held_once()
    return Checkpoint(
        kind=KIND,
        path=folder.path,
        spec=spec,
        encoding=ENCODINGS[ENCODING_OF.get(dtypes[blocks[0]], "bfloat16")],
        head_dim=head_dim,
        mapping=np.arange(spec.canonical_size, dtype=np.int32),
        layers={block: layer for block, layer in layers.items() if layer is not None},
        whole_files=folder.small_files(),
        table_files=folder.table_files(),
        faults=tuple(folder.faults),
    )


def _blocks(config: Config) -> tuple[int, ...]:
    """Block numbers from 0. The configuration may give them in any order and twice, which is the same to the model."""
    blocks = sorted({block - 1 for block in config.integers(LAYERS_KEY)})
    if not blocks or blocks[0] < 0 or len(blocks) > MAX_MODULI:
        listed = brief([block + 1 for block in blocks])
        raise EngramError(f"{config.path}: {LAYERS_KEY} {listed} are not 1 to {MAX_MODULI} blocks, counted from 1")
    return tuple(blocks)


def _width(config: Config) -> int:
    """Columns of all rows that a token reads; as wide as the model where the configuration has none or null."""
    name = "hidden_size" if config.keys.members.get("ple_embed_dim") is None else "ple_embed_dim"
    return config.integer(name, least=1, most=MAX_HEAD_DIM * MAX_HEADS * MAX_ORDER, default=DEFAULTS["hidden_size"])


def _fingerprint(tokenizer: Path | None) -> str:
    return CanonicalVocab.from_tokenizer(load_tokenizer(str(tokenizer)), IDENTITY).fingerprint if tokenizer else NO_VOCAB


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
    blocks, order = tuple(names), _integer(config, "ngram_size", least=2, most=MAX_ORDER)
    vocab_size, eos = _integer(config, "vocab_size", least=1, most=MAX_TOKENS), _end_token(config)
    heads = _integer(config, "heads_per_ngram", least=1, most=MAX_HEADS)
    primes = assign_primes(len(blocks), order - 1, heads, _integer(config, "ngram_vocab_size_base"))
    expected = seeded_multipliers("splitmix64", _integer(config, "seed"), blocks, order, vocab_size)
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
        rows_multiple=_integer(config, "make_ngram_vocab_size_divisible_by"),
    )
    for block in blocks:
        _check_stored(folder, f"{names[block]}ngram_heads_vocab_sizes", spec.moduli(block))
        _check_stored(folder, f"{names[block]}ngram_heads_offsets", spec.offsets(block))
    return spec


def _integer(config: Config, name: str, least: int = 0, most: int = INT64_MAX) -> int:
    return config.integer(name, least, most, DEFAULTS[name])


def _end_token(config: Config) -> int:
    """The id that look-back never crosses; of several, the model takes the first."""
    if isinstance(config.keys.value("eos_token_id"), list) and (ids := config.integers("eos_token_id")):
        return ids[0]
    return config.integer("eos_token_id")


def _check_stored(folder: Folder, name: str, expected: tuple[int, ...]) -> None:
    """Some checkpoints also store the primes and where each head's rows begin."""
    if name in folder.weight_map:
        found = folder.numbers(name, "I64", len(expected))
        folder.expect(name, None if found is None else found.tolist(), list(expected))


def _layer(
    config: Config, folder: Folder, name: str, block: int, spec: HashSpec, head_dim: int, dtype: str
) -> LayerSource | None:
    count = _integer(config, "split_ngram_parts")
    if count > len(folder.weight_map):
        folder.faults.append(f"split_ngram_parts is {count}, but the index has {len(folder.weight_map)} tensors in all")
        return None
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
    folder.cut_out(file, tensor, Cut(name, block, "table_scale"))
    value = float(ENCODINGS["bfloat16"].decoded(np.frombuffer(file.read(name), np.uint8)[None], 1)[0, 0])
    if not 0 < value < np.inf:
        folder.faults.append(f"{name} is {value}, expected a positive number")
        return 1.0
    return value

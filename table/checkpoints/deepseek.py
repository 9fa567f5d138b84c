"""DeepSeek-V4.1 checkpoints: `layers.N.engram.embed.weight` F8_E4M3 (rows, 256) and `.scale` F8_E8M0 (rows, 8).

The layout is proven from the configuration: recomputing the primes must give `engram_num_embeddings`, and the canonical
vocabulary of the folder's tokenizer, if it has one, `engram_compressed_vocab_size`.
"""

import re
from pathlib import Path

import numpy as np

from hashing.base.errors import EngramError
from hashing.base.json_object import INT64_MAX, brief
from hashing.spec import MAX_HEADS, MAX_ORDER, NO_VOCAB, HashSpec, assign_primes, seeded_multipliers
from hashing.text.tokenizer import load_tokenizer
from hashing.vocab import CanonicalVocab
from table.checkpoints.folder import Config, Folder
from table.checkpoints.published import Checkpoint, LayerSource
from table.encodings.encoding import ENCODINGS, GROUP
from table.store.manifest import MAX_HEAD_DIM

KIND = "deepseek-v4.1"
LAYERS_KEY = "engram_layer_ids"
TABLE = re.compile(r"layers\.\d+\.engram\.embed\.weight$")
SEED = 0  # the configuration has no key for it
UNPROVEN = (
    "there is no tokenizer.json to prove engram_compressed_vocab_size {size:,}, so it is believed; "
    "it decides the multipliers, and with them every address"
)


def weight_name(layer: int) -> str:
    return f"layers.{layer}.engram.embed.weight"


def scale_name(layer: int) -> str:
    return f"layers.{layer}.engram.embed.scale"


def read(config: Config, folder: Folder, tokenizer: Path | None) -> Checkpoint:
    """Raises EngramError where not even the spec can be made out; everything else becomes a fault."""
    vocab = CanonicalVocab.from_tokenizer(load_tokenizer(str(tokenizer))) if tokenizer else None
    spec = _spec(config, folder, vocab)
    head_dim = config.integer("engram_head_dim", least=1, most=MAX_HEAD_DIM)
    layers = {}
    for layer in spec.layers:
        codes = folder.part(weight_name(layer), "F8_E4M3", spec.rows(layer), head_dim, (layer, "codes", 0))
        scales = folder.part(scale_name(layer), "F8_E8M0", spec.rows(layer), -(-head_dim // GROUP), (layer, "scales", 0))
        if codes and scales:
            layers[layer] = LayerSource(((codes,), (scales,)))
    folder.check_held_once()
    return Checkpoint(
        kind=KIND,
        path=folder.path,
        spec=spec,
        encoding=ENCODINGS["e4m3-e8m0"],
        head_dim=head_dim,
        mapping=vocab.mapping if vocab else np.empty(0, np.int32),
        layers=layers,
        whole_files=folder.small_files(),
        table_files=folder.table_files(),
        faults=tuple(folder.faults),
        notes=() if vocab else (UNPROVEN.format(size=spec.canonical_size),),
    )


def _spec(config: Config, folder: Folder, vocab: CanonicalVocab | None) -> HashSpec:
    blocks = config.integers(LAYERS_KEY)
    order = config.integer("engram_max_ngram_size", least=2, most=MAX_ORDER)
    heads = config.integer("engram_n_heads", least=1, most=MAX_HEADS)
    # Canonical ids are classes of token ids, so there are no more of them than of those, where the configuration says how many.
    tokens = config.integer("vocab_size", default=INT64_MAX)
    canonical_size = config.integer("engram_compressed_vocab_size", least=1, most=tokens)
    if list(blocks) != sorted(set(blocks)):
        raise EngramError(f"{config.path}: {LAYERS_KEY} {brief(list(blocks))} are not in order")
    spec = HashSpec(
        layers=blocks,
        primes=assign_primes(len(blocks), order - 1, heads, config.integer("engram_vocab_size")),
        multipliers=seeded_multipliers("numpy", SEED, blocks, order, canonical_size),
        pad_id=_pad_id(config, folder, vocab, canonical_size),
        canonical_size=canonical_size,
        vocab_fingerprint=vocab.fingerprint if vocab else NO_VOCAB,
        seeding="numpy",
        seed=SEED,
    )
    stated = config.integers("engram_num_embeddings")
    folder.expect("engram_num_embeddings against the sums of the primes", list(stated), [spec.rows(b) for b in blocks])
    return spec


def _pad_id(config: Config, folder: Folder, vocab: CanonicalVocab | None, canonical_size: int) -> int:
    """The canonical id of the pad token; without a tokenizer, the token's own."""
    pad = config.integer("engram_pad_token_id" if "engram_pad_token_id" in config.keys.members else "engram_pad_id")
    if vocab is None or not folder.expect("canonical ids of the tokenizer", vocab.size, canonical_size):
        return pad
    if pad >= len(vocab.mapping):
        raise EngramError(f"{config.path}: the pad token is {pad}, but the tokenizer has {len(vocab.mapping)} tokens")
    return int(vocab.mapping[pad])

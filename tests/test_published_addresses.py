"""Rows of the published models, from data that other people's code produced (tests/golden/PROVENANCE.md)."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from hashing import reference
from hashing.hasher import Hasher
from hashing.named_specs import named_spec
from hashing.spec import HashSpec, assign_primes, seeded_multipliers
from hashing.vocab import CanonicalVocab

GOLDEN = Path(__file__).parent / "golden"

Rows = Callable[[HashSpec, int, Sequence[int]], list[list[int]]]


def compiled_rows(spec: HashSpec, layer: int, ids: Sequence[int]) -> list[list[int]]:
    rows: list[list[int]] = Hasher(spec).rows(layer, np.array([ids], np.int64))[0].tolist()
    return rows


BOTH = pytest.mark.parametrize("rows_of", [reference.rows, compiled_rows], ids=["reference", "compiled"])


def golden(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((GOLDEN / name).read_text())
    assert content["vectors"]
    return content


def as_tuples(nested: Any) -> Any:
    return tuple(map(as_tuples, nested)) if isinstance(nested, list) else nested


def check_constants(spec: HashSpec, content: dict[str, Any]) -> None:
    assert [str(layer) for layer in spec.layers] == list(content["multipliers"])
    assert spec.multipliers == as_tuples(list(content["multipliers"].values()))
    assert spec.primes == as_tuples(list(content["primes"].values()))
    assert spec.pad_id == content["pad_canonical_id"]


@BOTH
def test_demo(vocab_v3: CanonicalVocab, deepseek_v3: Tokenizer, rows_of: Rows) -> None:
    content = golden("hash_engram_demo.json")
    spec = named_spec("engram-demo").spec(vocab_v3)
    check_constants(spec, content)
    for vector in content["vectors"]:
        ids = deepseek_v3.encode(vector["text"], add_special_tokens=False).ids
        assert ids == vector["token_ids"]
        canonical = vocab_v3.canonical(np.array(ids)).tolist()
        assert canonical == vector["canonical_ids"]
        for layer, within_heads in vector["rows"].items():
            expected = np.array(within_heads) + spec.offsets(int(layer))
            assert rows_of(spec, int(layer), canonical) == expected.tolist()


@BOTH
def test_deepseek_v41(vocab_v4: CanonicalVocab, deepseek_v4: Tokenizer, rows_of: Rows) -> None:
    content = golden("hash_deepseek_v41.json")
    spec = named_spec("deepseek-v4.1").spec(vocab_v4)
    check_constants(spec, content)
    assert [spec.rows(layer) for layer in spec.layers] == [384_006_168, 384_016_682]
    assert [spec.rows(layer) for layer in spec.layers] == list(content["spec"]["rows_per_layer"].values())
    assert any(-1 in vector["canonical_ids"] for vector in content["vectors"]), "a dead position is among the vectors"
    for vector in content["vectors"]:
        if "text" in vector:
            ids = deepseek_v4.encode(vector["text"], add_special_tokens=False).ids
            assert ids == vector["token_ids"]
            assert vocab_v4.canonical(np.array(ids)).tolist() == vector["canonical_ids"]
        for layer, expected in vector["rows"].items():
            assert rows_of(spec, int(layer), vector["canonical_ids"]) == expected


@BOTH
def test_qwen_ple(raw_vocab: CanonicalVocab, rows_of: Rows) -> None:
    content = golden("hash_qwen_ple.json")
    spec = named_spec("qwen3.8-ple").spec(raw_vocab)
    assert spec.multipliers == (as_tuples(content["spec"]["multipliers"]),)
    assert spec.primes == (as_tuples(content["primes"]),)
    assert sum(spec.moduli(1)) == content["rows_total"] == 320_001_446
    assert spec.rows(1) == content["rows_padded"] == 320_001_536
    for vector in content["vectors"]:
        assert rows_of(spec, 1, vector["token_ids"]) == vector["rows"]


@BOTH
def test_deepseek_v41_tiny_checkpoint(vocab_v4: CanonicalVocab, rows_of: Rows) -> None:
    folder = GOLDEN / "deepseek_v41_tiny"
    config = json.loads((folder / "config.json").read_text())["text_config"]
    expected = load_file(folder / "expected.safetensors")
    layers = tuple(config["engram_layer_ids"])
    orders = config["engram_max_ngram_size"] - 1
    spec = HashSpec(
        layers=layers,
        primes=assign_primes(len(layers), orders, config["engram_n_heads"], config["engram_vocab_size"]),
        multipliers=seeded_multipliers("numpy", 0, layers, orders + 1, config["engram_compressed_vocab_size"]),
        pad_id=int(vocab_v4.mapping[config["engram_pad_token_id"]]),
        canonical_size=config["engram_compressed_vocab_size"],
        vocab_fingerprint=vocab_v4.fingerprint,
    )
    assert [spec.rows(layer) for layer in layers] == config["engram_num_embeddings"]
    masked = np.where(expected["token_mask"] == 1, expected["token_ids"], -1)
    assert (masked < 0).sum() == 2
    canonical = vocab_v4.canonical(masked)
    for layer in layers:
        for sequence, rows in zip(canonical, expected[f"layer_{layer}/rows"], strict=True):
            assert rows_of(spec, layer, sequence.tolist()) == rows.tolist()


@BOTH
def test_qwen_tiny_checkpoint(rows_of: Rows) -> None:
    folder = GOLDEN / "qwen_tiny"
    config = json.loads((folder / "config.json").read_text())
    config = config.get("text_config", config)
    expected = load_file(folder / "expected.safetensors")
    name = "model.layers.1.ple.ple_embedding.layer_multipliers"
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    stored = tuple(load_file(folder / index[name])[name].tolist())
    eos = config["eos_token_id"]
    spec = HashSpec(
        layers=(1,),
        primes=assign_primes(1, config["ngram_size"] - 1, config["heads_per_ngram"], config["ngram_vocab_size_base"]),
        multipliers=(stored,),
        pad_id=eos,
        canonical_size=config["vocab_size"],
        vocab_fingerprint="raw",
        boundary_id=eos,
        rows_multiple=config["make_ngram_vocab_size_divisible_by"],
        seeding="splitmix64",  # the stored multipliers are those of the seed, or this is refused
        seed=config["seed"],
    )
    shards = [load_file(folder / index[key])[key] for key in index if ".ngram_embedding.shard_" in key]
    assert sum(len(shard) for shard in shards) == spec.rows(1)
    assert (expected["token_ids"] == eos).any()
    for sequence, rows in zip(expected["token_ids"], expected["rows"], strict=True):
        assert rows_of(spec, 1, sequence.tolist()) == rows.tolist()

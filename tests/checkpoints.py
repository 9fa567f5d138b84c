"""Checkpoints of the published families at toy size, written by safetensors and torch with random codes and scales."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from sympy import nextprime

from hashing.spec import seeded_multipliers

GOLDEN = Path(__file__).parent / "golden"
INDEX = "model.safetensors.index.json"


@dataclass
class Made:
    """A checkpoint folder and what its rows stand for."""

    folder: Path
    memory: dict[int, torch.Tensor] = field(default_factory=dict)  # layer → (rows, head_dim) float32

    def expected(self, layer: int, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return self.memory[layer].numpy()[rows]


def primes(count: int, base: int) -> list[int]:
    found = [int(nextprime(base - 1))]
    while len(found) < count:
        found.append(int(nextprime(found[-1])))
    return found


def save(folder: Path, files: list[dict[str, torch.Tensor]], config: dict[str, Any]) -> None:
    folder.mkdir(parents=True)
    weight_map = {}
    for i, tensors in enumerate(files):
        name = f"model-{i + 1:05}-of-{len(files):05}.safetensors"
        save_file(tensors, folder / name)
        weight_map |= dict.fromkeys(tensors, name)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(config))


def e4m3_codes(random: np.random.Generator, shape: tuple[int, int]) -> torch.Tensor:
    """Every code but the two that are no number."""
    codes = random.integers(0, 127, shape, dtype=np.uint8) | random.integers(0, 2, shape, dtype=np.uint8) << 7
    return torch.from_numpy(codes).view(torch.float8_e4m3fn)


def deepseek(folder: Path, base: int = 1500, head_dim: int = 256, layers: tuple[int, ...] = (1, 14), seed: int = 0) -> Made:
    """3 orders of 2 heads; the tables each in a file of their own with a stray tensor, as golden/ has them."""
    random, made, heads = np.random.default_rng(seed), Made(folder), 2
    moduli = primes(3 * heads * len(layers), base)
    rows = [sum(moduli[i * 3 * heads : (i + 1) * 3 * heads]) for i in range(len(layers))]
    files: list[dict[str, torch.Tensor]] = [{"embed.weight": torch.ones(4, 4, dtype=torch.bfloat16)}]
    for layer, count in zip(layers, rows, strict=True):
        codes = e4m3_codes(random, (count, head_dim))
        exponents = random.integers(115, 140, (count, head_dim // 32), dtype=np.uint8)
        scales = torch.from_numpy(exponents).view(torch.float8_e8m0fnu)
        made.memory[layer] = (codes.float().view(count, -1, 32) * scales.float()[:, :, None]).view(count, head_dim)
        name = f"layers.{layer}.engram."
        files.append({f"{name}embed.weight": codes, f"{name}embed.scale": scales, f"{name}q_weight": torch.ones(3, 7)})
    text = {
        "vocab_size": 129280,
        "engram_layer_ids": list(layers),
        "engram_num_embeddings": rows,
        "engram_max_ngram_size": 4,
        "engram_vocab_size": base,
        "engram_n_heads": heads,
        "engram_head_dim": head_dim,
        "engram_pad_token_id": 2,
        "engram_compressed_vocab_size": 99092,
    }
    save(folder, files, {"model_type": "deepseek_v41", "text_config": text})
    return made


def qwen(folder: Path, dtype: torch.dtype, prefix: str = "model.language_model.", base: int = 3000, parts: int = 4) -> Made:
    """2 orders of 4 heads of 160 columns; the parts over two files."""
    random, made, heads, head_dim, vocab = np.random.default_rng(1), Made(folder), 4, 160, 5000
    rows = -(-sum(primes(2 * heads, base)) // 128) * 128
    name = f"{prefix}layers.1.ple.ple_embedding."
    multipliers = seeded_multipliers("splitmix64", 1234, (1,), 3, vocab)[0]
    first: dict[str, torch.Tensor] = {f"{name}layer_multipliers": torch.tensor(multipliers, dtype=torch.int64)}
    if dtype == torch.float8_e4m3fn:
        table = e4m3_codes(random, (rows, head_dim))
        first[f"{name}ngram_embedding.weight_scale"] = torch.tensor([0.0123], dtype=torch.bfloat16)
        made.memory[1] = table.float() * first[f"{name}ngram_embedding.weight_scale"].float()
    else:
        table = torch.from_numpy(random.standard_normal((rows, head_dim))).to(dtype)
        made.memory[1] = table.float()
    files = [first, {"lm_head.weight": torch.ones(2, 2)}]
    for i, part in enumerate(table.split(rows // parts)):
        files[i * 2 // parts][f"{name}ngram_embedding.shard_{i}.weight"] = part.contiguous()
    text = {
        "ngram_size": 3,
        "ngram_vocab_size_base": base,
        "heads_per_ngram": heads,
        "ple_embed_dim": 2 * heads * head_dim,
        "ple_layer_ids": [2],
        "split_ngram_parts": parts,
        "make_ngram_vocab_size_divisible_by": 128,
        "vocab_size": vocab,
        "eos_token_id": 7,
    }
    save(folder, files, {"text_config": text} if "language_model" in prefix else text)
    return made

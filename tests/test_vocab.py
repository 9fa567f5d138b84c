"""The canonical vocabulary against the published counts, and its file against everything that can be wrong with it."""

import json
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from hashing.vocab import CanonicalVocab

GOLDEN = json.loads((Path(__file__).parent / "golden" / "canonical_vocab.json").read_text())


@pytest.mark.parametrize("name", ["deepseek-v3", "deepseek-v4"])
def test_published_vocabularies(name: str, request: pytest.FixtureRequest) -> None:
    expected: dict[str, Any] = GOLDEN[name]
    vocab: CanonicalVocab = request.getfixturevalue(f"vocab_{name[-2:]}")
    assert (len(vocab.tokens), vocab.size) == (expected["tokens"], expected["canonical"])
    assert vocab.reduction_percent == pytest.approx(expected["reduction_percent"], abs=1e-4)
    assert vocab.mapping_sha256 == expected["mapping_int32_le_sha256"]
    classes = [(c["key"], c["size"]) for c in expected["top_classes"]]
    assert classes
    assert vocab.largest_classes(len(classes)) == classes
    spots = {int(token): canonical for token, canonical in expected["spot"].items()}
    assert vocab.canonical(np.array(list(spots))).tolist() == list(spots.values())


def test_129_thousand_tokens_take_at_most_three_seconds(deepseek_v4: Tokenizer) -> None:
    start = perf_counter()
    CanonicalVocab.from_tokenizer(deepseek_v4)
    assert perf_counter() - start < 3

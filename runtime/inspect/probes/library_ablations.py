"""Ablations of a `transformers` model's memory, on texts of the user's own.

The variants are those of a run, at the same named points (`runtime/ablation.py`, `runtime/huggingface.py`).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hashing.text.corpus import Corpus
from runtime.huggingface import ends_of, load, rows_of, tokenizer_of, varied
from runtime.inspect.probes.ablations import AblationView, named_variants, parts_of
from runtime.inspect.probes.probed_text import up_to
from runtime.inspect.probes.splits import Split
from runtime.judged_text import texts_of
from runtime.windows import CONTEXT, Block, Texts

WINDOW = 512  # tokens that the model sees at once


def probe_library_ablations(
    folder: Path,
    store: Path | None,
    corpus: Sequence[Path],
    tokens: int,
    only: Sequence[str] = (),
    advance: Callable[[int, int], None] = lambda _, __: None,
) -> AblationView:
    """`advance` hears how many blocks of windows are done, and how many there are.

    Raises EngramError as `huggingface.load` does and for files without text, and UsageError for an ablation that there is not.
    """
    model = load(folder, "mapped", store)
    tokenizer = tokenizer_of(folder)
    texts = [tokenizer.encode(text, add_special_tokens=False).ids for _, text in texts_of(Corpus(tuple(corpus)))]
    rows = rows_of(model)
    variants = named_variants(rows[0].spec, {each.layer: each.table for each in rows}, True, only)
    windows = Texts(up_to(texts, tokens), WINDOW, ends_of(model)[0])
    nats: dict[str, list[NDArray[np.float64]]] = {name: [] for name in variants}
    documents = []
    for number, block in enumerate(windows):
        judged = block.documents != CONTEXT
        documents.append(block.documents[judged])
        for name, variant in variants.items():
            with varied(model, variant):
                nats[name].append(_losses(model, block)[judged])
        advance(number + 1, windows.blocks)
    everything = np.concatenate(documents)
    whole = Split("", ("all",), np.zeros(len(everything), np.int64))
    return AblationView(parts_of(whole, everything, {name: np.concatenate(own) for name, own in nats.items()})[0], {})


@torch.inference_mode()
def _losses(model: Any, block: Block) -> NDArray[np.float64]:
    """(B, T) Nats of every target."""
    inputs, targets = (torch.from_numpy(ids).to(model.device) for ids in (block.inputs, block.targets))
    logits = model(inputs, use_cache=False).logits.float().log_softmax(-1)
    found: NDArray[np.float64] = -logits.gather(-1, targets[..., None])[..., 0].cpu().numpy().astype(np.float64)
    return found

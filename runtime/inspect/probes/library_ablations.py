"""Ablations of a `transformers` model's memory, on texts of the user's own.

A variant changes the vectors that the memory reads, as those of `runtime/ablation.py` do. Zero vectors suppress it: it has no
biases, so they give a value of zero. What happens inside the memory is the library's, so gates and convolution are not held.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hashing.base.errors import UsageError
from hashing.text.corpus import Corpus
from runtime.ablation import Ablation, in_place_of_rows, intact, mean_rows, named_ablations, suppressed
from runtime.evaluation import WITH_MEMORY
from runtime.huggingface import ablated, ends_of, load, rows_of, tokenizer_of
from runtime.inspect.probes.ablations import MEAN_ROW, SUPPRESSED, AblationView, is_wanted, parts_of
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
    variants = _variants(model, only)
    windows = Texts(up_to(texts, tokens), WINDOW, ends_of(model)[0])
    nats: dict[str, list[NDArray[np.float64]]] = {name: [] for name in variants}
    documents = []
    for number, block in enumerate(windows):
        judged = block.documents != CONTEXT
        documents.append(block.documents[judged])
        for name, ablation in variants.items():
            with ablated(model, ablation):
                nats[name].append(_losses(model, block)[judged])
        advance(number + 1, windows.blocks)
    everything = np.concatenate(documents)
    whole = Split("", ("all",), np.zeros(len(everything), np.int64))
    return AblationView(parts_of(whole, everything, {name: np.concatenate(own) for name, own in nats.items()})[0], {})


def _variants(model: Any, only: Sequence[str]) -> dict[str, Ablation]:
    """By name, with the model as it is first."""
    rows = rows_of(model)
    parts = named_ablations(rows[0].spec)
    names = [SUPPRESSED, MEAN_ROW, *parts]
    for name in only:
        if not any(is_wanted(variant, [name]) for variant in names):
            raise UsageError(f"there is no ablation {name!r} of such a model", hint=f"it has {', '.join(names)}")
    found: dict[str, Ablation] = {SUPPRESSED: suppressed}
    if is_wanted(MEAN_ROW, only):  # a pass over the tables
        found[MEAN_ROW] = in_place_of_rows(mean_rows({each.layer: each.table for each in rows}, rows[0].spec))
    found |= parts
    return {WITH_MEMORY: intact, **{name: variant for name, variant in found.items() if is_wanted(name, only)}}


@torch.inference_mode()
def _losses(model: Any, block: Block) -> NDArray[np.float64]:
    """(B, T) Nats of every target."""
    inputs, targets = (torch.from_numpy(ids).to(model.device) for ids in (block.inputs, block.targets))
    logits = model(inputs, use_cache=False).logits.float().log_softmax(-1)
    found: NDArray[np.float64] = -logits.gather(-1, targets[..., None])[..., 0].cpu().numpy().astype(np.float64)
    return found

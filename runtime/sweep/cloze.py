"""Cloze: of how many questions a model finds the true end the likeliest of those to choose from.

An end's likelihood is that of all its tokens, the full stop included, after an end-of-text token and the prompt. Who knows
nothing of the questions is right in one of 20, whatever the lengths and frequencies of words. A prompt is computed once, in
float32 as decoding does, and its state is what all its ends go on from.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from hashing.text.planted import Question
from runtime.lookup import History, Lookup
from runtime.model.cache import BlockCache, Cache
from runtime.model.language_model import LanguageModel

QUESTIONS_AT_ONCE = 8
PAD = 0  # any token: nothing before it depends on it


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as token ids."""

    prompt: Sequence[int]  # an end-of-text token first
    ends: Sequence[Sequence[int]]
    right: int

    @classmethod
    def of(cls, question: Question, tokenizer: Tokenizer, end_id: int) -> "Asked":
        prompt, *ends = tokenizer.encode_batch([question.prompt, *question.ends], add_special_tokens=False)
        return cls([end_id, *prompt.ids], [end.ids for end in ends], question.right)


def right_percent(model: LanguageModel, lookup: Lookup | None, questions: Sequence[Asked]) -> float:
    """Percent of the questions answered right; with no lookup the memory is suppressed, or there is none."""
    right = 0
    for together in _batches(questions):
        likeliest = end_scores(model, lookup, together).argmax(1)
        right += int((likeliest == [asked.right for asked in together]).sum())
    return 100 * right / len(questions)


def _batches(questions: Sequence[Asked]) -> Iterator[list[Asked]]:
    """Questions whose prompts are of one length."""
    for _, same in groupby(sorted(questions, key=lambda asked: len(asked.prompt)), lambda asked: len(asked.prompt)):
        group = list(same)
        yield from (group[first : first + QUESTIONS_AT_ONCE] for first in range(0, len(group), QUESTIONS_AT_ONCE))


@torch.no_grad()
def end_scores(model: LanguageModel, lookup: Lookup | None, questions: Sequence[Asked]) -> NDArray[np.float32]:
    """(questions, ends) Log-likelihoods; prompts are of one length, and there are as many ends to each."""
    ends = [end for asked in questions for end in asked.ends]
    ids = np.full((len(ends), max(map(len, ends))), PAD, np.int64)
    counted = np.zeros(ids.shape, bool)
    for number, end in enumerate(ends):
        ids[number, : len(end)], counted[number, : len(end)] = end, True
    cache, choices = model.new_cache(), len(questions[0].ends)
    hidden, history = _following(model, lookup, np.array([asked.prompt for asked in questions]), None, cache)
    last = hidden[:, -1:].repeat_interleave(choices, 0)
    if history is not None:
        history = history.repeat(choices, axis=0)
    after, _ = _following(model, lookup, ids[:, :-1].copy(), history, _repeated(cache, choices))
    found = model.head(torch.cat([last, after], dim=1)).log_softmax(-1)  # (ends, T, vocabulary)
    each = found.gather(-1, torch.from_numpy(ids)[..., None].to(found.device))[..., 0].cpu().numpy()
    scores: NDArray[np.float32] = np.where(counted, each, 0).sum(1).reshape(len(questions), choices)
    return scores


def _following(
    model: LanguageModel, lookup: Lookup | None, ids: NDArray[np.int64], history: History | None, cache: Cache
) -> tuple[Tensor, History | None]:
    """Hidden states (B, T, D) of token ids (B, T) that follow those in the cache, and the history for what comes next."""
    vectors, history = lookup.following(ids, history) if lookup else (None, None)
    return model(torch.from_numpy(ids).to(model.device), vectors, cache), history


def _repeated(cache: Cache, times: int) -> Cache:
    """The state of each sequence so many times."""

    def repeated(found: Tensor | None) -> Tensor | None:
        return None if found is None else found.repeat_interleave(times, 0)

    return [BlockCache(one.length, *map(repeated, (one.keys, one.values, one.convolved))) for one in cache]

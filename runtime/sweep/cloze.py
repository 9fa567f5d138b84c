"""Cloze: of how many questions a model finds the true end the likeliest of those to choose from.

An end's likelihood is that of all its tokens, the full stop included, after an end-of-text token and the prompt. Who knows
nothing of the questions is right in one of 20, whatever the lengths and frequencies of words.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from hashing.text.planted import Question
from runtime.config import Precision
from runtime.device import autocast
from runtime.model.language_model import LanguageModel
from runtime.validation import VectorSource

QUESTIONS_AT_ONCE = 4
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


def right_percent(model: LanguageModel, precision: Precision, source: VectorSource | None, questions: Sequence[Asked]) -> float:
    """Percent of the questions answered right; with no source of vectors the memory is suppressed, or there is none."""
    ordered = sorted(questions, key=lambda asked: len(asked.prompt))
    right = 0
    for first in range(0, len(ordered), QUESTIONS_AT_ONCE):
        together = ordered[first : first + QUESTIONS_AT_ONCE]
        scores = _scores(model, precision, source, together)
        right += sum(int(found.argmax()) == asked.right for found, asked in zip(scores, together, strict=True))
    return 100 * right / len(ordered)


@torch.no_grad()
def _scores(
    model: LanguageModel, precision: Precision, source: VectorSource | None, questions: Sequence[Asked]
) -> Sequence[NDArray[np.float32]]:
    """Of each question the log-likelihoods (ends,) of its ends."""
    texts = [(asked.prompt, end) for asked in questions for end in asked.ends]
    longest = max(len(prompt) + len(end) for prompt, end in texts)
    ids = np.full((len(texts), longest), PAD, np.int64)
    judged = np.zeros(ids.shape, bool)
    for number, (prompt, end) in enumerate(texts):
        ids[number, : len(prompt) + len(end)] = [*prompt, *end]
        judged[number, len(prompt) : len(prompt) + len(end)] = True
    inputs, targets, counted = ids[:, :-1].copy(), ids[:, 1:], judged[:, 1:]
    with autocast(model.device, precision):
        hidden = model(torch.from_numpy(inputs).to(model.device), source.vectors(inputs) if source else None)
        nats = _losses(model, hidden, targets, counted)
    sums = np.zeros(counted.shape, np.float32)
    sums[counted] = -nats.cpu().numpy()
    return np.split(sums.sum(1), np.cumsum([len(asked.ends) for asked in questions])[:-1])


def _losses(model: LanguageModel, hidden: Tensor, targets: NDArray[np.int64], counted: NDArray[np.bool_]) -> Tensor:
    """(tokens,) The loss of every target that counts, in nats; logits are made for these alone."""
    where = torch.from_numpy(counted).to(hidden.device)
    expected = torch.from_numpy(targets[counted]).to(hidden.device)
    return torch.nn.functional.cross_entropy(model.head(hidden[where]).float(), expected, reduction="none")

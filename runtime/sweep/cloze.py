"""Cloze: of how many questions a model finds the true end the likeliest of those to choose from.

An end's likelihood is that of all its tokens, the full stop included, after an end-of-text token and the prompt. Who knows
nothing of the questions is right in one of 20, whatever the lengths and frequencies of words. A prompt is computed once, in
float32 as decoding does, and its state is what all its ends go on from.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from hashing.text.planted import Question
from runtime.decoder import Decoded, Decoder
from runtime.lookup import Lookup
from runtime.model.language_model import LanguageModel

QUESTIONS_AT_ONCE = 8


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
    for first in range(0, len(questions), QUESTIONS_AT_ONCE):
        together = questions[first : first + QUESTIONS_AT_ONCE]
        likeliest = end_scores(model, lookup, together).argmax(1)
        right += int((likeliest == [asked.right for asked in together]).sum())
    return 100 * right / len(questions)


def end_scores(model: LanguageModel, lookup: Lookup | None, questions: Sequence[Asked]) -> NDArray[np.float32]:
    """(questions, ends) Log-likelihoods; there are as many ends to each question."""
    decoder, sequences = Decoder(model, lookup), [Decoded() for _ in questions]
    lasts = np.cumsum([len(asked.prompt) for asked in questions]) - 1
    before = decoder.hidden([(each, asked.prompt) for each, asked in zip(sequences, questions, strict=True)])[lasts.tolist()]
    ends = [end for asked in questions for end in asked.ends]
    forks = [fork for each, asked in zip(sequences, questions, strict=True) for fork in decoder.forked(each, len(asked.ends))]
    following = decoder.hidden([(fork, end[:-1]) for fork, end in zip(forks, ends, strict=True) if len(end) > 1])
    choices = len(questions[0].ends)
    hidden = _interleaved(before.repeat_interleave(choices, 0), following, [len(end) - 1 for end in ends])
    found = decoder.head(hidden).log_softmax(-1)  # (tokens of all ends, vocabulary)
    each = found.gather(-1, torch.tensor([[token] for end in ends for token in end], device=found.device))[:, 0].cpu().numpy()
    scores: NDArray[np.float32] = np.add.reduceat(each, np.cumsum([0, *map(len, ends[:-1])]))
    return scores.reshape(len(questions), choices)


def _interleaved(firsts: Tensor, others: Tensor, lengths: Sequence[int]) -> Tensor:
    """Each line of `firsts` (N, D), followed by as many lines of `others` as `lengths` says."""
    parts = zip(torch.split(firsts, 1), torch.split(others, list(lengths)), strict=True)
    return torch.cat([part for pair in parts for part in pair])

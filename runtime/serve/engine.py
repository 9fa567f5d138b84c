"""Engine: continues many texts together, one step at a time.

A step is: schedule, compute, sample, hand out. Completions join and leave between steps.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from runtime.decoder import Decoder
from runtime.serve.completion import Completion, Likelihoods, Piece
from runtime.serve.scheduler import Scheduler

STEP_TOKENS = 512
MOST_RUNNING = 64
CACHE_BYTES = 512 << 20
CACHE_TOKENS = MOST_RUNNING << 10


@dataclass(frozen=True, slots=True)
class Limits:
    cache_bytes: int = CACHE_BYTES  # of pages: keys, values and what the memory carries on
    cache_tokens: int = CACHE_TOKENS  # of all pages, where these take less
    step_tokens: int = STEP_TOKENS
    running: int = MOST_RUNNING


class Engine:
    def __init__(self, decoder: Decoder, tokenizer: Tokenizer, end_ids: Collection[int], limits: Limits = Limits()) -> None:
        self.decoder, self.tokenizer, self.end_ids = decoder, tokenizer, end_ids
        self.scheduler = Scheduler(self.decoder, limits.step_tokens, limits.running)
        self._all_generate = False  # whether the last step brought all that run to their next token

    def add(self, completion: Completion) -> None:
        """It is continued from the next step on."""
        assert completion.has_work, "there is nothing to compute"
        self.scheduler.waiting.append(completion)

    def cancel(self, completion: Completion) -> None:
        self.scheduler.remove(completion)

    def drop_all(self) -> None:
        """Ends every completion, and forgets all beginnings."""
        for completion in [*self.scheduler.waiting, *self.scheduler.running]:
            self.scheduler.remove(completion)
        self.scheduler.prefixes.give_back(len(self.scheduler.prefixes))

    @property
    def is_idle(self) -> bool:
        return not (self.scheduler.waiting or self.scheduler.running)

    @property
    def is_decoding(self) -> bool:
        """Whether the next step computes one token of each completion, and no prompt."""
        return not self.scheduler.waiting and self._all_generate

    @torch.inference_mode()
    def step(self) -> list[tuple[Completion, Piece]]:
        """What one step adds to each of the completions that it brings to their next token."""
        scheduled = self.scheduler.scheduled()
        pieces = [
            (each.decoded, each.token_ids[each.decoded.length : each.decoded.length + count]) for each, count in scheduled
        ]
        hidden, complete, last, end = self.decoder.hidden(pieces), list[Completion](), list[int](), 0
        for each, count in scheduled:
            end += count
            if each.of_prompt:
                self._score_prompt(each, hidden[end - count : end])
            if each.pending == 0:
                complete.append(each)
                last.append(end - 1)
        self._all_generate = len(complete) == len(self.scheduler.running)
        if not complete:
            return []
        return self._handed_out(complete, self.decoder.head(hidden if len(last) == len(hidden) else hidden[last]))

    def _handed_out(self, completions: Sequence[Completion], logits: Tensor) -> list[tuple[Completion, Piece]]:
        """A token for each completion, from logits (completions, vocabulary)."""
        found = []
        likeliest, finite = _likeliest(logits)
        for number, (completion, token) in enumerate(zip(completions, likeliest, strict=True)):
            generated, wanted, likelihoods = completion.generated, completion.likeliest, None
            if not finite[number]:
                self.scheduler.remove(completion)
                found.append((completion, Piece("", (), (), "error")))
                continue
            if generated == 0:
                self.scheduler.keep(completion)
            if completion.sampling.max_tokens == 0:
                piece = Piece("", (), (), "length")
            else:
                if not completion.sampling.is_argmax:
                    token = completion.sampler(logits[number], completion.token_ids[-1 if generated else 0 :])
                if wanted is not None:
                    likelihoods = _likelihoods(logits[number : number + 1], [token], wanted)[0]
                piece = completion.take(token, self.end_ids, likelihoods)
            if piece.finish_reason:
                self.scheduler.keep(completion)
                self.scheduler.remove(completion)
            found.append((completion, piece))
        return found

    def _score_prompt(self, completion: Completion, states: Tensor) -> None:
        """Adds the likelihoods of the prompt's tokens that follow hidden states (T, D)."""
        first = completion.decoded.length - len(states) + 1
        following = completion.token_ids[first : completion.prompt_tokens][: len(states)]
        if following:
            logits = self.decoder.head(states[: len(following)])
            completion.prompt_likelihoods += _likelihoods(logits, following, completion.likeliest or 0)


def _likeliest(logits: Tensor) -> tuple[list[int], list[bool]]:
    """Of each row of logits (tokens, vocabulary) the largest one's token, and whether it is finite. NaN counts as largest."""
    if not (logits.is_cpu and logits.dtype == torch.float32):
        largest, tokens = logits.max(-1)
        return tokens.tolist(), largest.isfinite().tolist()
    found = logits.numpy()  # which needs a fraction of the time that torch does
    tokens_found = found.argmax(-1)
    return tokens_found.tolist(), np.isfinite(found[np.arange(len(found)), tokens_found]).tolist()


def _likelihoods(logits: Tensor, token_ids: Sequence[int], likeliest: int) -> list[Likelihoods]:
    """Of each token, after logits (tokens, vocabulary)."""
    found = logits.float().log_softmax(-1)
    own = found.gather(-1, torch.tensor(token_ids, device=found.device)[:, None])[:, 0].tolist()
    values, ids = found.topk(min(likeliest, found.shape[-1]), dim=-1)
    tops = zip(ids.tolist(), values.tolist(), strict=True)
    return [Likelihoods(value, list(zip(*top, strict=True))) for value, top in zip(own, tops, strict=True)]

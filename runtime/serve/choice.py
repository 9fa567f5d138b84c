"""Choice: what is answered for one completion, in OpenAI's shape, whole or in pieces."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from tokenizers import Tokenizer

from runtime.serve.completion import Completion, Likelihoods, Piece


@dataclass(slots=True)
class Choice:
    index: int
    completion: Completion
    tokenizer: Tokenizer
    echo: str | None  # the prompt's text, where the answer begins with it
    with_likelihoods: bool  # whether they are answered
    text: str = ""
    finish_reason: str | None = None
    likelihoods: list[Likelihoods] = field(default_factory=list)  # of generated tokens
    token_ids: list[int] = field(default_factory=list)
    _offset: int = 0  # characters of the tokens that were written

    def add(self, piece: Piece) -> dict[str, Any]:
        """Takes a piece, and gives it as a part of a stream."""
        is_first = not self.token_ids and not self.text
        self.text += piece.text
        self.token_ids += piece.token_ids
        self.likelihoods += piece.likelihoods
        self.finish_reason = piece.finish_reason
        return self._written(piece.text, piece.token_ids, piece.likelihoods, is_first)

    def whole(self) -> dict[str, Any]:
        self._offset = 0
        return self._written(self.text, self.token_ids, self.likelihoods, True)

    def mean_likelihood(self) -> float:
        """Of the generated tokens, by which the best of several is chosen."""
        return sum(each.own for each in self.likelihoods) / max(1, len(self.likelihoods))

    def _written(self, text: str, ids: Sequence[int], known: Sequence[Likelihoods | None], with_echo: bool) -> dict[str, Any]:
        if with_echo and self.echo is not None:
            prompt = self.completion.token_ids[: self.completion.prompt_tokens]
            text, ids, known = self.echo + text, [*prompt, *ids], [None, *self.completion.prompt_likelihoods, *known]
        logprobs = self._logprobs(ids, known) if self.with_likelihoods else None
        return {"index": self.index, "text": text, "logprobs": logprobs, "finish_reason": self.finish_reason}

    def _logprobs(self, ids: Sequence[int], known: Sequence[Likelihoods | None]) -> dict[str, Any]:
        tokens = [self._token(token) for token in ids]
        offsets = [self._offset + before for before in accumulate(map(len, tokens), initial=0)]
        self._offset = offsets.pop()
        return {
            "tokens": tokens,
            "token_logprobs": [each and each.own for each in known],
            "top_logprobs": [each and {self._token(token): value for token, value in each.likeliest} for each in known],
            "text_offset": offsets,
        }

    def _token(self, token: int) -> str:
        return str(self.tokenizer.decode([token], skip_special_tokens=False))

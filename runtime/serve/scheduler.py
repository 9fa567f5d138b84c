"""Scheduler: which completions go on in a step, and by how many tokens.

Completions that generate go first, a token each; the rest of a step's tokens goes to prompts, in the order in which they came,
piece by piece. A completion gets its pages when its tokens are computed. When there are no more, a younger one gives its pages
back and waits in front of the others; what it had generated is computed again with its prompt.
"""

from collections import deque
from collections.abc import Container, Iterator

from runtime.decoder import Decoded, Decoder, pages_for
from runtime.model.pages import PAGE
from runtime.serve.completion import Completion
from runtime.serve.prefixes import Prefixes


class Scheduler:
    """`step_tokens` is how many tokens a step computes, `most_running` how many completions go on at a time."""

    def __init__(self, decoder: Decoder, step_tokens: int, most_running: int) -> None:
        self._decoder, self._step_tokens, self._most_running = decoder, step_tokens, most_running
        self.prefixes = Prefixes(decoder.pool)
        self.waiting: deque[Completion] = deque()
        self.running: list[Completion] = []

    def fits(self, tokens: int) -> bool:
        """Whether there are pages for a completion of so many tokens, when nothing else goes on."""
        return pages_for(tokens) <= self._decoder.most_pages

    def scheduled(self) -> list[tuple[Completion, int]]:
        """Completions with the number of their tokens to compute now; their pages are taken."""
        left, found = self._step_tokens, dict[Completion, int]()
        for completion, pending in self._in_turn():
            count = min(pending, left)
            if count == 0:
                break
            if completion in self.running and self._has_room(completion, count, found):
                found[completion] = count
                left -= count
        return list(found.items())

    def _in_turn(self) -> Iterator[tuple[Completion, int]]:
        """Those that generate, then those whose prompt was begun, then those that wait, as long as more may go on.

        Each with how many tokens are to be computed.
        """
        known = [(completion, completion.pending) for completion in self.running]
        yield from sorted(known, key=lambda each: each[1] > 1)
        while self.waiting and len(self.running) < self._most_running:
            completion = self.waiting.popleft()
            self._begin(completion)
            self.running.append(completion)
            yield completion, completion.pending

    def _begin(self, completion: Completion) -> None:
        """At the end of the longest beginning that is known, unless the likelihoods of the prompt are wanted."""
        if self._decoder.shares_pages and not completion.of_prompt:
            pages = self.prefixes.matched(completion.token_ids)
            completion.decoded = self._decoder.resumed(completion.token_ids, pages)

    def _has_room(self, completion: Completion, count: int, scheduled: Container[Completion]) -> bool:
        """Takes the pages for so many more tokens, if need be from prefixes and from younger completions that rest now."""
        decoded = completion.decoded
        if decoded.length + count <= PAGE * len(decoded.pages):
            return True
        needed = pages_for(decoded.length + count) - len(decoded.pages)
        while needed > self._free:
            if self.prefixes:
                self.prefixes.give_back(needed - self._free)
                continue
            younger = self.running[self.running.index(completion) + 1 :]
            idle = [other for other in younger if other not in scheduled]
            if not idle:
                return False
            self._put_back(idle[-1])
        self._decoder.reserve([(decoded, completion.token_ids[decoded.length : decoded.length + count])])
        return True

    @property
    def _free(self) -> int:
        return self._decoder.most_pages - len(self._decoder.pool) + self._decoder.pool.free

    def _put_back(self, completion: Completion) -> None:
        self.remove(completion)
        completion.decoded = Decoded()
        self.waiting.appendleft(completion)

    def remove(self, completion: Completion) -> None:
        """Ends a completion, wherever it is."""
        if completion in self.running:
            self.running.remove(completion)
            self._decoder.release(completion.decoded)
        else:
            self.waiting.remove(completion)

    def keep(self, completion: Completion) -> None:
        """Remembers the pages of what was computed of it."""
        if not self._decoder.shares_pages:
            return
        decoded = completion.decoded
        self.prefixes.keep(completion.token_ids[: decoded.length], decoded.pages)

"""Prefixes: full pages of earlier sequences, kept for those that begin alike.

A page is found by the page before it and its own token ids, so what is found has the same tokens from the beginning on, with no
chance of another. Those used longest ago are given back first, a page always before the one that it follows.
"""

from collections.abc import Sequence

import numpy as np

from runtime.model.pages import PAGE
from runtime.page_pool import PagePool

Key = tuple[int, bytes]
FIRST = -1  # stands for the page before the first


class Prefixes:
    def __init__(self, pool: PagePool) -> None:
        self._pool = pool
        self._pages: dict[Key, int] = {}  # those used longest ago first

    def __len__(self) -> int:
        return len(self._pages)

    def matched(self, token_ids: Sequence[int]) -> list[int]:
        """The pages of the longest known beginning, each with a holder more; at least one token is left to be computed."""
        found: list[int] = []
        chain: list[Key] = []
        for content in _contents(token_ids, (len(token_ids) - 1) // PAGE):
            key = (found[-1] if found else FIRST, content)
            if key not in self._pages:
                break
            chain.append(key)
            found.append(self._pages[key])
        self._use(chain)
        self._pool.share(found)
        return found

    def keep(self, token_ids: Sequence[int], pages: Sequence[int]) -> None:
        """Remembers the full pages of a sequence whose tokens were all computed, where no other page has the same."""
        before, chain = FIRST, list[Key]()
        for content, page in zip(_contents(token_ids, len(token_ids) // PAGE), pages, strict=False):
            chain.append((before, content))
            if chain[-1] not in self._pages:
                self._pages[chain[-1]] = page
                self._pool.share([page])
            before = self._pages[chain[-1]]
        self._use(chain)

    def _use(self, chain: Sequence[Key]) -> None:
        """Makes them the last used, a page after those that follow it: it must not be given back before them."""
        for key in reversed(chain):
            self._pages[key] = self._pages.pop(key)

    def give_back(self, pages: int) -> None:
        """Forgets so many pages, or as many as there are; those that no sequence holds are free then."""
        for key in list(self._pages)[:pages]:
            self._pool.release([self._pages.pop(key)])


def _contents(token_ids: Sequence[int], pages: int) -> list[bytes]:
    ids = np.array(token_ids[: pages * PAGE], np.int64)
    return [line.tobytes() for line in ids.reshape(pages, PAGE)]

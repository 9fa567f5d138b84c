"""PagePool: which pages are free, and how many sequences hold each of the others."""

from collections.abc import Iterable


class PagePool:
    def __init__(self) -> None:
        self._free: list[int] = []
        self._holders: list[int] = []  # of each page

    def __len__(self) -> int:
        return len(self._holders)

    @property
    def free(self) -> int:
        return len(self._free)

    def grow(self, count: int) -> None:
        """Adds free pages until there are `count` in all."""
        self._free += reversed(range(len(self._holders), count))
        self._holders += [0] * (count - len(self._holders))

    def take(self) -> int:
        """A free page, for one holder."""
        page = self._free.pop()
        self._holders[page] = 1
        return page

    def share(self, pages: Iterable[int]) -> None:
        """Gives each page one more holder."""
        for page in pages:
            assert self._holders[page] > 0, "a free page is taken, not shared"
            self._holders[page] += 1

    def release(self, pages: Iterable[int]) -> None:
        """Takes one holder from each page; pages without any are free."""
        for page in pages:
            assert self._holders[page] > 0, "who releases a page holds it"
            self._holders[page] -= 1
            if self._holders[page] == 0:
                self._free.append(page)

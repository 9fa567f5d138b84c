"""Shared beginnings: what is found has the same tokens, nothing is freed while it is held, and all of it can be given back."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.model.pages import PAGE
from runtime.page_pool import PagePool
from runtime.serve.prefixes import Prefixes


def text(words: list[int], rest: int) -> list[int]:
    """Token ids: a page for each word, and some that fill no page."""
    return [word for word in words for _ in range(PAGE)] + [9] * rest


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("run"), st.lists(st.integers(0, 1), max_size=4), st.integers(1, PAGE)),
            st.tuples(st.just("give back"), st.just([]), st.integers(1, 5)),
        ),
        max_size=30,
    )
)
def test_against_what_each_page_was_filled_with(actions: list[tuple[str, list[int], int]]) -> None:
    pool = PagePool()
    pool.grow(8)
    prefixes, filled = Prefixes(pool), dict[int, tuple[int, ...]]()  # page → all tokens up to its end
    known: set[tuple[int, ...]] = set()
    for action, words, number in actions:
        if action == "give back":
            prefixes.give_back(number)
            known = {filled[page] for page in prefixes._pages.values()}
            continue
        ids = text(words, number)
        found = prefixes.matched(ids)
        assert [filled[page] for page in found] == [tuple(ids[: (n + 1) * PAGE]) for n in range(len(found))]
        longest = next((n for n in range((len(ids) - 1) // PAGE, 0, -1) if tuple(ids[: n * PAGE]) in known), 0)
        assert len(found) == longest
        needed = -(-len(ids) // PAGE) - len(found)
        if needed > pool.free:
            prefixes.give_back(len(prefixes))
            known.clear()
        pages = found + [pool.take() for _ in range(needed)]
        for n in range(len(found), len(ids) // PAGE):
            filled[pages[n]] = tuple(ids[: (n + 1) * PAGE])
        prefixes.keep(ids, pages)
        known |= {tuple(ids[: n * PAGE]) for n in range(1, len(ids) // PAGE + 1)}
        pool.release(pages)
    prefixes.give_back(len(prefixes))
    assert pool.free == len(pool) == 8


def test_the_end_of_a_beginning_is_given_back_first() -> None:
    pool = PagePool()
    pool.grow(6)
    prefixes = Prefixes(pool)
    for words in ([1, 2, 3], [4, 5, 6]):
        pages = [pool.take() for _ in range(3)]
        prefixes.keep(text(words, 0), pages)
        pool.release(pages)
    prefixes.give_back(2)
    assert len(prefixes.matched(text([1, 2, 3], 1))) == 1
    assert len(prefixes.matched(text([4, 5, 6], 1))) == 3


def test_a_whole_text_is_never_all_known() -> None:
    """Its last token is computed, since what follows is drawn from it."""
    pool = PagePool()
    pool.grow(2)
    prefixes, pages, ids = Prefixes(pool), [pool.take(), pool.take()], text([1, 2], 0)
    prefixes.keep(ids, pages)
    assert len(prefixes.matched(ids)) == 1
    assert len(prefixes.matched([*ids, 7])) == 2
    assert np.array_equal(prefixes.matched([3]), [])

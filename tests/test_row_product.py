"""Products row by row are torch's, and a row's bits are the same beside any others; and what waits in an inbox."""

import asyncio

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from hashing.base.errors import EngramError
from runtime.model import row_product
from runtime.model.row_product import WIDTH, Linear, RowProduct, row_by_row
from runtime.serve.completion import Completion, Piece
from runtime.serve.inbox import Inbox
from runtime.serve.sampler import Sampling
from runtime.serve.text_cutter import TextCutter
from tests.small_tokenizers import byte_level


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 40), inputs=st.integers(1, 70), outputs=st.integers(1, 3 * WIDTH), first=st.integers(0, 39))
@torch.no_grad()
def test_products_of_rows(rows: int, inputs: int, outputs: int, first: int) -> None:
    generator = torch.Generator().manual_seed(rows * inputs + outputs)
    x, weight = (torch.randn(count, inputs, generator=generator) for count in (rows, outputs))
    product = RowProduct()
    with row_by_row():
        whole = product(x, weight)
        torch.testing.assert_close(whole, functional.linear(x, weight), rtol=1e-4, atol=1e-4)
        some = slice(first % rows, min(rows, first % rows + 1 + first % 5))
        assert torch.equal(product(x[some].contiguous(), weight), whole[some])
        assert torch.equal(product(x[None, :, None].contiguous(), weight), whole[None, :, None])


@torch.no_grad()
def test_parts_of_a_large_product_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, product = torch.randn(9, 30), torch.randn(5 * WIDTH + 3, 30), RowProduct()
    with row_by_row():
        whole = product(x, weight)
        monkeypatch.setattr(row_product, "WORTH_A_THREAD", 0)
        monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
        assert torch.equal(product(x, weight), whole)


def test_a_matrix_that_changes_is_copied_again() -> None:
    layer, x = Linear(12, 20, bias=True), torch.randn(3, 12)
    for _ in range(3):
        with torch.no_grad():
            layer.weight.add_(1)
            with row_by_row():
                torch.testing.assert_close(layer(x), functional.linear(x, layer.weight, layer.bias), rtol=1e-5, atol=1e-5)
    other = Linear(12, 20, bias=True)
    layer.load_state_dict(other.state_dict())
    with torch.no_grad(), row_by_row():
        torch.testing.assert_close(layer(x), functional.linear(x, other.weight, other.bias), rtol=1e-5, atol=1e-5)


def test_outside_of_decoding_products_are_torch_s() -> None:
    layer, x = Linear(12, 20), torch.randn(5, 12)
    with torch.no_grad():
        assert torch.equal(layer(x), functional.linear(x, layer.weight))
    with row_by_row():
        layer(x).sum().backward()
    assert layer.weight.grad is not None


def completion() -> Completion:
    return Completion([1], Sampling(max_tokens=9, stop=("~",)), TextCutter(byte_level("<E>"), ("~",)))


def test_an_inbox_wakes_at_once_then_now_and_then_and_in_the_end() -> None:
    async def taken() -> list[list[str]]:
        first, second, inbox = completion(), completion(), Inbox(2, streams=True)
        found = []
        inbox.put(first, Piece("a", (1,)), 1.0, 1000.0)
        found.append([piece.text for _, piece in await inbox.take()])
        inbox.put(first, Piece("b", (2,)), 1.0, 1000.0)
        inbox.put(second, Piece("c", (3,)), 1.0, 1000.0)
        inbox.put(first, Piece("d", (4,), (), "stop"), 1.0, 1000.0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(inbox.take(), 0.01)
        inbox.flush()
        pieces = await inbox.take()
        found.append([piece.text for _, piece in pieces])
        assert [(piece.token_ids, piece.finish_reason) for _, piece in pieces] == [([2, 4], "stop"), ([3], None)]
        inbox.put(second, Piece("", (), (), "length"), 1.0, 1000.0)
        found.append([str(piece.finish_reason) for _, piece in await inbox.take()])
        return found

    assert asyncio.run(taken()) == [["a"], ["bd", "c"], ["length"]]


def test_an_inbox_of_a_whole_answer_wakes_once() -> None:
    async def run() -> None:
        one, inbox = completion(), Inbox(1, streams=False)
        for _ in range(3):
            inbox.put(one, Piece("x", (1,)), 5.0, 1000.0)
            inbox.flush()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(inbox.take(), 0.01)
        inbox.put(one, Piece("y", (2,), (), "stop"), 5.0, 1000.0)
        assert [(piece.text, piece.finish_reason) for _, piece in await inbox.take()] == [("xxxy", "stop")]
        inbox.fail(EngramError("no more"))
        with pytest.raises(EngramError, match="no more"):
            await inbox.take()

    asyncio.run(run())

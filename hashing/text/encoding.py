"""Encoding documents: texts in, token ids out, in order, on all cores and in bounded memory.

Neighbouring texts are encoded together in a batch, and as many batches at a time as there are cores, each in a thread: the
tokenizer lets go of the interpreter. What it could do itself, to share each batch among the cores, is off meanwhile: threads
that wait for each other in every batch cost a tenth of the time.
"""

import os
from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from hashing.base.cores import CORES

BATCH_CHARS = 1 << 17  # of text, unless one document has more: a core keeps 200 bytes for each character of its batch
PARALLELISM = "TOKENIZERS_PARALLELISM"
AHEAD = 4  # batches for each core, encoded or waiting to be: what a core has to do while the ids wait for the drive

Ids = NDArray[np.int32]


def encode_documents(tokenizer: Tokenizer, end_id: int, texts: Iterable[str]) -> Iterator[Ids]:
    """Token ids (tokens,) of each document in order, `end_id` last. Texts are taken some batches ahead of the ids given."""
    threads = ThreadPoolExecutor(CORES, thread_name_prefix="encode")
    waiting: deque[Future[list[Ids]]] = deque()
    with _batches_on_one_core():
        try:
            for batch in _batches(texts):
                waiting.append(threads.submit(_encoded, tokenizer, end_id, batch))
                if len(waiting) == AHEAD * CORES:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            threads.shutdown(cancel_futures=True)


@contextmanager
def _batches_on_one_core() -> Iterator[None]:
    """The tokenizer asks the environment at every batch whether to share it among cores; what stood there stands afterwards."""
    before = os.environ.get(PARALLELISM)
    os.environ[PARALLELISM] = "false"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(PARALLELISM, None)
        else:
            os.environ[PARALLELISM] = before


def _encoded(tokenizer: Tokenizer, end_id: int, batch: list[str]) -> list[Ids]:
    encodings = tokenizer.encode_batch_fast(batch, add_special_tokens=False)
    return [np.frombuffer(array("i", [*encoding.ids, end_id]), np.int32) for encoding in encodings]


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Neighbouring texts of `BATCH_CHARS` characters together, or a longer one alone."""
    batch: list[str] = []
    chars = 0
    for text in texts:
        if batch and chars + len(text) > BATCH_CHARS:
            yield batch
            batch, chars = [], 0
        batch.append(text)
        chars += len(text)
    if batch:
        yield batch

"""Encoding documents: texts in, token ids out, in order, on all cores and in bounded memory.

Neighbouring texts are encoded together in a batch, and several batches at a time, each in a thread. The tokenizer lets go of
the interpreter and shares a batch among cores itself; what a batch of one long text leaves idle another takes, and whoever asks
for the ids reads and writes meanwhile.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from hashing.base.cores import CORES

BATCH_CHARS = 1 << 17  # of text, unless one document has more: a core keeps 200 bytes for each character of its batch
AHEAD = 4  # batches for each core, encoded or waiting to be: what a core has to do while the ids wait for the drive

Ids = NDArray[np.int32]


def encode_documents(tokenizer: Tokenizer, end_id: int, texts: Iterable[str]) -> Iterator[Ids]:
    """Token ids (tokens,) of each document in order, `end_id` last. Texts are taken some batches ahead of the ids given."""
    threads = ThreadPoolExecutor(CORES, thread_name_prefix="encode")
    waiting: deque[Future[list[Ids]]] = deque()
    try:
        for batch in _batches(texts):
            waiting.append(threads.submit(_encoded, tokenizer, end_id, batch))
            if len(waiting) == AHEAD * CORES:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)


def _encoded(tokenizer: Tokenizer, end_id: int, batch: list[str]) -> list[Ids]:
    encodings = tokenizer.encode_batch_fast(batch, add_special_tokens=False)
    return [np.fromiter([*encoding.ids, end_id], np.int32, len(encoding) + 1) for encoding in encodings]


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

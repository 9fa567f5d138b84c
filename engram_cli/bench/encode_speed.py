"""How fast a corpus is encoded from its files to files of token ids, beside the tokenizer alone.

`tokenizer` is `Tokenizer.encode_batch_fast` on all cores over texts that are in memory, neighbours together; what it makes is
dropped at once. `engram` is what a training begins with: files read, decompressed and divided into documents, every document
encoded and written, and the drive waited for at every commit. Both take turns, and of each way the fastest round counts.
"""

import math
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from hashing.base.atomic import remove
from hashing.text.corpus import Corpus
from runtime.tokens_writer import encoded_corpus

BATCH_CHARS = 1 << 19  # of the tokenizer alone: the fastest of 2^15 to 2^22
END_ID = 0  # of a document; it makes no difference to the time


@dataclass(frozen=True, slots=True)
class EncodeSpeed:
    """How long each way takes for a corpus."""

    documents: int
    text_bytes: int
    tokens: int
    sec: dict[str, float]

    def megabytes_per_sec(self, way: str) -> float:
        """Of text as UTF-8."""
        return self.text_bytes / 1e6 / self.sec[way]

    @property
    def times_tokenizer(self) -> float:
        """Our speed as a multiple of the tokenizer's own."""
        return self.sec["tokenizer"] / self.sec["engram"]


class EncodeWays:
    """The ways to encode one corpus; files are written into `folder`."""

    def __init__(self, corpus: Corpus, tokenizer: Tokenizer, folder: Path) -> None:
        self.corpus, self.tokenizer, self.folder = corpus, tokenizer, folder
        self.batches: list[list[str]] = []

    def read(self) -> None:
        """Puts the texts in memory, for the tokenizer alone."""
        chars = BATCH_CHARS
        for document in self.corpus.documents():
            if chars >= BATCH_CHARS:
                self.batches.append([])
                chars = 0
            self.batches[-1].append(document.text)
            chars += len(document.text)

    def tokenizer_alone(self) -> None:
        for batch in self.batches:
            self.tokenizer.encode_batch_fast(batch, add_special_tokens=False)

    def engram(self) -> int:
        """How many tokens the files have."""
        remove(self.folder / "tokens")
        with encoded_corpus(self.folder / "encoded", self.corpus, self.tokenizer, END_ID) as encoded:
            return sum(encoded.place(self.folder / "tokens").counts.values())


def measure(corpus: Corpus, tokenizer: Tokenizer, folder: Path, rounds: int) -> EncodeSpeed:
    ways = EncodeWays(corpus, tokenizer, folder)
    ways.read()
    sec, tokens = {"tokenizer": math.inf, "engram": math.inf}, 0
    for _ in range(rounds):  # none to warm up: each takes seconds
        began = time.perf_counter()
        ways.tokenizer_alone()
        between = time.perf_counter()
        tokens = ways.engram()
        sec["tokenizer"] = min(sec["tokenizer"], between - began)
        sec["engram"] = min(sec["engram"], time.perf_counter() - between)
    texts = [text for batch in ways.batches for text in batch]
    text_bytes = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    return EncodeSpeed(len(texts), text_bytes, tokens, sec)


def peak_bytes(corpus: Corpus, tokenizer: Path, folder: Path) -> int:
    """By how much our way's memory grows, in a process of its own."""
    corpus.save(folder / "corpus.json")
    command = [sys.executable, "-m", "engram_cli.bench.encode_memory", str(folder / "corpus.json"), str(tokenizer), str(folder)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

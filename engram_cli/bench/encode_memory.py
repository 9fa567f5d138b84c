"""The memory that encoding a corpus takes, in the process that runs this file: `bench encode` starts it.

Prints by how many bytes the resident memory at its highest exceeds what it was with the modules and the tokenizer loaded.
"""

import sys
from pathlib import Path

from engram_cli.bench.encode_speed import EncodeWays
from engram_cli.bench.resident import peak_growth
from hashing.text.corpus import Corpus
from hashing.text.tokenizer import load_tokenizer


def main(corpus: Path, tokenizer: str, folder: Path) -> None:
    print(peak_growth(EncodeWays(Corpus.load(corpus), load_tokenizer(tokenizer), folder).engram))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))

"""The memory that counting takes, by one way, in the process that runs this file: `bench count` starts it for each.

Prints by how many bytes the resident memory at its highest exceeds what it was when the modules were loaded, the ids were there
and a handful of them had been counted.
"""

import sys
from pathlib import Path

import numpy as np

from engram_cli.bench.count_speed import CountWays
from engram_cli.bench.resident import peak_growth

FEW = 5000  # tokens that are counted first


def main(way: str, size: int, order: int, folder: Path) -> None:
    ids = np.load(folder / "ids.npy")
    CountWays(ids[:FEW], size, order, folder).all()[way]()
    print(peak_growth(lambda: CountWays(ids, size, order, folder).all()[way]()))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))

"""How fast tables are imported, exported and verified, beside `cp` and plain reading: the figures of `engram bench table`.

All of them leave what they write with the system, which writes it to the drive by and by. Ways take turns, and the best round
of each counts; before each turn what was written is removed and the drive has everything, so that none pays for another's
writing.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from engram_cli.bench.timing import time_in_turn
from hashing.base.cores import CORES
from hashing.spec import assign_primes
from table.checkpoints.deepseek import scale_name, weight_name
from table.checkpoints.exporter import export
from table.checkpoints.family import read_checkpoint
from table.checkpoints.folder import INDEX
from table.checkpoints.importer import Import
from table.store.store import TableStore
from table.verify import verify

LAYER, HEADS, ORDERS, HEAD_DIM = 1, 8, 3, 256
WRITE_BYTES = 8 << 20
READ_BYTES = 256 << 10  # stays in a core's cache; 128 KiB to 8 MiB differ by a tenth


def make_checkpoint(folder: Path, size: int) -> int:
    """A V4.1 checkpoint of one layer and about `size` bytes of random codes; gives how many exactly."""
    row_bytes = HEAD_DIM + HEAD_DIM // 32
    base = size // row_bytes // (HEADS * ORDERS)
    rows = sum(p for order in assign_primes(1, ORDERS, HEADS, base)[0] for p in order)
    shapes = {weight_name(LAYER): ("F8_E4M3", HEAD_DIM), scale_name(LAYER): ("F8_E8M0", HEAD_DIM // 32)}
    header, end = {}, 0
    for name, (dtype, width) in shapes.items():
        header[name] = {"dtype": dtype, "shape": [rows, width], "data_offsets": [end, end + rows * width]}
        end += rows * width
    content = json.dumps(header).encode()
    folder.mkdir(parents=True)
    codes = np.random.default_rng(0).integers(100, 120, WRITE_BYTES, dtype=np.uint8).tobytes()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(content).to_bytes(8, "little") + content)
        for done in range(0, end, len(codes)):
            file.write(codes[: end - done])
    (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(shapes, "model.safetensors")}))
    text = {
        "engram_layer_ids": [LAYER],
        "engram_num_embeddings": [rows],
        "engram_max_ngram_size": ORDERS + 1,
        "engram_vocab_size": base,
        "engram_n_heads": HEADS,
        "engram_head_dim": HEAD_DIM,
        "engram_pad_token_id": 2,
        "engram_compressed_vocab_size": 99_092,
    }
    (folder / "config.json").write_text(json.dumps({"text_config": text}))
    return end


def copy_rates(folder: Path, size: int, rounds: int) -> dict[str, float]:
    """Bytes per second of each way, over a checkpoint made in `folder`."""
    source, store = folder / "checkpoint", folder / "t.zarr"
    total = make_checkpoint(source, size)
    checkpoint = read_checkpoint(source)
    Import(checkpoint, checkpoint.encoding).run(store)
    written = {"cp": folder / "copy", "import": folder / "imported.zarr", "export": folder / "out"}
    ways: dict[str, Callable[[], object]] = {
        "cp": lambda: subprocess.run(["cp", "-r", source, written["cp"]], check=True),
        "import": lambda: Import(checkpoint, checkpoint.encoding).run(written["import"]),
        "export": lambda: export(TableStore.open(store), written["export"]),
        "read": lambda: read_all(store, 1),
        "read_together": lambda: read_all(store, CORES),
        "verify": lambda: verify(store, full=True),
    }

    def clear() -> None:
        for place in written.values():
            shutil.rmtree(place, ignore_errors=True)
        os.sync()

    seconds = time_in_turn(ways, rounds, before=clear)
    return {way: total / min(times) for way, times in seconds.items()}


def read_all(folder: Path, threads: int) -> int:
    """Plain reading by so many threads: every file through a buffer; gives how many bytes."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(_read, files))


def _read(path: Path) -> int:
    buffer, total = bytearray(READ_BYTES), 0
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            total += count
    return total

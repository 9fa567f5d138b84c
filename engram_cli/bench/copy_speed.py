"""How fast tables are imported, exported and verified, beside `cp` and plain reading: the figures of `engram bench table`.

All of them leave what they write with the system, which writes it to the drive by and by. Ways are timed in turn, several
rounds, and the best of each counts; before each the drive has everything, so that none pays for what another wrote.
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hashing.spec import assign_primes
from table.checkpoints.deepseek import scale_name, weight_name
from table.checkpoints.exporter import export
from table.checkpoints.family import read_checkpoint
from table.checkpoints.folder import INDEX
from table.checkpoints.importer import Import
from table.store.store import TableStore
from table.verify import verify

ROUNDS = 8
LAYER, HEADS, ORDERS, HEAD_DIM = 1, 8, 3, 256
READ_BYTES = 8 << 20


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
    codes = np.random.default_rng(0).integers(100, 120, READ_BYTES, dtype=np.uint8).tobytes()
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


def copy_rates(folder: Path, size: int) -> dict[str, float]:
    """Bytes per second of each way, over a checkpoint made in `folder`."""
    source, store, imported = folder / "checkpoint", folder / "t.zarr", folder / "imported.zarr"
    out, copy = folder / "out", folder / "copy"
    total = make_checkpoint(source, size)
    checkpoint = read_checkpoint(source)
    Import(checkpoint, checkpoint.encoding).run(store)
    read_all(store)  # what is read lies in memory, for cp as for us
    ways: dict[str, tuple[Path, Callable[[], object]]] = {
        "cp": (copy, lambda: subprocess.run(["cp", "-r", source, copy], check=True)),
        "import": (imported, lambda: Import(checkpoint, checkpoint.encoding).run(imported)),
        "export": (out, lambda: export(TableStore.open(store), out)),
        "read": (copy, lambda: read_all(store)),
        "verify": (copy, lambda: verify(store, full=True)),
    }
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(ROUNDS):
        for name, (written, work) in ways.items():
            shutil.rmtree(written, ignore_errors=True)
            os.sync()
            began = time.perf_counter()
            work()
            best[name] = min(best[name], time.perf_counter() - began)
    return {name: total / seconds for name, seconds in best.items()}


def read_all(folder: Path) -> None:
    """Plain reading: every file through one buffer."""
    buffer = bytearray(READ_BYTES)
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass

"""Published checkpoints: imported, read, and given back byte for byte."""

import filecmp
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file as load_numpy
from safetensors.torch import load_file, save_file

from hashing.base.errors import EngramError
from hashing.vocab import CanonicalVocab
from runtime.state_dict import read_torch_demo
from table.checkpoints.demo import read_demo
from table.checkpoints.exporter import export
from table.checkpoints.family import read_checkpoint
from table.checkpoints.importer import Import
from table.checkpoints.published import Checkpoint, choose_layers
from table.encodings.encoding import ENCODINGS
from table.store.store import TableStore
from table.verify import verify
from tests.checkpoints import GOLDEN, Made, deepseek, qwen
from tests.folders import assert_same_files
from tests.stores import spec_of_heads

SMALL_SHARDS = 1 << 20


def imported(checkpoint: Checkpoint, out: Path) -> TableStore:
    assert checkpoint.faults == ()
    return Import(checkpoint, checkpoint.encoding).run(out, shard_bytes=SMALL_SHARDS)


@pytest.mark.parametrize(("name", "columns"), [("deepseek_v41_tiny", 3), ("qwen_tiny", 2)])
def test_golden_checkpoints_read_as_expected_and_come_back(tmp_path: Path, name: str, columns: int) -> None:
    folder = GOLDEN / name
    assert verify(folder, full=True).faults == []
    store = imported(read_checkpoint(folder), tmp_path / "t.zarr")
    assert verify(store.path, full=True).faults == []
    expected = load_numpy(folder / "expected.safetensors")
    keys = {layer: f"layer_{layer}/" if f"layer_{layer}/rows" in expected else "" for layer in store.spec.layers}
    assert len(keys) == columns - 1
    for layer, key in keys.items():
        rows, memory = expected[f"{key}rows"], expected[f"{key}memory"]
        assert rows.size > 0
        vectors = store.table(layer).gather(rows)
        assert np.array_equal(vectors.reshape(memory.shape), memory)
    export(store, tmp_path / "out")
    assert_same_files(tmp_path / "out", folder)
    assert any(file.suffix == ".safetensors" for file in (tmp_path / "out").iterdir())


def made_checkpoint(kind: str, folder: Path) -> Made:
    if kind == "deepseek":
        return deepseek(folder)
    dtype = torch.float8_e4m3fn if "fp8" in kind else torch.bfloat16
    return qwen(folder, dtype, "model." if "short" in kind else "model.language_model.")


KINDS = ["deepseek", "qwen bf16", "qwen fp8", "qwen bf16 short", "qwen fp8 short"]


@pytest.mark.parametrize("kind", KINDS)
def test_random_checkpoints_read_as_torch_decodes_them_and_come_back(tmp_path: Path, kind: str) -> None:
    made = made_checkpoint(kind, tmp_path / "in")
    assert verify(made.folder, full=True).faults == []
    store = imported(read_checkpoint(made.folder), tmp_path / "t.zarr")
    assert all(store.manifest.shard_count(layer) > 1 for layer in store.spec.layers)
    for layer in store.spec.layers:
        rows = np.arange(store.spec.rows(layer))
        assert np.array_equal(store.table(layer).gather(rows), made.expected(layer, rows))
    assert verify(store.path, full=True).faults == []
    export(store, tmp_path / "out")
    assert_same_files(tmp_path / "out", made.folder)
    assert sum(file.suffix == ".safetensors" for file in (tmp_path / "out").iterdir()) == 2


def test_importing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    made = deepseek(tmp_path / "in")
    for name in ("a.zarr", "b.zarr"):
        imported(read_checkpoint(made.folder), tmp_path / name)
    files = [file.relative_to(tmp_path / "a.zarr") for file in (tmp_path / "a.zarr").rglob("*") if file.is_file()]
    assert filecmp.cmpfiles(tmp_path / "a.zarr", tmp_path / "b.zarr", map(str, files), shallow=False)[1:] == ([], [])


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("streams", [1, 4])
def test_the_golden_demo_module_s_table_is_imported_from_its_state_dict(tmp_path: Path, streams: int, suffix: str) -> None:
    golden = load_file(GOLDEN / f"module_demo_hc{streams}.safetensors")
    state = {name.removeprefix("param/"): value for name, value in golden.items() if name.startswith("param/")}
    table = state["multi_head_embedding.embedding.weight"]
    offsets = [*state["head_offsets"].tolist(), len(table)]
    spec = spec_of_heads(tuple(b - a for a, b in pairwise(offsets)))
    path = tmp_path / f"demo{suffix}"
    no_map = np.empty(0, np.int32)
    if suffix == ".pt":
        torch.save(state, path)
        checkpoint = read_torch_demo(path, spec, no_map)
    else:
        save_file(state, path)
        checkpoint = read_demo(path, spec, no_map)
    store = imported(checkpoint, tmp_path / "t.zarr")
    rows = golden["input/head_rows"].numpy() + state["head_offsets"].numpy()
    assert rows.size > 0
    assert np.array_equal(store.table(1).gather(rows), table.numpy()[rows])
    if suffix == ".safetensors":
        export(store, tmp_path / "out")
        assert_same_files(tmp_path / "out", tmp_path)
    else:
        with pytest.raises(EngramError, match="not imported from safetensors"):
            export(store, tmp_path / "out")


def test_a_pickle_with_code_in_it_is_refused(tmp_path: Path) -> None:
    torch.save({"multi_head_embedding.embedding.weight": Path("x")}, tmp_path / "bad.pt")
    with pytest.raises(EngramError, match="not a torch file of tensors alone"):
        read_torch_demo(tmp_path / "bad.pt", spec_of_heads((5, 7)), np.empty(0, np.int32))


def test_chosen_layers_and_another_encoding(tmp_path: Path) -> None:
    made = deepseek(tmp_path / "in")
    checkpoint = choose_layers(read_checkpoint(made.folder), [14])
    plan = Import(checkpoint, ENCODINGS["bfloat16"])
    store = plan.run(tmp_path / "t.zarr", shard_bytes=SMALL_SHARDS)
    assert store.spec.layers == (14,)
    assert store.spec.offsets(14) == checkpoint.spec.offsets(14)
    rows = np.arange(store.spec.rows(14))
    assert np.array_equal(store.table(14).gather(rows), made.memory[14].bfloat16().float().numpy())
    shards = sum(file.stat().st_size for file in store.path.rglob("c/*/0") if "checksums" not in file.parts)
    assert plan.written_bytes <= shards <= plan.written_bytes + 2 * SMALL_SHARDS


def test_the_tokenizer_beside_a_checkpoint_is_proven_and_kept(
    tmp_path: Path, deepseek_v4: object, vocab_v4: CanonicalVocab
) -> None:
    made = deepseek(tmp_path / "in")
    (made.folder / "tokenizer.json").write_text(deepseek_v4.to_str())
    checkpoint = read_checkpoint(made.folder)
    assert checkpoint.notes == ()
    store = imported(checkpoint, tmp_path / "t.zarr")
    assert np.array_equal(store.mapping, vocab_v4.mapping)
    store.check_vocab(vocab_v4.fingerprint)
    without = imported(read_checkpoint(deepseek(tmp_path / "other").folder), tmp_path / "u.zarr")
    assert without.spec.multipliers == store.spec.multipliers
    with pytest.raises(EngramError, match="does not know its vocabulary"):
        without.check_vocab(vocab_v4.fingerprint)


PEAK = """
import re, sys
from pathlib import Path
from table.checkpoints.family import read_checkpoint
from table.checkpoints.importer import Import
checkpoint = read_checkpoint(Path(sys.argv[1]))
Import(checkpoint, checkpoint.encoding).run(Path(sys.argv[2]))
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def hollow(folder: Path, rows_per_head: int) -> int:
    """A V4.1 checkpoint of one layer whose tables are holes in a file; gives their bytes."""
    made = deepseek(folder, base=rows_per_head, head_dim=32, layers=(1,))
    config = json.loads((folder / "config.json").read_text())
    rows = config["text_config"]["engram_num_embeddings"][0]
    config["text_config"]["engram_head_dim"] = 256
    (folder / "config.json").write_text(json.dumps(config))
    names = [f"layers.1.engram.embed.{kind}" for kind in ("weight", "scale")]
    entries = {
        names[0]: {"dtype": "F8_E4M3", "shape": [rows, 256], "data_offsets": [0, rows * 256]},
        names[1]: {"dtype": "F8_E8M0", "shape": [rows, 8], "data_offsets": [rows * 256, rows * 264]},
    }
    header = json.dumps(entries).encode()
    with (made.folder / "model-00002-of-00002.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + rows * 264)
    return int(rows * 264)


def test_memory_stays_small_whatever_the_size(tmp_path: Path) -> None:
    size = hollow(tmp_path / "in", 300_000)
    command = [sys.executable, "-c", PEAK, tmp_path / "in", tmp_path / "t.zarr"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert size > 450 << 20
    assert int(done.stdout) << 10 < 300 << 20

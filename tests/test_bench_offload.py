"""`engram bench offload`, `engram bench serve` and `engram plan serve`: what they measure is what they say."""

from pathlib import Path

import numpy as np
import pytest

from engram_cli.bench.offload_speed import enlarged
from engram_cli.plan.drive_speed import pages_per_sec
from hashing.base.errors import EngramError
from hashing.hasher import Hasher
from hashing.named_specs import DEFAULT_SPEC
from runtime.run import Run
from tests.commands import document, engram


def test_offload(trained_run: Run, tmp_path: Path) -> None:
    """The text is compared by the command itself, in every round."""
    plot, folder = tmp_path / "steps.png", tmp_path / "tables"
    asked = ["--rows", 5000, "--cache", "64KiB", "--tokens", 9, "--rounds", 2, "--cold", "--folder", folder]
    found = document("bench", "offload", *asked, "--plot", plot, "--run", trained_run.folder)
    assert list(found["placements"]) == ["resident", "disk", "no prefetch", "disk, cold", "no prefetch, cold"]
    assert found["placements"]["resident"]["times_resident"] == 1
    for way, figures in found["placements"].items():
        assert 0 < figures["p50_ms"] <= figures["p95_ms"] <= figures["p99_ms"], way
        assert figures["tokens_per_sec"] > 0
    assert found["placements"]["resident"]["resident_bytes"] >= found["table_bytes"]
    assert found["placements"]["disk, cold"]["resident_bytes"] < found["table_bytes"]
    assert found["placements"]["disk, cold"]["wait_microsec"] > 0
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert list(folder.iterdir()) == [], "the tables are removed"


def test_enlarged_tables_keep_heads_and_orders(trained_run: Run) -> None:
    spec = trained_run.config().spec
    assert spec is not None
    large = enlarged(spec, 1_000_000)
    assert (large.layers, large.orders, large.heads, large.multipliers) == (
        spec.layers,
        spec.orders,
        spec.heads,
        spec.multipliers,
    )
    assert large.total_rows == pytest.approx(1_000_000, rel=0.02)


def test_serve(trained_run: Run) -> None:
    found = document(
        "bench", "serve", "--streams", 1, "--streams", 3, "--tokens", 8, "--rounds", 1, "--run", trained_run.folder
    )
    assert [each["streams"] for each in found["served"]] == [1, 3]
    assert found["served"][0]["times_first"] == 1
    assert all(each["whole_tokens_per_sec"] > 0 for each in found["served"])
    assert 0 < found["least_resident_bytes"] <= found["most_resident_bytes"]


def test_plan_serve(trained_run: Run, tmp_path: Path) -> None:
    text = tmp_path / "prompts.txt"
    text.write_text("".join(f"def number_{i % 50}(value):\n    return value + {i % 7}\n" for i in range(2000)))
    asked = ["--spec", DEFAULT_SPEC, "--tokens", 20_000, "--reads-per-sec", 1000, "--run", trained_run.folder]
    found = document("plan", "serve", text, *asked, "--cache", "1KiB", "--cache", "1MiB", "--cache", "1GiB")
    missed = [each["misses_per_token"] for each in found["budgets"]]
    assert missed == sorted(missed, reverse=True)
    assert 0 < missed[-1] < missed[0] <= found["reads_per_token"]
    for each in found["budgets"]:
        assert each["tokens_per_sec"] == pytest.approx(1000 / each["misses_per_token"])
        assert each["drive_bytes_per_token"] == each["misses_per_token"] * 4096
        assert each["miss_percent"] == pytest.approx(100 * each["misses_per_token"] / found["reads_per_token"])
    told = engram("plan", "serve", text, *asked)
    assert "a drive of 1,000 pages a second" in told.stdout


def test_all_rows_held_are_missed_once(trained_run: Run, tmp_path: Path) -> None:
    """With memory for every row only the first reads of rows are missed, which count the rows that there are."""
    spec, vocab = trained_run.config().spec, trained_run.vocab()
    assert spec is not None
    ids = np.random.default_rng(0).integers(0, 30, 5000)
    np.save(tmp_path / "ids.npy", ids)
    asked = ["--tokens", 5000, "--reads-per-sec", 1, "--cache", "1TiB", "--run", trained_run.folder]
    found = document("plan", "serve", tmp_path / "ids.npy", *asked)
    rows = Hasher(spec).rows_by_layer(vocab.canonical(ids)[None])
    distinct = sum(len(np.unique(of_layer)) for of_layer in rows.values())
    assert found["budgets"][0]["misses_per_token"] == pytest.approx(distinct / found["tokens"])


def test_a_drive_is_measured(tmp_path: Path) -> None:
    assert pages_per_sec(tmp_path, 1 << 22) > 0
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(EngramError, match="cannot measure the drive"):
        pages_per_sec(tmp_path / "file" / "folder", 1 << 22)

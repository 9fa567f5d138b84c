"""`engram inspect table` and `row` on tables with planted faults, and their samples."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from hashing.ngrams.sharers import Column
from hashing.spec import HashSpec, assign_primes
from runtime.inspect.norms import Norms
from runtime.inspect.rank import Spectrum
from runtime.inspect.row import view_row
from runtime.inspect.sample import STRETCH_ROWS, STRETCHES, WHOLE_ROWS, Sample, norms_of
from runtime.inspect.subject import Subject
from runtime.inspect.table import view_table
from runtime.run import Run
from table.convert import convert
from table.encodings.encoding import ENCODINGS
from table.store.manifest import Manifest, cut_layers
from table.store.store import TableStore, create_store, write_store
from table.store.writer import StoreWriter
from tests.commands import document, engram

NO_MAP = np.empty(0, np.int32)


def spec_of(base: int, heads: int = 2, orders: int = 2) -> HashSpec:
    return HashSpec((1,), assign_primes(1, orders, heads, base), ((1, 3, 5)[: orders + 1],), 0, 9, "any")


def stored(folder: Path, spec: HashSpec, vectors: NDArray[np.float32]) -> Subject:
    return Subject.of_store(write_store(folder / "t.zarr", spec, NO_MAP, {1: vectors}).path)


def random_rows(spec: HashSpec, head_dim: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(spec.rows(1), head_dim)).astype(np.float32)


def test_planted_faults_are_found(tmp_path: Path) -> None:
    spec = spec_of(500)
    vectors = random_rows(spec, 16)
    vectors[10:30] = 0
    vectors[40] *= 100
    vectors[50, 3] = np.nan
    vectors[60, 0] = np.inf
    health = view_table(stored(tmp_path, spec, vectors)).layers[0]
    assert (health.zero_rows, health.as_made_rows, health.never_read_rows) == (20, 20, None)
    count, named = health.norms.exploded()
    assert (count, [row for _, row in named]) == (1, [40])
    assert [(row, fault.split(" (")[0]) for row, fault in health.faults] == [(50, "holds a code that is no number")]
    assert "(2 such rows)" in health.faults[0][1]
    assert sum(head.zero_rows for head in health.heads) == 20
    shown = engram("inspect", "table", "--store", tmp_path / "t.zarr")
    assert "1 (0.05 %); row 40 has" in shown.stdout
    assert "layer 1: row 50 holds a code that is no number" in shown.stdout
    told = document("inspect", "table", "--store", tmp_path / "t.zarr")["layers"]["1"]
    assert told["exploded"][0]["row"] == 40
    assert sum(told["norm_histogram"]["counts"]) == spec.rows(1) - 22


def test_scales_out_of_the_ordinary_are_found(tmp_path: Path) -> None:
    spec = spec_of(500)
    vectors = random_rows(spec, 32)
    vectors[77] *= 1e-30
    store = write_store(tmp_path / "f.zarr", spec, NO_MAP, {1: vectors})
    converted = convert(store, tmp_path / "t.zarr", ENCODINGS["e4m3-e8m0"])
    health = view_table(Subject.of_store(converted.path)).layers[0]
    assert [row for row, _ in health.faults] == [77]
    assert "has a scale near 2^" in health.faults[0][1]


def test_percentiles_and_histogram_against_numpy(tmp_path: Path) -> None:
    spec = spec_of(3000)
    vectors = random_rows(spec, 8) * np.random.default_rng(1).lognormal(0, 2, (spec.rows(1), 1)).astype(np.float32)
    norms = view_table(stored(tmp_path, spec, vectors)).layers[0].norms
    expected = np.linalg.norm(vectors.astype(np.float64), axis=1)
    for percent, norm in norms.percentiles().items():
        assert norm == pytest.approx(np.percentile(expected, percent, method="inverted_cdf"), rel=1 / 2048)
    histogram = norms.histogram()
    assert len(histogram["edges"]) == 51
    assert sum(histogram["counts"]) == len(expected)
    by_numpy, _ = np.histogram(expected, histogram["edges"])
    assert np.abs(by_numpy - histogram["counts"]).sum() < 0.02 * len(expected)


def test_a_single_norm_and_none() -> None:
    norms = Norms()
    assert (norms.percentiles(), norms.exploded()) == ({}, (0, []))
    assert sum(norms.histogram()["counts"]) == 0
    norms.add(7, np.array([0.0, 3.0, np.nan, np.inf]))
    assert norms.percentiles()[50] == pytest.approx(3, rel=1 / 2048)
    assert (norms.zeros, norms.rows, norms.largest) == (1, 1, [(3.0, 8)])


@pytest.mark.parametrize(("directions", "least", "most"), [(1, 1, 1.001), (4, 3.9, 4.001), (16, 15.5, 16.001)])
def test_effective_rank(directions: int, least: float, most: float) -> None:
    random = np.random.default_rng(0)
    basis = np.linalg.qr(random.normal(size=(16, 16)))[0][:directions]
    vectors = (random.normal(size=(4000, directions)) @ basis).astype(np.float32)
    spectrum = Spectrum()
    for part in np.split(vectors, 4):
        spectrum.add(part, norms_of(part))
    ranks = spectrum.ranks()
    assert ranks is not None
    assert all(least <= rank <= most for rank in ranks)
    values = np.linalg.svd(vectors.astype(np.float64), compute_uv=False)[:directions]
    shares = values / values.sum()
    assert ranks[0] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-4)
    assert ranks[1] == pytest.approx((values**2).sum() ** 2 / (values**4).sum(), rel=1e-4)
    assert Spectrum().ranks() is None


def test_a_large_head_is_sampled_and_says_so(tmp_path: Path) -> None:
    spec = spec_of(WHOLE_ROWS, heads=1, orders=1)
    vectors = random_rows(spec, 4)
    subject = stored(tmp_path, spec, vectors)
    view = view_row(subject, 1, 5)
    assert (view.compared.rows, view.compared.is_whole) == (STRETCHES * STRETCH_ROWS, False)
    assert view_table(subject).layers[0].sampled_rows == STRETCHES * STRETCH_ROWS
    assert view_table(subject, full=True).layers[0].sampled_rows == spec.rows(1)
    whole = view_row(subject, 1, 5, full=True)
    directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = directions @ directions[5]
    cosines[5] = -2
    assert whole.compared.is_whole
    assert [near.row for near in whole.neighbours] == np.argsort(-cosines)[:8].tolist()
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    assert whole.norm_percentile == pytest.approx(100 * (norms < norms[5]).mean(), abs=0.01)
    assert view.norm_percentile == pytest.approx(whole.norm_percentile, abs=2)
    assert {near.row for near in view.neighbours} - {near.row for near in whole.neighbours}
    shown = " ".join(engram("inspect", "row", 1, 5, "--store", subject.store.path).stdout.split())
    assert "among a sample of 32,768 rows" in shown


@pytest.mark.parametrize("rows", [1, 100, WHOLE_ROWS, WHOLE_ROWS + 1, 16_000_057])
def test_a_sample_lies_in_its_head_and_is_spread_over_it(rows: int) -> None:
    sample = Sample.of(Column(2, 0, 1000, rows))
    seen = [(first, first + count) for first, count in sample.stretches]
    assert (seen[0][0], seen[-1][1]) == (1000, 1000 + rows)
    assert all(last <= first for (_, last), (first, _) in pairwise(seen))
    assert sample.is_whole == (rows <= WHOLE_ROWS)


def test_absent_shards_are_rows_of_zeros_and_are_not_read(tmp_path: Path) -> None:
    """36 million rows, one shard of which is there."""
    spec, encoding = spec_of(9_000_000), ENCODINGS["int8"]
    manifest = Manifest(encoding, 30, spec, cut_layers(spec, encoding, 30, shard_bytes=1 << 20))
    with StoreWriter(tmp_path / "t.zarr", manifest, NO_MAP) as writer:
        writer._write_shard(1, 0, lambda _, records: records.fill(1), lambda _: None)
        writer.finish()
    store = TableStore.open(tmp_path / "t.zarr")
    there = store.manifest.layers[1].shard_rows
    subject = Subject.of_store(store.path)
    health = view_table(subject, full=True).layers[0]
    assert (health.sampled_rows, health.zero_rows) == (spec.rows(1), spec.rows(1) - there)
    view = view_row(subject, 1, there + 5, full=True)
    assert (view.norm, view.neighbours) == (0.0, ())
    assert view.norm_percentile == pytest.approx(50 * (spec.moduli(1)[0] - there) / spec.moduli(1)[0])
    assert [near.cosine for near in view_row(subject, 1, 5, full=True).neighbours] == pytest.approx([1.0] * 8)


def test_a_store_of_zeros(tmp_path: Path) -> None:
    store = create_store(tmp_path / "t.zarr", spec_of(500), NO_MAP, ENCODINGS["bfloat16"], 8)
    health = document("inspect", "table", "--store", store.path)["layers"]["1"]
    assert health["zero_rows"] == health["as_made_rows"] == health["sampled_rows"]
    assert {head["rank_entropy"] for head in health["heads"]} == {None}
    assert engram("inspect", "table", "--store", store.path).returncode == 0


def test_a_run_s_tables(counted_run: Run) -> None:
    told, spec = document("inspect", "table", "--run", counted_run.folder), counted_run.spec()
    state = load_file(next(counted_run.train_folder.glob("step-*")) / "moments.safetensors")
    for layer in spec.layers:
        health, updates = told["layers"][str(layer)], state[f"layers/{layer}/updates"]
        assert health["never_read_rows"] == health["as_made_rows"] == (updates == 0).sum() > 0
        assert health["sampled_rows"] == spec.rows(layer)
        assert all(0 < head["occupied_rows"] <= head["rows"] for head in health["heads"])


def test_a_run_s_row(counted_run: Run) -> None:
    order = document("inspect", "ngram", "self.", "--no-lens", "--run", counted_run.folder)["layers"]["1"]["orders"]["2"]
    for head, row in enumerate(order["rows"]):
        told = document("inspect", "row", 1, row, "--no-lens", "--run", counted_run.folder)
        assert (told["layer"], told["row"], told["order"], told["head"]) == (1, row, 2, head)
        assert told["norm"] == pytest.approx(order["row_norms"][head])
        assert told["training_reads"] == order["row_reads"][head]
        assert {"ngram": order["ngram"], "count": order["corpus_count"]} in told["ngrams"]
        assert len(told["ngrams"]) == order["sharer_counts"][head] + 1
        assert len(told["neighbours"]) == 8


@pytest.mark.parametrize("command", [["table"], ["row", "1", "5", "--no-lens"]], ids=" ".join)
def test_a_run_without_counts_says_what_to_run(trained_run: Run, command: list[str]) -> None:
    done = engram("inspect", *command, "--run", trained_run.folder)
    assert done.returncode == 0
    assert f"first run: engram stats --run {trained_run.folder}" in done.stderr

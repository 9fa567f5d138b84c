"""`engram stats` as a person meets it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engram_cli.output import print_table
from tests.commands import ROOM, document, engram

TEXTS = {"a.txt": "the apple and the pear\n" * 60, "b.txt": "an apple a day keeps the doctor away\n" * 60}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a vocabulary, and a small corpus."""
    folder = tmp_path_factory.mktemp("stats")
    (folder / "corpus").mkdir()
    for name, text in TEXTS.items():
        (folder / "corpus" / name).write_text(text)
    done = engram("build-vocab", "--corpus", folder / "corpus", "--size", 300, "--run", folder / "run")
    assert done.returncode == 0, done.stderr
    return folder


def test_report_then_another_table_size_from_saved_counts(folder: Path) -> None:
    run = ("--run", folder / "run", "--spec", "tiny", *ROOM)
    first = document("stats", folder / "corpus", *run, "--counts", folder / "n.parquet")
    assert sum(head["distinct_ngrams"] for head in first["heads"] if head["head"] == 0) > 0
    for head in first["heads"]:
        assert head["occupied_percent"]["found"] <= 100 * head["distinct_ngrams"] / head["rows"] + 1e-9
    again = document("stats", *run, "--counts", folder / "n.parquet", "--base", "100,2000", "--plot", folder / "p.svg")
    assert again["totals"] == first["totals"]
    assert {point["base"] for point in again["curve"]} >= {100, 2000}
    for name in ("ranks", "occupancy", "collisions"):
        assert "<svg" in (folder / f"p-{name}.svg").read_text()
    refused = engram("stats", folder / "corpus" / "a.txt", *run, "--counts", folder / "n.parquet")
    assert refused.returncode == 1
    assert "would be overwritten" in refused.stderr
    table = engram("stats", *run, "--counts", folder / "n.parquet")
    assert "Most frequent n-grams" in table.stdout


def test_a_heavy_row_has_the_number_that_hash_gives_it(folder: Path) -> None:
    """In a corpus of one word, the text of the most frequent n-gram, hashed, reads the heaviest row of every head."""
    (folder / "apples.txt").write_text("apple apple apple\n" * 40)
    call = ("--run", folder / "run", "--spec", "tiny")
    told = document("stats", folder / "apples.txt", *call, *ROOM, "--counts", folder / "apples.parquet")
    read = {layer: np.array(rows) for layer, rows in document("hash", "apple apple apple\n" * 2, *call)["rows"].items()}
    heads = 1 + max(head["head"] for head in told["heads"])
    for head in told["heads"]:
        column = read[str(head["layer"])][:, (head["order"] - 2) * heads + head["head"]]
        assert head["heaviest"][0]["row"] in column
        assert 0 <= head["heaviest"][0]["head_row"] < head["rows"]
    printed = engram("stats", *call, "--counts", folder / "apples.parquet").stdout
    assert f"{told['heads'][-heads]['heaviest'][0]['row']:,}" in printed


def test_shards_join(folder: Path) -> None:
    run = ("--run", folder / "run", "--spec", "tiny", *ROOM)
    whole = document("stats", folder / "corpus", *run, "--counts", folder / "whole.parquet")
    for i in (1, 2):
        document("stats", folder / "corpus", *run, "--counts", folder / f"part{i}.parquet", "--shard", f"{i}/2")
    document("stats", "merge", folder / "joined.parquet", folder / "part1.parquet", folder / "part2.parquet")
    assert document("stats", *run, "--counts", folder / "joined.parquet") == whole


def test_arrays_count_like_the_text_they_came_from(folder: Path) -> None:
    run = ("--run", folder / "run", "--spec", "tiny", *ROOM)
    np.save(folder / "ids.npy", np.arange(200).reshape(10, 20) % 250)
    report = document("stats", folder / "ids.npy", *run, "--counts", folder / "ids.parquet", "--raw")
    assert (report["totals"]["tokens"], report["totals"]["documents"]) == (200, 10)
    assert report["raw"]["totals"]["tokens"] == 200
    assert report["raw"]["totals"]["canonical_size"] >= report["totals"]["canonical_size"]


def test_traffic(folder: Path) -> None:
    options = ("--run", folder / "run", "--spec", "tiny", "--cache", "1MiB", "--plot", folder / "m.png")
    report = document("stats", "traffic", folder / "corpus", *options)
    assert (report["cache_bytes"], report["row_bytes"]) == (1 << 20, 32 * 4)
    assert [s["orders"] for s in report["streams"]][:3] == ["2-grams", "3-grams", "all"]
    for stream in report["streams"]:
        # Everything fits, so only a row's first read misses.
        assert stream["lru_hit_percent"] == pytest.approx(100 * (1 - stream["distinct_rows"] / stream["reads"]))
    assert (folder / "m.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("spec", "row_bytes"), [("deepseek-v4.1", 264), ("engram-demo", 256)])
def test_traffic_takes_the_row_from_the_spec(folder: Path, spec: str, row_bytes: int) -> None:
    done = engram("stats", "traffic", folder / "corpus", "--run", folder / "run", "--spec", spec, "--json")
    assert json.loads(done.stdout)["row_bytes"] == row_bytes
    assert f"note: {spec} was published over" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["corpus", "--spec", "tiny", "--memory", "1KiB"], 2, "the memory budget is 1,024 bytes, expected at least"),
        (["corpus", "--spec", "tiny", "--memory", "lots"], 2, '"lots" is not a size'),
        (["corpus", "--spec", "tiny", "--shard", "3/2"], 1, "shard 3/2 does not exist"),
        (["corpus", "--spec", "tiny", "--shard", "half"], 2, '"half" is not a shard'),
        (["corpus", "--spec", "tiny", "--base", "1e5"], 2, "is not a list of table sizes"),
        (["corpus", "--spec", "huge"], 2, 'no spec is called "huge"'),
        (["corpus", "--spec", "qwen3.8-ple"], 1, "addresses by raw token ids"),
        (["absent.npy", "--spec", "tiny"], 1, "no such file: "),
        (["corpus", "--spec", "tiny", "--plot", "picture.gif"], 2, "would be a picture in an unknown format"),
    ],
)
def test_mistakes_get_one_sentence(folder: Path, tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    corpus, *options = arguments
    done = engram("stats", folder / corpus, *options, "--run", folder / "run", "--counts", tmp_path / "n.parquet")
    assert (done.returncode, done.stderr.count("error:")) == (code, 1), done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_counts_of_another_vocabulary(folder: Path, tmp_path: Path) -> None:
    run = ("--run", folder / "run", "--spec", "tiny", *ROOM)
    document("stats", folder / "corpus", *run, "--counts", tmp_path / "n.parquet")
    engram("build-vocab", "--corpus", folder / "corpus", "--size", 280, "--run", tmp_path / "other")
    done = engram("stats", "--run", tmp_path / "other", "--spec", "tiny", "--counts", tmp_path / "n.parquet")
    assert done.returncode == 1
    assert "was counted with vocabulary" in done.stderr


def test_raw_counts_of_another_corpus_are_not_compared(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("pears and plums\n" * 50)
    options = ("--run", folder / "run", "--spec", "tiny", *ROOM, "--counts", tmp_path / "n.parquet")
    document("stats", tmp_path / "other.txt", *options, "--raw")
    document("stats", folder / "corpus", *options, "--force")
    done = engram("stats", *options, "--raw")
    assert done.returncode == 1
    assert "another corpus than the" in done.stderr


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_no_terminal_is_too_narrow_for_a_number(columns: int) -> None:
    """A table in a terminal of its own: it may become several, and lines may not wrap nor digits go missing."""
    numbers = [10_000_000 + 1_234_567 * i for i in range(9)]
    script = f"from engram_cli.output import print_table; print_table('T', ('name', *'abcdefghi'), [('x' * 30, *{numbers})])"
    reader, writer = os.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm"}
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", script], stdout=writer, env=environment, cwd=root, check=True, timeout=60)
    os.close(writer)
    shown = os.read(reader, 1 << 16).decode()
    os.close(reader)
    assert all(f"{number:,}" in shown for number in numbers)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
    assert max(map(len, lines)) <= columns
    tables = sum("name" in line for line in lines)  # each has the texts, and the numbers that fit beside them
    assert shown.count("x") == 30 * tables
    assert (tables == 1) == (columns == 120)


def test_a_table_without_rows_has_its_head(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("Nothing", ("layer", "rows"), [])
    assert "layer" in capsys.readouterr().out


def test_show_and_against(folder: Path) -> None:
    shown = document("build-vocab", "--run", folder / "run", "--show", "Apple", "--against", folder / "run" / "vocab.parquet")
    assert shown["against"]["first_moved"] is None
    assert all("a" in c["key"] or "p" in c["key"] or "l" in c["key"] or "e" in c["key"] for c in shown["show"])
    raw = document("build-vocab", folder / "run", "--rule", "identity", "--run", folder / "raw")
    assert raw["tokens"] == raw["canonical"]

"""`engram stats`: n-gram counts, occupancy, collisions and traffic."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from engram_cli.options import DEFAULT_RUN, Force, Json, RunDir, SpecName, TextColumn, TextKey, chosen_rule

if TYPE_CHECKING:
    from hashing.collisions import Compared, CurvePoint, HeadCollisions, JointCollisions
    from hashing.counts import NgramCounts
    from hashing.spec import HashSpec
    from hashing.token_stream import Piece
    from hashing.traffic import MissCurve
    from hashing.vocab import CanonicalVocab
    from runtime.run import Run

TOP_NGRAMS = 5
PLOTTED_BASES = (10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000)
BATCHES = (256, 4096, 65_536)  # tokens


class DefaultReport(TyperGroup):
    """`engram stats CORPUS` is `engram stats report CORPUS`."""

    def parse_args(self, context: Any, arguments: list[str]) -> list[str]:
        if not arguments or (arguments[0] not in self.commands and arguments[0] != "--help"):
            arguments = ["report", *arguments]
        return super().parse_args(context, arguments)


app = typer.Typer(cls=DefaultReport, help="Count n-grams and say what follows for tables: occupancy, collisions, traffic.")

CorpusArguments = Annotated[
    list[Path] | None,
    typer.Argument(help="Text files or folders, or token ids as .npy or Parquet. Default: the standard library's source."),
]
IdsColumn = Annotated[str, typer.Option(help="Column of token ids; Parquet files are then ids, not text.")]
PlotFile = Annotated[Path | None, typer.Option("--plot", help="Also draw pictures, FILE.png or FILE.svg.")]


@app.command("report")
def report(
    corpus: CorpusArguments = None,
    spec: SpecName = "",
    base: Annotated[str, typer.Option(help="Rows per head to draw a curve over, as 100000,646400.")] = "",
    counts: Annotated[Path | None, typer.Option(help="The file of counts. Default: ngrams.parquet in the run.")] = None,
    memory: Annotated[str, typer.Option(help="Memory to count in; beyond it, sorted runs go to disk.")] = "2GiB",
    shard: Annotated[str, typer.Option(help="Count only every n-th document, as 1/4; join the files with merge.")] = "",
    raw: Annotated[bool, typer.Option("--raw", help="Also count raw token ids, to show what the vocabulary changes.")] = False,
    plot: PlotFile = None,
    ids_column: IdsColumn = "",
    text_key: TextKey = "text",
    text_column: TextColumn = "text",
    run: RunDir = DEFAULT_RUN,
    force: Force = False,
    json: Json = False,
) -> None:
    """Count a corpus's n-grams, or take the counts of last time, and report occupancy and collisions.

    Example: engram stats

    Example: engram stats data/ --spec engram-demo --base 100000,646400,2262400
    """
    from engram_cli.output import print_json
    from hashing.counts import NgramCounts
    from runtime.run import Run

    if plot:
        _check_format(plot)
    source = Run(run)
    vocab = source.vocab()
    rule = chosen_rule(spec, source, vocab)
    path = counts or run / "ngrams.parquet"
    counting = _Counting(source, corpus or [], text_key, text_column, ids_column, memory, shard)
    if corpus or force or not path.exists():
        counting.count(vocab, rule, path, force)
    saved = NgramCounts.open(path)
    saved.check_vocab(vocab.fingerprint)
    document = _document(rule, saved, _bases(base, plot is not None))
    if raw:
        document["raw"] = _raw(counting, rule, path.with_suffix(".raw.parquet"), force)
    if plot:
        _plot(plot, saved, document)
    if json:
        print_json(_plain(document))
    else:
        _print(document, saved, vocab)


@app.command("merge")
def merge(
    out: Annotated[Path, typer.Argument(help="The file to write.")],
    parts: Annotated[list[Path], typer.Argument(help="Files of counts, of parts of a corpus.")],
    force: Force = False,
    json: Json = False,
) -> None:
    """Join counts that were made apart.

    Example: engram stats merge ngrams.parquet part1.parquet part2.parquet

    Example: engram stats merge all.parquet parts/*.parquet --force
    """
    from engram_cli.output import print_json
    from hashing.atomic import refuse_overwrite
    from hashing.counts import merge_counts

    refuse_overwrite(out, force)
    totals = merge_counts(parts, out)
    if json:
        print_json(asdict(totals))
    else:
        print(f"{totals.tokens:,} tokens of {totals.documents:,} documents, in {out}")


@app.command("traffic")
def traffic(
    corpus: CorpusArguments = None,
    spec: SpecName = "",
    cache: Annotated[str, typer.Option(help="A cache's size, to say what it would hit.")] = "1GiB",
    row_bytes: Annotated[int | None, typer.Option(min=1, help="Bytes of a row. Default: as the spec's tables have.")] = None,
    tokens: Annotated[int, typer.Option(min=1000, help="How many tokens to follow.")] = 500_000,
    plot: PlotFile = None,
    ids_column: IdsColumn = "",
    text_key: TextKey = "text",
    text_column: TextColumn = "text",
    run: RunDir = DEFAULT_RUN,
    json: Json = False,
) -> None:
    """Say what reading a corpus asks of a cache of rows.

    Example: engram stats traffic

    Example: engram stats traffic data/ --spec engram-demo --cache 64MiB --plot traffic.png
    """
    from engram_cli.output import print_json, print_table
    from hashing.byte_size import parse_bytes
    from runtime.run import Run

    if plot:
        _check_format(plot)
    source = Run(run)
    vocab = source.vocab()
    rule = chosen_rule(spec, source, vocab)
    pieces = _Counting(source, corpus or [], text_key, text_column, ids_column, "2GiB", "").pieces()
    streams = _row_streams(rule, vocab, pieces, tokens)
    row_bytes = row_bytes or _row_bytes(spec, source)
    cache_rows = parse_bytes(cache) // row_bytes
    found = [_stream_figures(layer, name, rows, cache_rows) for layer, name, rows in streams]
    if plot:
        from engram_cli.plots import plot_misses

        drawn = [f for f in found if f["layer"] == rule.layers[0]]
        plot_misses(plot, [(f"{f['orders']}, layer {f['layer']}", f["curve"]) for f in drawn], row_bytes)
    shown = [{k: v for k, v in f.items() if k != "curve"} for f in found]
    if json:
        print_json({"cache_bytes": cache_rows * row_bytes, "row_bytes": row_bytes, "streams": shown})
        return
    columns = (
        "layer",
        "n-grams",
        "reads",
        "distinct rows",
        "LRU hits %",
        "± %",
        "static hits %",
        *(f"rows/{b:,}" for b in BATCHES),
    )
    keys = ("layer", "orders", "reads", "distinct_rows", "lru_hit_percent", "lru_error_percent", "static_hit_percent")
    rows = ([*(f[key] for key in keys), *f["distinct_rows_per_batch"].values()] for f in shown)
    print_table(
        f"A cache of {cache_rows:,} rows of {row_bytes} bytes ({cache}); distinct rows in a batch of so many tokens",
        columns,
        rows,
        left=2,
    )


def _row_bytes(spec: str, run: "Run") -> int:
    """Of the run's tables; of a named spec's, or of the default ones while the run has none, as published."""
    from hashing.errors import UsageError
    from hashing.presets import DEFAULT_PRESET, PRESETS
    from table.encoding import encoding
    from table.store import TableStore

    if not spec and run.tables_path.exists():
        return TableStore.open(run.tables_path).row_bytes
    if spec and spec not in PRESETS:
        raise UsageError("a spec in JSON does not say how wide a row is", hint="give --row-bytes")
    chosen = PRESETS[spec or DEFAULT_PRESET]
    return encoding(chosen.encoding).row_bytes(chosen.head_dim)


class _Counting:
    """What to count and how, as the options have it."""

    def __init__(
        self, run: "Run", corpus: list[Path], text_key: str, text_column: str, ids_column: str, memory: str, shard: str
    ) -> None:
        self.run, self.corpus, self.ids_column, self.memory, self.shard = run, corpus, ids_column, memory, shard
        self.text_key, self.text_column = text_key, text_column

    def count(self, vocab: "CanonicalVocab", spec: "HashSpec", path: Path, force: bool) -> None:
        from engram_cli.output import note
        from hashing.atomic import refuse_overwrite
        from hashing.byte_size import parse_bytes
        from hashing.counter import count_pieces

        refuse_overwrite(path, force)
        totals = count_pieces(self.pieces(), vocab, spec.orders, parse_bytes(self.memory), path)
        note(f"counted {totals.tokens:,} tokens of {totals.documents:,} documents into {path}")

    def pieces(self) -> "Iterator[Piece]":
        """The shard's documents, with a progress bar over the bytes read."""
        from engram_cli.output import progress
        from hashing.corpus import Corpus
        from hashing.token_stream import array_pieces, text_pieces

        arrays = [p for p in self.corpus if p.suffix == ".npy" or (self.ids_column and p.suffix == ".parquet")]
        texts = tuple(p for p in self.corpus if p not in arrays)
        source = Corpus(texts, self.text_key, self.text_column)
        files = [*arrays, *([file for file, _ in source.files()] if texts or not arrays else [])]
        with progress("bytes") as bar:
            task = bar.add_task("reading", total=sum(file.stat().st_size for file in files if file.exists()))
            for path in arrays:
                for piece in self._shard().of_pieces(array_pieces(path, self.ids_column)):
                    bar.advance(task, piece.token_ids.nbytes)
                    yield piece
            if texts or not arrays:
                tokenizer = self.run.tokenizer()
                yield from self._shard().of_pieces(text_pieces(source, tokenizer, lambda size: bar.advance(task, size)))

    def _shard(self) -> Any:
        from hashing.errors import UsageError
        from hashing.token_stream import Shard

        index, _, of = (self.shard or "1/1").partition("/")
        if not (index.isdigit() and of.isdigit()):
            raise UsageError(f'"{self.shard}" is not a shard', hint="shards are written like 1/4")
        return Shard(int(index) - 1, int(of))


def _bases(text: str, plotted: bool) -> list[int]:
    from hashing.errors import UsageError

    if not all(part.strip().isdigit() and int(part) > 1 for part in text.split(",") if text):
        raise UsageError(f'"{text}" is not a list of table sizes', hint="as in --base 100000,646400,2262400")
    given = {int(part) for part in text.split(",") if part}
    return sorted(given | set(PLOTTED_BASES)) if plotted else sorted(given)


def _document(spec: "HashSpec", counts: "NgramCounts", bases: list[int]) -> dict[str, Any]:
    """Everything a report says, as the dataclasses of the library."""
    from hashing.collisions import effective, joint_collisions, size_curve

    heads: list[HeadCollisions] = []
    joints: list[JointCollisions] = []
    for order in spec.orders:
        grams = effective(spec, counts, order)
        for layer in spec.layers:
            per_head, joint = joint_collisions(spec, layer, order, grams)
            heads, joints = [*heads, *per_head], [*joints, joint]
    return {
        "totals": counts.totals,
        "spec_fingerprint": spec.fingerprint,
        "top": {order: _top(counts, order) for order in spec.orders},
        "heads": heads,
        "joint": joints,
        "curve": size_curve(spec, counts, bases) if bases else [],
    }


def _top(counts: "NgramCounts", order: int) -> list[dict[str, Any]]:
    import numpy as np

    found = counts.order(order)
    best = np.argsort(-found.counts, kind="stable")[:TOP_NGRAMS]
    return [{"ids": found.ids[i].tolist(), "count": int(found.counts[i]), "documents": int(found.documents[i])} for i in best]


def _raw(counting: _Counting, spec: "HashSpec", path: Path, force: bool) -> dict[str, Any]:
    """Collisions of the same tables addressed by raw token ids."""
    from dataclasses import replace

    from hashing.counts import NgramCounts
    from hashing.rule import IDENTITY
    from hashing.spec import seeded_multipliers
    from hashing.vocab import CanonicalVocab

    vocab = CanonicalVocab.from_tokenizer(counting.run.tokenizer(), IDENTITY)
    multipliers = seeded_multipliers(spec.seeding or "numpy", spec.seed or 0, spec.layers, spec.max_order, vocab.size)
    own = replace(spec, seeding=None, seed=None, multipliers=multipliers, canonical_size=vocab.size)
    identity = replace(own, vocab_fingerprint=vocab.fingerprint)
    if counting.corpus or force or not path.exists():
        counting.count(vocab, identity, path, force)
    document = _document(identity, NgramCounts.open(path), [])
    return {key: document[key] for key in ("totals", "heads", "joint")}


def _compared(value: "Compared", scale: float) -> dict[str, float | None]:
    z = value.z
    return {"found": value.found * scale, "expected": value.expected * scale, "z": None if z != z else z}


def _plain(document: dict[str, Any]) -> dict[str, Any]:
    """The report as JSON."""
    tokens = document["totals"].tokens
    plain: dict[str, Any] = {
        "totals": asdict(document["totals"]),
        "heads": [_plain_head(head, tokens) for head in document["heads"]],
        "joint": [
            {
                **asdict(joint),
                "shared_in_all": _compared(joint.shared_in_all, 1),
            }
            for joint in document["joint"]
        ],
    }
    if "top" in document:
        plain |= {
            "spec_fingerprint": document["spec_fingerprint"],
            "top": document["top"],
            "curve": [asdict(point) for point in document["curve"]],
        }
    if "raw" in document:
        plain["raw"] = _plain(document["raw"])
    return plain


def _plain_head(head: "HeadCollisions", tokens: int) -> dict[str, Any]:
    return {
        "layer": head.layer,
        "order": head.order,
        "head": head.head,
        "rows": head.rows,
        "distinct_ngrams": head.distinct,
        "occupied_percent": _compared(head.occupied, 100 / head.rows),
        "shared_percent": _compared(head.shared, 100 / head.distinct),
        "shared_traffic_percent": _compared(head.shared_traffic, 100 / tokens),
        "heaviest": [asdict(row) for row in head.heaviest],
    }


def _print(document: dict[str, Any], counts: "NgramCounts", vocab: "CanonicalVocab") -> None:
    from engram_cli.output import print_table

    totals = document["totals"]
    print(f"{totals.tokens:,} tokens of {totals.documents:,} documents, vocabulary {totals.vocab_fingerprint}, {counts.path}")
    print_table(
        "Most frequent n-grams",
        ("n", "n-gram", "count", "documents"),
        ((n, _text(vocab, g["ids"]), g["count"], g["documents"]) for n, top in document["top"].items() for g in top),
        left=2,
    )
    _print_heads("Rows and collisions, mean over an order's heads; z is against a uniform hash", document, totals.tokens)
    _print_joint(document)
    print_table(
        "Heaviest rows",
        ("layer", "n", "head", "row", "traffic %", "n-grams in it", "most frequent"),
        _heaviest(document["heads"], vocab),
        left=3,
    )
    if document["curve"]:
        _print_curve(document["curve"])
    if "raw" in document:
        _print_heads("The same tables addressed by raw token ids", document["raw"], document["raw"]["totals"].tokens)


def _text(vocab: "CanonicalVocab", ids: Any) -> str:
    return "".join("⟨start⟩" if i < 0 else vocab.keys[i] for i in ids).__repr__()


def _print_heads(title: str, document: dict[str, Any], tokens: int) -> None:
    from itertools import groupby

    from engram_cli.output import print_table

    def rows() -> Iterator[tuple[object, ...]]:
        for (layer, order), group in groupby(document["heads"], key=lambda head: (head.layer, head.order)):
            heads = list(group)

            def mean(values: Iterator[float], count: int = len(heads)) -> float:
                return sum(values) / count

            yield (
                layer,
                order,
                heads[0].distinct,
                heads[0].rows,
                mean(100 * h.occupied.found / h.rows for h in heads),
                mean(100 * h.occupied.expected / h.rows for h in heads),
                mean(100 * h.shared.found / h.distinct for h in heads),
                mean(100 * h.shared.expected / h.distinct for h in heads),
                mean(100 * h.shared_traffic.found / tokens for h in heads),
                max((h.shared.z for h in heads), key=abs),
            )

    columns = ("layer", "n", "distinct", "rows", "full %", "expected", "sharing %", "expected", "traffic %", "worst z")
    print_table(title, columns, rows(), left=2)


def _print_joint(document: dict[str, Any]) -> None:
    from engram_cli.output import print_table

    heads = max(len(joint.alone_in) for joint in document["joint"])
    rows = (
        (
            joint.layer,
            joint.order,
            *(100 * count / joint.distinct for count in joint.alone_in),
            joint.correlation_largest,
            joint.correlation_noise,
        )
        for joint in document["joint"]
    )
    columns = ("layer", "n", *(f"in {k}" for k in range(heads)), "correlation", "noise")
    print_table("N-grams (%) by the number of heads in which they are alone", columns, rows, left=2)


def _heaviest(heads: "list[HeadCollisions]", vocab: "CanonicalVocab") -> Iterator[tuple[object, ...]]:
    for head in heads:
        if head.head == 0:
            for row in head.heaviest[:2]:
                text = _text(vocab, row.ngram)
                yield head.layer, head.order, head.head, row.row, row.traffic_percent, row.distinct, text


def _print_curve(curve: "list[CurvePoint]") -> None:
    from engram_cli.output import print_table

    columns = ("rows/head", "layer", "n", "full %", "sharing %", "expected", "traffic %", "alone nowhere %")
    rows = (
        (
            p.base,
            p.layer,
            p.order,
            p.occupied_percent,
            p.shared_percent,
            p.shared_expected_percent,
            p.shared_traffic_percent,
            p.shared_in_all_percent,
        )
        for p in curve
    )
    print_table("By table size", columns, rows, left=3)


def _check_format(path: Path) -> None:
    from engram_cli.plots import check_format

    check_format(path)


def _plot(path: Path, counts: "NgramCounts", document: dict[str, Any]) -> None:
    from engram_cli.plots import plot_collisions, plot_occupancy, plot_ranks

    first = document["joint"][0].layer
    plot_ranks(_beside(path, "ranks"), {order: counts.order(order).counts for order in document["top"]})
    plot_occupancy(_beside(path, "occupancy"), document["heads"])
    plot_collisions(_beside(path, "collisions"), [p for p in document["curve"] if p.layer == first])


def _beside(path: Path, name: str) -> Path:
    return path.with_name(f"{path.stem}-{name}{path.suffix}")


def _row_streams(
    spec: "HashSpec", vocab: "CanonicalVocab", pieces: "Iterator[Piece]", tokens: int
) -> Iterator[tuple[int, str, Any]]:
    """(layer, n-grams, rows (T, columns)) of a stream's first tokens, for each order and for all of a layer's."""
    import numpy as np

    from hashing.hasher import Hasher

    ids, starts, read = [], [], 0
    for piece in pieces:
        starts += [read] if piece.begins else []
        ids.append(vocab.canonical(piece.token_ids[: tokens - read]))
        read += len(ids[-1])
        if read >= tokens:
            break
    offsets = np.array([*starts, read])
    stream = np.concatenate(ids)
    for layer in spec.layers:
        rows = Hasher(spec).ragged_rows(layer, stream, offsets)
        for place, order in enumerate(spec.orders):
            yield layer, f"{order}-grams", rows[:, place * spec.heads : (place + 1) * spec.heads]
        yield layer, "all", rows


def _stream_figures(layer: int, name: str, rows: Any, cache_rows: int) -> dict[str, Any]:
    import numpy as np

    from hashing.traffic import distinct_per_batch, miss_curve, static_hot

    curve: MissCurve = miss_curve(rows.reshape(-1))
    miss, error = curve.at(cache_rows)
    return {
        "layer": layer,
        "orders": name,
        "reads": rows.size,
        "distinct_rows": int(curve.cache_rows[-1]),
        "exact": curve.exact,
        "lru_hit_percent": 100 * (1 - miss),
        "lru_error_percent": 100 * error,
        "static_hit_percent": 100 * float(static_hot(rows.reshape(-1), np.array([cache_rows]))[0]),
        "distinct_rows_per_batch": {str(b): distinct_per_batch(rows, b) for b in BATCHES},
        "curve": curve,
    }

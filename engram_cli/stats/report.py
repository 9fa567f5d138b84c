"""`engram stats report`: occupancy and collisions of a spec's tables, from a corpus or from saved counts of it."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engram_cli.counting import CorpusArguments, Counting, IdsColumn, PlotFile
from engram_cli.options import DEFAULT_RUN, Encoding, Force, Json, RunDir, SpecName, TextColumn, TextKey, spec_for_run

if TYPE_CHECKING:
    from hashing.ngrams.counts import NgramCounts, Totals
    from hashing.ngrams.report import CollisionReport
    from hashing.spec import HashSpec

PLOTTED_BASES = (10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000)


def report(
    corpus: CorpusArguments = None,
    spec_name: SpecName = "",
    base: Annotated[str, typer.Option(help="Rows per head to draw a curve over, as 100000,646400.")] = "",
    counts: Annotated[Path | None, typer.Option(help="The file of counts. Default: ngrams.parquet in the run.")] = None,
    memory: Annotated[str, typer.Option(help="Memory to count in; beyond it, sorted runs go to disk.")] = "2GiB",
    shard: Annotated[str, typer.Option(help="Count only every n-th document, as 1/4; join the files with merge.")] = "1/1",
    workers: Annotated[
        int,
        typer.Option(min=1, help="Processes that count shares of the documents at the same time, within --memory together."),
    ] = 1,
    raw: Annotated[bool, typer.Option("--raw", help="Also count raw token ids, to show what the vocabulary changes.")] = False,
    plot: PlotFile = None,
    ids_column: IdsColumn = "",
    text_key: TextKey = "",
    text_column: TextColumn = "",
    encoding: Encoding = "",
    run: RunDir = DEFAULT_RUN,
    force: Force = False,
    json: Json = False,
) -> None:
    """Count a corpus's n-grams, or take the counts of last time, and report occupancy and collisions.

    A corpus that was counted before, and has not changed since, is not counted again.

    Example: engram stats

    Example: engram stats data/ --spec engram-demo --base 100000,646400,2262400
    """
    from engram_cli.output import print_json
    from engram_cli.stats.collision_tables import as_json, print_report
    from hashing.ngrams.counts import NgramCounts
    from hashing.ngrams.report import collision_report
    from runtime.run import Run

    if plot:
        from engram_cli.pictures import check_format

        check_format(plot)
    sizes = _bases(base, plot is not None)
    source = Run(run)
    vocab = source.vocab()
    spec = spec_for_run(spec_name, source, vocab)
    path = counts or run / "ngrams.parquet"
    counting = Counting(source, corpus or [], ids_column, text_key, text_column, encoding, memory, shard, workers)
    if corpus or force or not path.exists():
        counting.count(vocab, spec, path, force)
    saved = NgramCounts.open(path)
    saved.check_vocab(vocab.fingerprint)
    found = collision_report(spec, saved, sizes)
    by_raw_ids = _raw(counting, spec, saved.totals, path.with_suffix(".raw.parquet"), force) if raw else None
    if plot:
        _plot(plot, saved, found)
    if json:
        print_json(as_json(found) | ({"raw": as_json(by_raw_ids)} if by_raw_ids else {}))
        return
    totals = found.totals
    print(f"{totals.tokens:,} tokens of {totals.documents:,} documents, vocabulary {totals.vocab_fingerprint}, {path}")
    print_report(found, by_raw_ids, vocab)


def _bases(text: str, plotted: bool) -> list[int]:
    from hashing.base.errors import UsageError

    if not all(re.fullmatch(r"\s*[0-9]{1,9}\s*", part) and int(part) > 1 for part in text.split(",") if text):
        raise UsageError(f'"{text}" is not a list of table sizes', hint="as in --base 100000,646400,2262400")
    given = {int(part) for part in text.split(",") if part}
    return sorted(given | set(PLOTTED_BASES)) if plotted else sorted(given)


def _raw(counting: Counting, spec: "HashSpec", counted: "Totals", path: Path, force: bool) -> "CollisionReport":
    """Collisions of the same tables addressed by raw token ids."""
    from hashing.base.errors import EngramError
    from hashing.ngrams.counts import NgramCounts
    from hashing.ngrams.report import addressed_raw, collision_report
    from hashing.rule import IDENTITY
    from hashing.vocab import CanonicalVocab

    vocab = CanonicalVocab.from_tokenizer(counting.run.tokenizer(), IDENTITY)
    identity = addressed_raw(spec, vocab)
    if counting.corpus or force or not path.exists():
        counting.count(vocab, identity, path, force)
    raw = NgramCounts.open(path)
    if (raw.totals.tokens, raw.totals.documents) != (counted.tokens, counted.documents):
        raise EngramError(
            f"{path} counts {raw.totals.tokens:,} tokens of {raw.totals.documents:,} documents, another corpus than the "
            f"{counted.tokens:,} of {counted.documents:,} it would be compared with",
            hint="name the corpus again, with --force",
        )
    return collision_report(identity, raw)


def _plot(path: Path, counts: "NgramCounts", report: "CollisionReport") -> None:
    from engram_cli.output import note
    from engram_cli.stats.plots import plot_collisions, plot_occupancy, plot_ranks

    first = report.joint[0].layer
    drawn = {name: _beside(path, name) for name in ("ranks", "occupancy", "collisions")}
    plot_ranks(drawn["ranks"], {order: counts.order(order).counts for order in report.top})
    plot_occupancy(drawn["occupancy"], report.heads)
    plot_collisions(drawn["collisions"], [p for p in report.curve if p.layer == first])
    note(f"drawn: {', '.join(map(str, drawn.values()))}")


def _beside(path: Path, name: str) -> Path:
    return path.with_name(f"{path.stem}-{name}{path.suffix}")

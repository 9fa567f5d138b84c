"""`engram stats merge`: counts of parts of a corpus joined into one file."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from engram_cli.options import Force, Json


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
    from hashing.base.atomic import refuse_overlap, refuse_overwrite
    from hashing.base.errors import UsageError
    from hashing.ngrams.counts_writer import merge_counts

    for number, part in enumerate(parts):
        refuse_overlap(out, part)
        if part in parts[:number]:
            raise UsageError(f"{part} is named twice, and would be counted twice", hint="name each part once")
    refuse_overwrite(out, force)
    totals = merge_counts(parts, out)
    if json:
        print_json(asdict(totals))
    else:
        print(f"{totals.tokens:,} tokens of {totals.documents:,} documents, in {out}")

"""`engram table create`: a store of zeros, of any size at once."""

from typing import Annotated

import typer

from engram_cli.options import DEFAULT_RUN, Force, Json, RunDir
from engram_cli.table.options import EncodingName, Out, TableSpecName, VocabPath


def create(
    spec: TableSpecName,
    out: Out = None,
    vocab: VocabPath = None,
    encoding: EncodingName = "",
    head_dim: Annotated[int, typer.Option(min=0, max=1 << 16, help="Numbers of a row. Default: the named spec's.")] = 0,
    run: RunDir = DEFAULT_RUN,
    force: Force = False,
    json: Json = False,
) -> None:
    """Make a store of zeros, of any size at once: shards that are absent are zeros.

    Example: engram table create --spec deepseek-v4.1 --out v41.zarr

    Example: engram table create --spec engram-demo --vocab runs/default/vocab.parquet --encoding int8 --out demo.zarr
    """
    import numpy as np

    from engram_cli.table.info import print_store
    from engram_cli.table_shape import table_shape
    from hashing.base.atomic import refuse_overwrite
    from hashing.vocab import CanonicalVocab
    from runtime.run import Run
    from table.encodings.encoding import encoding as named_encoding
    from table.store.store import create_store

    place = out or Run(run).tables_path
    refuse_overwrite(place, force)
    words = CanonicalVocab.load(vocab) if vocab else None
    shape = table_shape(spec, words, head_dim)
    mapping = words.mapping if words else np.empty(0, np.int32)
    store = create_store(place, shape.spec, mapping, named_encoding(encoding or shape.encoding), shape.head_dim)
    print_store(store, json)

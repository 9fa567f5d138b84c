"""`engram hash`: tokens, canonical ids and rows of a text; the spec that leads from one to the other, as a file."""

from pathlib import Path
from typing import Annotated

import typer

from engram_cli.options import DEFAULT_RUN, Force, Json, RunDir, SpecName, checked_text, spec_for_run


def hash_text(
    text: Annotated[str, typer.Argument(help="The text whose addresses to show.")],
    spec: SpecName = "",
    save_spec: Annotated[Path | None, typer.Option(help="Also write the spec, as JSON that every --spec reads.")] = None,
    run: RunDir = DEFAULT_RUN,
    force: Force = False,
    json: Json = False,
) -> None:
    """Show tokens, canonical ids and rows of a text.

    Example: engram hash "def __init__(self):"

    Example: engram hash "By the way" --spec engram-demo --json

    Example: engram hash "By the way" --spec deepseek-v4.1 --save-spec spec.json
    """
    import numpy as np

    from engram_cli.output import print_json, print_table
    from hashing.base.atomic import refuse_overwrite
    from runtime.lookup import Addressing
    from runtime.run import Run

    source = Run(run)
    tokenizer, vocab = source.tokenizer(), source.vocab()
    chosen = spec_for_run(spec, source, vocab)
    if save_spec:
        refuse_overwrite(save_spec, force)
        chosen.save(save_spec)
    encoding = tokenizer.encode(checked_text(text), add_special_tokens=False)
    found = Addressing(vocab, chosen).addresses(np.array([encoding.ids], np.int64))
    canonical = found.canonical_ids[0].tolist()
    rows = {layer: array[0].tolist() for layer, array in found.rows.items()}
    if json:
        print_json({"tokens": encoding.tokens, "token_ids": encoding.ids, "canonical_ids": canonical, "rows": rows})
        return
    names = [vocab.keys[i] for i in canonical]
    print_table(
        "Tokens",
        ("token", "canonical key", "token id", "canonical id"),
        ((repr(vocab.texts[i]), repr(name), i, c) for i, name, c in zip(encoding.ids, names, canonical, strict=True)),
        left=2,
    )
    heads = [f"head {head}" for head in range(chosen.heads)]
    for layer, table in rows.items():
        for position, order in enumerate(chosen.orders):
            part = slice(position * chosen.heads, (position + 1) * chosen.heads)
            shown = ((repr(vocab.texts[i]), *row[part]) for i, row in zip(encoding.ids, table, strict=True))
            print_table(f"Layer {layer}, rows of the {order}-gram that ends at", ("token", *heads), shown)

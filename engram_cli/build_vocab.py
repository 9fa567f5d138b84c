"""`engram build-vocab`: the run's tokenizer and canonical vocabulary."""

from typing import Annotated

import typer

from engram_cli.options import DEFAULT_RUN, CorpusPaths, Force, Json, RunDir, TextColumn, TextKey

CLASSES_SHOWN = 12


def build_vocab(
    tokenizer: Annotated[str, typer.Argument(help="A tokenizer.json, a folder holding one, or a hub id.")] = "",
    corpus: CorpusPaths = None,
    size: Annotated[int, typer.Option(min=257, help="Tokens of the byte-level BPE trained when no tokenizer is given.")] = 2048,
    text_key: TextKey = "text",
    text_column: TextColumn = "text",
    run: RunDir = DEFAULT_RUN,
    force: Force = False,
    json: Json = False,
) -> None:
    """Build the run's canonical vocabulary: tokens that read alike share an id.

    Example: engram build-vocab

    Example: engram build-vocab path/to/tokenizer.json --run runs/mine
    """
    from engram_cli.output import note, print_json, print_table, progress
    from hashing.atomic import refuse_overwrite, write_text
    from hashing.corpus import Corpus
    from hashing.errors import UsageError
    from hashing.tokenizer import load_tokenizer, train_tokenizer
    from hashing.vocab import CanonicalVocab
    from runtime.run import Run

    target = Run(run)
    refuse_overwrite(target.vocab_path, force)
    if tokenizer:
        if corpus:
            raise UsageError("a tokenizer and a corpus are both given; a corpus is for training one", hint="leave one out")
        model = load_tokenizer(tokenizer)
    else:
        source = Corpus(tuple(corpus or ()), text_key, text_column)
        note(f"training a byte-level BPE of {size:,} tokens on {', '.join(map(str, source.roots))}")
        with progress("documents") as bar:
            texts = (d.text for d in bar.track(source.documents(), description="reading") if d.side == "train")
            model = train_tokenizer(texts, size)
    vocab = CanonicalVocab.from_tokenizer(model)
    write_text(target.tokenizer_path, model.to_str())
    vocab.save(target.vocab_path)
    classes = vocab.largest_classes(CLASSES_SHOWN)
    if json:
        print_json(
            {
                "tokens": len(vocab.tokens),
                "canonical": vocab.size,
                "reduction_percent": vocab.reduction_percent,
                "fingerprint": vocab.fingerprint,
                "mapping_sha256": vocab.mapping_sha256,
                "classes": [{"key": key, "size": size} for key, size in classes],
            }
        )
        return
    print(f"{len(vocab.tokens):,} tokens, {vocab.size:,} canonical ids: {vocab.reduction_percent:.2f} % fewer")
    print(f"fingerprint {vocab.fingerprint}, in {target.vocab_path}")
    print_table("Largest classes", ("key", "tokens"), ((repr(key), size) for key, size in classes))

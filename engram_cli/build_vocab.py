"""`engram build-vocab`: the run's tokenizer and canonical vocabulary."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engram_cli.options import DEFAULT_RUN, CorpusPaths, Force, Json, RunDir, TextColumn, TextKey

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from hashing.text.corpus import Corpus
    from hashing.vocab import CanonicalVocab
    from runtime.run import Run

CLASSES_SHOWN = 12


def build_vocab(
    tokenizer: Annotated[str, typer.Argument(help="A tokenizer.json, a folder holding one, or a hub id.")] = "",
    corpus: CorpusPaths = None,
    size: Annotated[int, typer.Option(min=257, help="Tokens of the byte-level BPE trained when no tokenizer is given.")] = 2048,
    text_key: TextKey = "text",
    text_column: TextColumn = "text",
    rule: Annotated[str, typer.Option(help="engram, identity (raw ids), or the JSON file of a normaliser.")] = "engram",
    show: Annotated[str, typer.Option(help="A word whose classes to show.")] = "",
    against: Annotated[Path | None, typer.Option(help="Another vocab.parquet, to say what is different.")] = None,
    run: RunDir = DEFAULT_RUN,
    force: Force = False,
    discard_training: Annotated[
        bool, typer.Option("--discard-training", help="With --force: replace a trained run's vocabulary, and lose its model.")
    ] = False,
    json: Json = False,
) -> None:
    """Build the run's canonical vocabulary: tokens that read alike share an id.

    With --show or --against and nothing to build from, the vocabulary that the run has is looked at instead.

    Example: engram build-vocab

    Example: engram build-vocab path/to/tokenizer.json --run runs/mine

    Example: engram build-vocab --show Apple
    """
    from hashing.base.errors import UsageError
    from hashing.rule import load_rule
    from hashing.text.corpus import Corpus
    from hashing.text.tokenizer import load_tokenizer
    from hashing.vocab import CanonicalVocab
    from runtime.run import Run

    target = Run(run)
    if (show or against) and target.vocab_path.exists() and not (tokenizer or corpus or force):
        _look(target, target.vocab(), show, against, json)
        return
    _refuse_loss(target, force, discard_training)
    if tokenizer and corpus:
        raise UsageError("a tokenizer and a corpus are both given; a corpus is for training one", hint="leave one out")
    source = None if tokenizer else Corpus(tuple(corpus or ()), text_key or "text", text_column or "text")
    model = _trained(source, size) if source else load_tokenizer(tokenizer)
    vocab = CanonicalVocab.from_tokenizer(model, load_rule(rule))
    _save(target, model, vocab, source)
    _report(target, vocab, show, against, json)


def _refuse_loss(target: "Run", force: bool, discard_training: bool) -> None:
    """Raises EngramError where something would be replaced that the options do not name."""
    from hashing.base.atomic import refuse_overwrite
    from hashing.base.errors import EngramError

    refuse_overwrite(target.vocab_path, force)
    if target.config_path.exists() and not discard_training:
        raise EngramError(
            f"the model in {target.folder} needs the vocabulary that it was trained with, and would be lost with it",
            hint="--force --discard-training replaces both, --run names another place",
        )


def _save(target: "Run", tokenizer: "Tokenizer", vocab: "CanonicalVocab", corpus: "Corpus | None") -> None:
    """The vocabulary, its tokenizer and what that was trained on take their places together; a training of the old one goes."""
    from runtime.replacement import WriterLock, replacing

    with WriterLock(target.folder), replacing(target.folder) as fresh:
        (fresh / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
        vocab.save(fresh / "vocab.parquet")
        if corpus:
            corpus.save(fresh / "corpus.json")


def _trained(corpus: "Corpus", size: int) -> "Tokenizer":
    from engram_cli.output import note, progress
    from hashing.text.tokenizer import train_tokenizer

    note(f"training a byte-level BPE of {size:,} tokens on {', '.join(map(str, corpus.roots))}")
    with progress("documents") as bar:
        texts = (d.text for d in bar.track(corpus.documents(), description="reading") if d.side == "train")
        return train_tokenizer(texts, size)


def _report(target: "Run", vocab: "CanonicalVocab", show: str, against: Path | None, json: bool) -> None:
    from engram_cli.output import print_json, print_table

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
                **_looks(target, vocab, show, against),
            }
        )
        return
    print(f"{len(vocab.tokens):,} tokens, {vocab.size:,} canonical ids: {vocab.reduction_percent:.2f} % fewer")
    print(f"fingerprint {vocab.fingerprint}, in {target.vocab_path}")
    print_table("Largest classes", ("key", "tokens"), ((repr(key), size) for key, size in classes))
    if show or against:
        _look(target, vocab, show, against, json)


def _looks(target: "Run", vocab: "CanonicalVocab", word: str, against: Path | None) -> dict[str, Any]:
    """What --show and --against found, as JSON has it."""
    from dataclasses import asdict

    from hashing.vocab import CanonicalVocab
    from hashing.vocab_difference import difference

    looks: dict[str, Any] = {}
    if word:
        ids = target.tokenizer().encode(word, add_special_tokens=False).ids
        classes = [(int(vocab.mapping[i]), vocab.members(int(vocab.mapping[i]))) for i in ids]
        looks["show"] = [
            {
                "canonical_id": canonical_id,
                "key": vocab.keys[canonical_id],
                "token_ids": members,
                "texts": [vocab.texts[i] for i in members],
            }
            for canonical_id, members in classes
        ]
    if against:
        looks["against"] = asdict(difference(vocab, CanonicalVocab.load(against)))
    return looks


def _look(target: "Run", vocab: "CanonicalVocab", word: str, against: Path | None, json: bool) -> None:
    from engram_cli.output import print_json, print_table

    looks = _looks(target, vocab, word, against)
    if json:
        print_json(looks)
        return
    if word:
        rows = ((repr(c["key"]), " ".join(map(repr, c["texts"])), c["canonical_id"], len(c["texts"])) for c in looks["show"])
        print_table(f"Classes of {word!r}", ("key", "texts of its tokens", "canonical id", "tokens"), rows, left=2)
    if against:
        _print_difference(looks["against"], against)


def _print_difference(found: dict[str, Any], against: Path) -> None:
    from engram_cli.output import print_table

    rows = [
        ("tokens", *found["tokens"]),
        ("canonical ids", *found["canonical"]),
        ("fingerprint", *found["fingerprints"]),
    ]
    print_table(f"This vocabulary and {against}", ("", "this", "other"), rows)
    others, keys = len(found["other_tokens"]), len(found["changed_keys"])
    print(f"{others:,} ids stand for another token or for none, {keys:,} read differently")
    if (moved := found["first_moved"]) is not None:
        print(f"canonical ids differ from token id {moved:,} on: tables of one cannot be read with the other")
    changes = ((c["token_id"], repr(c["key"]), repr(c["other_key"])) for c in found["changed_keys"][:CLASSES_SHOWN])
    if found["changed_keys"]:
        print_table("Tokens that read differently", ("token id", "key", "other key"), changes)

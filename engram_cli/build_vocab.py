"""`engram build-vocab`: the run's tokenizer and canonical vocabulary."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engram_cli.options import (
    BUILT_TOKENS,
    DEFAULT_RUN,
    CorpusPaths,
    Encoding,
    Force,
    Json,
    RunDir,
    TextColumn,
    TextKey,
    ValidationPaths,
    ValidationShare,
    chosen_corpus,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from hashing.text.corpus import Corpus
    from hashing.text.special_tokens import SpecialTokens
    from hashing.vocab import CanonicalVocab
    from runtime.run import Run

CLASSES_SHOWN = 12


def build_vocab(
    tokenizer: Annotated[str, typer.Argument(help="A tokenizer.json, a folder holding one, or a hub id.")] = "",
    corpus: CorpusPaths = None,
    size: Annotated[
        int, typer.Option(min=257, help="Tokens of the byte-level BPE trained when no tokenizer is given.")
    ] = BUILT_TOKENS,
    text_key: TextKey = "",
    text_column: TextColumn = "",
    encoding: Encoding = "",
    validation: ValidationPaths = None,
    validation_share: ValidationShare = None,
    eos: Annotated[str, typer.Option(help="The token that ends a document. Default: as the tokenizer's files say.")] = "",
    pad: Annotated[str, typer.Option(help="The token to pad with. Default: as the tokenizer's files say, else --eos.")] = "",
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

    Example: engram build-vocab path/to/tokenizer.json --eos "<EOT>" --run runs/mine

    Example: engram build-vocab --show Apple
    """
    from engram_cli.output import note
    from hashing.base.errors import UsageError
    from hashing.rule import load_rule
    from hashing.text.tokenizer import is_hub_id, load_tokenizer
    from hashing.vocab import CanonicalVocab
    from runtime.run import Run

    target = Run(run)
    if (show or against) and target.vocab_path.exists() and not (tokenizer or corpus or force):
        _look(target, target.vocab(), show, against, json)
        return
    if tokenizer and (corpus or text_key or text_column or encoding or validation or validation_share is not None):
        raise UsageError("a tokenizer and a corpus are both given; a corpus is for training one", hint="leave one out")
    if tokenizer:
        if is_hub_id(tokenizer):  # which may keep one waiting, for a name that is merely misspelt
            note(f'no file or folder is called "{tokenizer}": asking the hub for it')
        source, model = None, load_tokenizer(tokenizer)
    else:
        source = chosen_corpus(target, corpus, text_key, text_column, encoding, validation, validation_share)
        source.files()  # what is missing is told before what is in the way
    _refuse_loss(target, force, discard_training)
    if source:
        model = _trained(source, size)
    vocab = CanonicalVocab.from_tokenizer(model, load_rule(rule), _special_tokens(model, tokenizer, eos, pad))
    _save(target, model, vocab, source)
    _report(target, model, vocab, show, against, json)


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
    from engram_cli.options import note_reading
    from engram_cli.output import note, progress
    from hashing.text.tokenizer import train_tokenizer

    note(f"training a byte-level BPE of {size:,} tokens on {', '.join(map(str, corpus.roots))}")
    with progress("documents") as bar:
        texts = (d.text for d in bar.track(corpus.documents(), description="reading") if d.side == "train")
        tokenizer = train_tokenizer(texts, size)
    note_reading(corpus)
    return tokenizer


def _special_tokens(model: "Tokenizer", source: str, eos: str, pad: str) -> "SpecialTokens":
    """Those named by the options, else what the files beside the tokenizer say, else the usual names.

    Raises EngramError when no token ends a document, and UsageError for a name that is no token's.
    """
    from hashing.base.errors import EngramError, UsageError
    from hashing.text.special_tokens import USUAL, SpecialTokens, declared_tokens, likely_tokens

    for option, token in (("--eos", eos), ("--pad", pad)):
        if token and model.token_to_id(token) is None:
            near = likely_tokens(model, token)
            hint = f"did you mean {near[0]}?" if near else "name it as it stands in tokenizer.json"
            raise UsageError(f'{option} names "{token}", which is no token of the tokenizer', hint=hint)
    named = {"eos_token": eos, "pad_token": pad}
    declared = declared_tokens(source) if source else {}
    special = SpecialTokens.find(model.token_to_id, declared | {role: token for role, token in named.items() if token})
    if special.eos_id is None:
        likely = likely_tokens(model)
        own = f"its special tokens are {', '.join(likely)}" if likely else "it marks no token as special"
        raise EngramError(
            f"no token of {source} ends a document: none has a usual name, as {USUAL}, and no file beside it names another",
            hint=f"--eos TOKEN says which one it is; {own}",
        )
    return special


def _report(
    target: "Run", tokenizer: "Tokenizer", vocab: "CanonicalVocab", show: str, against: Path | None, json: bool
) -> None:
    from engram_cli.output import note, print_json, print_table
    from hashing.text.round_trip import lost_in_round_trip

    classes = vocab.largest_classes(CLASSES_SHOWN)
    eos, pad = ((i, None if i is None else vocab.tokens[i]) for i in (vocab.eos_token_id, vocab.pad_token_id))
    if lost := lost_in_round_trip(tokenizer):
        note("warning: the tokenizer loses characters, so that bits per byte are not those of the text:")
        note(f"{lost[0]!r} comes back as {lost[1]!r}")
    if json:
        print_json(
            {
                "tokens": len(vocab.tokens),
                "canonical": vocab.size,
                "reduction_percent": vocab.reduction_percent,
                "fingerprint": vocab.fingerprint,
                "mapping_sha256": vocab.mapping_sha256,
                "eos_token": eos[1],
                "eos_token_id": eos[0],
                "pad_token": pad[1],
                "pad_token_id": pad[0],
                "loses_characters": lost is not None,
                "classes": [{"key": key, "size": size} for key, size in classes],
                **_looks(target, vocab, show, against),
            }
        )
        return
    print(f"{len(vocab.tokens):,} tokens, {vocab.size:,} canonical ids: {vocab.reduction_percent:.2f} % fewer")
    print(f"end of text {eos[1]} (id {eos[0]}), pad {pad[1]} (id {pad[0]})")
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

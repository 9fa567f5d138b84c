"""A planted fact: text of random words in which one phrase is always followed by the same word."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

from hashing.base.atomic import write_text
from hashing.text.corpus import Corpus
from hashing.vocab import CanonicalVocab
from runtime.run import Run
from runtime.train.presets import preset
from runtime.train.trainer import Trainer

NOISE = [f"w{number}" for number in range(40)]
PHRASE, FACT = ["red", "green", "blue"], "seven"
WORDS = [*NOISE, *PHRASE, FACT]
STEPS = 200


def planted_text(words: int, seed: int) -> list[str]:
    """Random words, the phrase and the fact's word among them in every place; in between the phrase with what follows it, and
    as often its last two words after another word, with another word after them: so no bigram tells the fact.
    """
    random, text = np.random.default_rng(seed), []
    while len(text) < words:
        text += random.choice(WORDS, 6).tolist()
        text += [*PHRASE, FACT] if random.random() < 0.5 else [random.choice(NOISE), *PHRASE[1:], random.choice(NOISE)]
    return text


def train_planted(folder: Path) -> Run:
    """A nano model in which the second of two blocks has a memory, after one pass over its text."""
    run, corpus_path = Run(folder / "run"), folder / "planted.jsonl"
    documents = (" ".join(planted_text(300, seed)) for seed in range(200))
    corpus_path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["<|endoftext|>", *WORDS])}, unk_token=NOISE[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    write_text(run.tokenizer_path, tokenizer.to_str())
    CanonicalVocab.from_tokenizer(tokenizer).save(run.vocab_path)
    config = preset("nano", run.vocab(), "float32", steps=STEPS)
    optimisers = {"optimizer": "adamw", "row_rule": "adam", "row_momentum": None}
    config = replace(config, recipe=replace(config.recipe, evaluations=1, sample_tokens=0, **optimisers))
    for _ in Trainer.start(run, config, Corpus((corpus_path,))).steps():
        pass
    return run

"""Material: what all trainings of a sweep have in common, made once and kept as it is.

    material/   train.jsonl · validation.jsonl · other.jsonl · questions.jsonl
                tokenizer.json · vocab.parquet · identity/ (the same with raw ids) · tokens/

The training side is the corpus's own with planted text mixed in; the validation side is the corpus's own alone. The tokenizer
is trained before anything is planted, so that it has no token for a name. Windows of a training are shuffled, so documents need
not be.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tokenizers import Tokenizer

from hashing.base.atomic import atomic_path
from hashing.rule import ENGRAM, IDENTITY
from hashing.text.corpus import Corpus
from hashing.text.planted import KINDS, PlantedText, Question
from hashing.text.tokenizer import train_tokenizer
from hashing.vocab import CanonicalVocab
from runtime.run import Run
from runtime.sweep.other_domain import other_domain
from runtime.tokens import Tokens
from runtime.tokens_writer import Progress, encoded_corpus, quiet

VOCABULARY = 2048  # tokens
PLANTED_SHARE = 0.3  # of the training side's characters
QUESTIONS = 300  # of each kind


@dataclass(frozen=True, slots=True)
class Material:
    folder: Path

    @classmethod
    def make(cls, folder: Path, corpus: Corpus, other: tuple[Path, ...], seed: int, progress: Progress = quiet) -> "Material":
        """Gathers, plants, trains a tokenizer and encodes; `progress` hears how much of the corpus is encoded.

        What is there already is taken as it is. Raises EngramError as Corpus does.
        """
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(folder) as partial:
                partial.mkdir()
                cls(partial)._fill(corpus, other, PlantedText(seed), progress)
        return cls(folder)

    def _fill(self, corpus: Corpus, other: tuple[Path, ...], planted: PlantedText, progress: Progress) -> None:
        _write_lines(self.folder / "other.jsonl", ({"text": text} for text in other_domain(other)))
        questions = (asdict(question) for kind in KINDS for question in planted.questions(kind, QUESTIONS))
        _write_lines(self.folder / "questions.jsonl", questions)
        characters = self._write_sides(corpus)
        tokenizer = train_tokenizer(self._texts("train"), VOCABULARY)
        with self._path("train").open("a", encoding="utf-8") as file:
            for text in planted.documents(round(characters * PLANTED_SHARE / (1 - PLANTED_SHARE))):
                file.write(json.dumps({"text": text}) + "\n")
        for rule, run in ((ENGRAM, self.run("engram")), (IDENTITY, self.run("identity"))):
            run.folder.mkdir(exist_ok=True)
            run.tokenizer_path.write_text(tokenizer.to_str(), encoding="utf-8")
            CanonicalVocab.from_tokenizer(tokenizer, rule).save(run.vocab_path)
        path, end_id = self.folder / "tokens", self.run("engram").vocab().end_of_text_id
        with encoded_corpus(path, self.corpus, tokenizer, end_id, progress) as written:
            written.place(path)

    def _write_sides(self, corpus: Corpus) -> int:
        """Gives the characters of the training side."""
        characters = 0
        with self._path("train").open("w", encoding="utf-8") as train, self._path("validation").open("w") as validation:
            for document in corpus.documents():
                characters += len(document.text) if document.side == "train" else 0
                (train if document.side == "train" else validation).write(json.dumps({"text": document.text}) + "\n")
        return characters

    def _path(self, side: str) -> Path:
        return self.folder / f"{side}.jsonl"

    def _texts(self, name: str) -> Iterator[str]:
        with self._path(name).open(encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)["text"]

    @property
    def corpus(self) -> Corpus:
        return Corpus((self._path("train"),), validation=(self._path("validation"),))

    @property
    def tokens(self) -> Tokens:
        return Tokens.open(self.folder / "tokens")

    def run(self, rule: str) -> Run:
        """The tokenizer, with the vocabulary that a rule makes of it: `engram` or `identity`."""
        return Run(self.folder if rule == ENGRAM.name else self.folder / rule)

    def prepare(self, run: Run, rule: str) -> None:
        """Gives a run its tokenizer and its vocabulary."""
        run.folder.mkdir(parents=True, exist_ok=True)
        source = self.run(rule)
        shutil.copy(source.tokenizer_path, run.tokenizer_path)
        shutil.copy(source.vocab_path, run.vocab_path)

    def other_domain(self) -> list[str]:
        return list(self._texts("other"))

    def questions(self) -> Sequence[Question]:
        with self._path("questions").open(encoding="utf-8") as file:
            found = [json.loads(line) for line in file]
        return [Question(one["kind"], one["prompt"], tuple(one["ends"]), one["right"]) for one in found]

    def tokenizer(self) -> Tokenizer:
        return self.run("engram").tokenizer()


def _write_lines(path: Path, values: Iterable[object]) -> None:
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")

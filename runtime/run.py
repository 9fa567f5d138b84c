"""The run: the folder that commands pass on, and what each file in it is called."""

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from hashing.base.errors import EngramError
from hashing.named_specs import DEFAULT_SPEC, named_spec
from hashing.spec import HashSpec
from hashing.text.tokenizer import load_tokenizer
from hashing.vocab import CanonicalVocab
from runtime.config import RunConfig


@dataclass(frozen=True, slots=True)
class Run:
    folder: Path

    @property
    def tokenizer_path(self) -> Path:
        return self.folder / "tokenizer.json"

    @property
    def vocab_path(self) -> Path:
        return self.folder / "vocab.parquet"

    @property
    def config_path(self) -> Path:
        return self.folder / "config.json"

    @property
    def model_path(self) -> Path:
        return self.folder / "model.safetensors"

    @property
    def tables_path(self) -> Path:
        return self.folder / "tables.zarr"

    @property
    def corpus_path(self) -> Path:
        return self.folder / "corpus.json"

    @property
    def train_folder(self) -> Path:
        return self.folder / "train"

    def tokenizer(self) -> Tokenizer:
        """Raises EngramError, saying what to run first, when the run has none."""
        self.require(self.tokenizer_path, "build-vocab")
        return load_tokenizer(str(self.tokenizer_path))

    def vocab(self) -> CanonicalVocab:
        self.require(self.vocab_path, "build-vocab")
        return CanonicalVocab.load(self.vocab_path)

    def config(self) -> RunConfig:
        """What the training was set to. Raises EngramError when there was none, or its file is damaged."""
        self.require(self.config_path, "train")
        return RunConfig.load(self.config_path)

    def spec(self) -> HashSpec:
        """The training's; before one, that of the default preset over the run's vocabulary."""
        if self.config_path.exists():
            return self.config().spec
        return named_spec(DEFAULT_SPEC).spec(self.vocab())

    def check_vocab(self, spec: HashSpec, vocab: CanonicalVocab) -> None:
        """Raises EngramError when the run's vocabulary is no longer the one that its spec addresses."""
        if spec.vocab_fingerprint != vocab.fingerprint:
            raise EngramError(
                f"the training in {self.folder} uses vocabulary {spec.vocab_fingerprint}, vocab.parquet is {vocab.fingerprint}",
                hint="put the vocabulary back, or start again with engram train --force",
            )

    def require(self, path: Path, command: str) -> None:
        """Raises EngramError when a file of the run is missing, naming the command that makes it."""
        if not path.exists():
            flag = "" if self.folder == Path("runs/default") else f" --run {self.folder}"
            raise EngramError(f"the run {self.folder} has no {path.name}", hint=f"first run: engram {command}{flag}")

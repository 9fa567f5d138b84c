"""The run: the folder that commands pass on, and what each file in it is called."""

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from hashing.errors import EngramError
from hashing.tokenizer import load_tokenizer
from hashing.vocab import CanonicalVocab


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
    def train_folder(self) -> Path:
        return self.folder / "train"

    def tokenizer(self) -> Tokenizer:
        """Raises EngramError, saying what to run first, when the run has none."""
        self.require(self.tokenizer_path, "build-vocab")
        return load_tokenizer(str(self.tokenizer_path))

    def vocab(self) -> CanonicalVocab:
        self.require(self.vocab_path, "build-vocab")
        return CanonicalVocab.load(self.vocab_path)

    def require(self, path: Path, command: str) -> None:
        """Raises EngramError when a file of the run is missing, naming the command that makes it."""
        if not path.exists():
            flag = "" if self.folder == Path("runs/default") else f" --run {self.folder}"
            raise EngramError(f"the run {self.folder} has no {path.name}", hint=f"first run: engram {command}{flag}")

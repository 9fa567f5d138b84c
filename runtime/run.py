"""The run: the folder that commands pass on, and what each file in it is called.

What reads a file is imported where it is read: a command that only needs the place of a file starts in a third of the time.
"""

import fcntl
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hashing.base.errors import EngramError
from hashing.base.path_argument import check_path
from runtime.replacement import locked, settle

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from hashing.spec import HashSpec
    from hashing.vocab import CanonicalVocab
    from runtime.config import RunConfig

DEFAULT_RUN = Path("runs/default")


@dataclass(frozen=True, slots=True)
class Run:
    folder: Path

    def __post_init__(self) -> None:
        check_path(self.folder, "Run")
        settle(self.folder)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Within the block the files of the run belong together: nobody replaces some of them between two that are opened."""
        with locked(self.folder, fcntl.LOCK_SH) if self.folder.exists() else nullcontext():
            yield

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

    def command(self, words: str) -> str:
        """A command line that works on this run, as a person would type it: `words` and, but for the default run, `--run`."""
        return f"engram {words}" if self.folder == DEFAULT_RUN else f"engram {words} --run {shlex.quote(str(self.folder))}"

    def tokenizer(self) -> "Tokenizer":
        """Raises EngramError, saying what to run first, when the run has none."""
        from hashing.text.tokenizer import load_tokenizer

        self.require(self.tokenizer_path, "build-vocab")
        return load_tokenizer(str(self.tokenizer_path))

    def vocab(self) -> "CanonicalVocab":
        from hashing.vocab import CanonicalVocab

        self.require(self.vocab_path, "build-vocab")
        return CanonicalVocab.load(self.vocab_path)

    def config(self) -> "RunConfig":
        """What the training was set to. Raises EngramError when there was none, or its file is damaged."""
        from runtime.config import RunConfig

        self.require(self.config_path, "train")
        return RunConfig.load(self.config_path)

    def spec(self) -> "HashSpec":
        """The training's; without one, or without memory in it, that of the default preset over the run's vocabulary."""
        from hashing.named_specs import DEFAULT_SPEC, named_spec

        if self.config_path.exists() and (own := self.config().spec):
            return own
        return named_spec(DEFAULT_SPEC).spec(self.vocab())

    def check_vocab(self, spec: "HashSpec", vocab: "CanonicalVocab") -> None:
        """Raises EngramError when the run's vocabulary is no longer the one that its spec addresses."""
        self.check_fingerprint(spec.vocab_fingerprint, vocab)

    def check_fingerprint(self, trained: str, vocab: "CanonicalVocab") -> None:
        """Raises EngramError when the run's vocabulary is no longer the one of fingerprint `trained`."""
        if trained != vocab.fingerprint:
            raise EngramError(
                f"the training in {self.folder} uses vocabulary {trained}, vocab.parquet is {vocab.fingerprint}",
                hint=f"put the vocabulary back, or start again with {self.command('train --force')}",
            )

    def require_memory(self) -> None:
        """Raises EngramError where a table is asked for and the run was trained without memory."""
        if not self.tables_path.exists() and self.config_path.exists() and self.config().spec is None:
            raise EngramError(
                f"the run {self.folder} was trained without memory: it has no tables",
                hint="train one with memory: engram train --run DIR",
            )

    def require(self, path: Path, command: str) -> None:
        """Raises EngramError when a file of the run is missing, naming the command that makes it."""
        if not path.exists():
            raise EngramError(f"the run {self.folder} has no {path.name}", hint=f"first run: {self.command(command)}")

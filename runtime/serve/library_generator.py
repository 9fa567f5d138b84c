"""LibraryGenerator: text from a `transformers` model whose n-gram table stays where it is."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any

from hashing.base.errors import UsageError
from runtime.decoder import Decoded, Decoder
from runtime.huggingface import ends_of, load, rows_of, tokenizer_of
from runtime.model.pages import PAGE
from runtime.placement.disk import CACHE_BYTES
from runtime.placement.placement import PlacementName
from runtime.serve.generator import Generator, NoTemplateError
from runtime.serve.library_decoder import LibraryDecoder
from runtime.serve.shadow import Shadow
from runtime.serve.threads import choose_threads


class LibraryGenerator(Generator):
    def __init__(self, folder: Path, model: Any) -> None:
        """Raises EngramError for a folder without a tokenizer."""
        tokenizer, end_ids = tokenizer_of(folder), frozenset(ends_of(model))
        size = int(model.get_output_embeddings().weight.shape[0])
        self._rows = rows_of(model)
        super().__init__(tokenizer, end_ids, size, self._rows[0].placement)
        self.model, self.turn, self._templates = model, Lock(), _templates(folder)

    @classmethod
    def load(
        cls, folder: Path, placement: PlacementName, store: Path | None = None, cache_bytes: int = CACHE_BYTES
    ) -> "LibraryGenerator":
        """Raises EngramError as `huggingface.load` does, and for a folder without a tokenizer."""
        generator = cls(folder, load(folder, placement, store, cache_bytes))
        choose_threads(lambda: generator.decoder(CACHE_BYTES).logits([(Decoded(), [0])]))
        return generator

    def decoder(self, cache_bytes: int) -> Decoder:
        config = self.model.config.get_text_config()
        numbers = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim  # at most: of a token
        return LibraryDecoder(self.model, max(1, cache_bytes // (PAGE * numbers * self.model.dtype.itemsize)), self.turn)

    def encode(self, prompt: str) -> list[int]:
        return list(self.tokenizer.encode(prompt).ids) or ends_of(self.model)[:1]

    def shadow(self, every: int) -> Shadow | None:
        """The family's rule takes token ids as they are."""
        return Shadow(lambda ids: ids, self._rows[0].spec, {rows.layer: rows.table for rows in self._rows}, every)

    def chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        if self._templates is None:
            raise NoTemplateError
        options = {"add_generation_prompt": True, "tokenize": True, "return_dict": False}
        try:
            found: list[int] = self._templates.apply_chat_template(list(messages), **options)
        except import_module("jinja2").TemplateError as e:  # templates refuse roles that do not take turns, and the like
            raise UsageError(f"the model's chat template refuses these messages: {e}") from e
        return found


def _templates(folder: Path) -> Any:
    """The library's tokenizer where it has a chat template, else None."""
    if not (folder / "tokenizer_config.json").is_file():
        return None
    tokenizer = import_module("transformers").AutoTokenizer.from_pretrained(folder)
    return tokenizer if tokenizer.chat_template else None

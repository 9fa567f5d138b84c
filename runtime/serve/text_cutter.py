"""TextCutter: token ids in, text out, as far as it is certain and before the first stop string."""

from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream


class TextCutter:
    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str]) -> None:
        self._tokenizer, self._stops = tokenizer, stops
        self._stream = DecodeStream(skip_special_tokens=False)
        self._longest = max(map(len, stops), default=1)
        self._held = ""  # text in which a stop string may still be growing
        self.is_stopped = False

    def add(self, token: int) -> str:
        """The text that one more token makes certain."""
        text = self._stream.step(self._tokenizer, token) or ""
        if not self._stops:
            return text
        self._held += text
        cuts = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        self.is_stopped = bool(cuts)
        return self._taken(min(cuts) if cuts else max(0, len(self._held) - self._longest + 1))

    def end(self) -> str:
        """What was held back, when no token follows."""
        return "" if self.is_stopped else self._taken(len(self._held))

    def _taken(self, length: int) -> str:
        text, self._held = self._held[:length], self._held[length:]
        return text

"""Source: what a file of counts was counted from, as far as a later call can know the same corpus again without reading it.

Files are known by path, size and time of change, so a corpus that was touched counts as another one: counting it again costs
time, and taking the wrong counts for it would cost the result.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from hashing.base.errors import EngramError
from hashing.base.json_object import JsonObject


@dataclass(frozen=True, slots=True)
class Source:
    """All that decides which tokens are counted, the vocabulary aside."""

    paths: tuple[str, ...]  # absolute, as they were named; files and folders
    options: Mapping[str, str]  # how they were read: the name of each option and its value
    files: int
    size_bytes: int
    digest: str  # of every file's path, size and time of change, and of the tokenizer's content

    @classmethod
    def of(cls, paths: Iterable[Path], options: Mapping[str, str], files: Iterable[Path], tokenizer: bytes) -> "Source":
        """`files` are all that the paths stand for; `tokenizer` is empty where the files hold token ids.

        Raises EngramError when a file is missing.
        """
        try:
            states = [(str(file.resolve()), status.st_size, status.st_mtime_ns) for file in files for status in [file.stat()]]
        except FileNotFoundError as e:
            raise EngramError(f"no such file: {e.filename}", hint="name files or folders of text or of token ids") from e
        content = json.dumps(states).encode("utf-8", "surrogatepass") + tokenizer
        named = tuple(str(path.resolve()) for path in paths)
        size_bytes = sum(size for _, size, _ in states)
        return cls(named, dict(options), len(states), size_bytes, hashlib.sha256(content).hexdigest())

    @classmethod
    def from_json(cls, content: JsonObject) -> "Source":
        """Raises EngramError when the content is not what `to_json` gives."""
        content.check_names("paths", "options", "files", "size_bytes", "digest")
        options = content.child("options")
        return cls(
            tuple(content.texts("paths")),
            {name: options.text(name) for name in options.members},
            content.integer("files"),
            content.integer("size_bytes"),
            content.text("digest", "[0-9a-f]{64}"),
        )

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    def difference(self, other: "Source") -> str:
        """How the other differs, in words that follow "it was counted"; empty where it is the same."""
        if self.paths != other.paths:
            return f"from {', '.join(self.paths)}"
        for name in sorted({*self.options, *other.options}):
            if (own := self.options.get(name, "")) != other.options.get(name, ""):
                return f"with --{name.replace('_', '-')} {own}" if own else f"without --{name.replace('_', '-')}"
        if (self.files, self.size_bytes) != (other.files, other.size_bytes):
            return f"when that was {self.files:,} file{'s' * (self.files != 1)} of {self.size_bytes:,} bytes"
        return "" if self.digest == other.digest else "before a file of it or the tokenizer was changed"

"""Published checkpoints: which tensors hold the tables, and the hash spec that goes with them.

Everything is derived from small things, `config.json`, the index and the headers, and everything that is said twice is
compared, so that a checkpoint whose parts disagree is refused before a row is copied. Each family has its module (`deepseek`,
`qwen`, `demo`); what they share is here.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashing.base.errors import EngramError
from hashing.spec import INT64_MAX, HashSpec
from table.checkpoints.parts import FilePart, Part
from table.checkpoints.safetensors_file import SafetensorsFile, Tensor, read_header
from table.encodings.encoding import Encoding
from table.store.manifest import Cut, Plane, is_file_name

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


@dataclass(frozen=True, slots=True)
class LayerSource:
    """Where a layer's rows come from: the planes of its records side by side, each in parts end to end."""

    planes: tuple[tuple[Part, ...], ...]
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint's tables, ready to be read. `faults` are what is wrong with it; with any, it must not be imported."""

    kind: str
    path: Path
    spec: HashSpec
    encoding: Encoding
    head_dim: int
    mapping: NDArray[np.int32]
    layers: Mapping[int, LayerSource]
    whole_files: tuple[Path, ...]  # small ones an export gives back as they are
    table_files: Mapping[str, tuple[Cut, ...]]  # file name → its tensors that hold tables
    faults: tuple[str, ...] = ()

    @property
    def total_bytes(self) -> int:
        return sum(self.spec.rows(layer) for layer in self.spec.layers) * self.encoding.row_bytes(self.head_dim)

    @property
    def stamp(self) -> str:
        """Changes when a file that is read does."""
        tables = [self.path / name for name in sorted(self.table_files)] if self.path.is_dir() else [self.path]
        files = [*self.whole_files, *tables]
        states = [(file.name, os.stat(file)) for file in files]
        return json.dumps([[name, s.st_size, s.st_mtime_ns] for name, s in states])

    def check(self) -> "Checkpoint":
        """Raises EngramError with the first fault, if there is one."""
        if self.faults:
            more = f" ({len(self.faults) - 1} more)" if len(self.faults) > 1 else ""
            raise EngramError(f"{self.path} is refused: {self.faults[0]}{more}", hint="engram table verify lists every fault")
        return self


@dataclass(slots=True)
class Folder:
    """A checkpoint folder being examined: finds tensors and gathers what is wrong."""

    path: Path
    files: dict[str, SafetensorsFile | None] = field(default_factory=dict)  # None: unreadable, and reported
    faults: list[str] = field(default_factory=list)
    cuts: dict[str, list[Cut]] = field(default_factory=dict)
    weight_map: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.path / INDEX).is_file():
            self.weight_map = self._read_index()
        elif (self.path / SINGLE).is_file():
            self.weight_map = dict.fromkeys(read_header(self.path / SINGLE).tensors, SINGLE)
        else:
            raise EngramError(f"{self.path} holds neither {INDEX} nor {SINGLE}")

    def _read_index(self) -> dict[str, str]:
        weight_map = read_json(self.path / INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise EngramError(f"{self.path / INDEX} has no weight_map from tensors to files")
        if outside := [name for name in weight_map.values() if not is_file_name(name)]:
            raise EngramError(f"{self.path / INDEX} names a file outside the folder: {outside[0]!r}")
        return weight_map

    def expect(self, what: str, found: object, expected: object) -> bool:
        """Notes a fault when the two differ."""
        if found != expected:
            self.faults.append(f"{what}: found {found}, expected {expected}")
        return found == expected

    def file(self, name: str) -> SafetensorsFile | None:
        if name not in self.files:
            try:
                self.files[name] = read_header(self.path / name)
            except EngramError as e:
                self.faults.append(str(e))
                self.files[name] = None
        return self.files[name]

    def tensor(self, name: str) -> tuple[SafetensorsFile, Tensor] | None:
        """A tensor and its file; a fault is noted when the index lacks it or the file does."""
        if name not in self.weight_map:
            self.faults.append(f"{name} is missing from the index")
            return None
        file = self.file(self.weight_map[name])
        if file is None:
            return None
        if name not in file.tensors:
            self.faults.append(f"{file.path} does not hold {name}, which the index says it does")
            return None
        return file, file.tensors[name]

    def part(self, name: str, dtype: str, rows: int, width: int, cut: tuple[int, Plane, int]) -> FilePart | None:
        """The rows of a table's tensor; `cut` is its layer, plane and first row. Another dtype or shape is a fault."""
        found = self.tensor(name)
        if found is None:
            return None
        file, tensor = found
        fits = self.expect(f"dtype of {name}", tensor.dtype, dtype)
        if not (self.expect(f"shape of {name}", list(tensor.shape), [rows, width]) and fits):
            return None
        layer, plane, first_row = cut
        self.cuts.setdefault(file.path.name, []).append(Cut(name, layer, plane, first_row))
        return FilePart(file.path, tensor.begin, rows, (tensor.end - tensor.begin) // rows)

    def numbers(self, name: str, dtype: str, count: int) -> NDArray[np.int64] | None:
        """A small tensor of integers."""
        found = self.tensor(name)
        if found is None or not self.expect(f"dtype of {name}", found[1].dtype, dtype):
            return None
        if not self.expect(f"shape of {name}", list(found[1].shape), [count]):
            return None
        return np.frombuffer(found[0].read(name), "<i8").astype(np.int64)

    def small_files(self) -> tuple[Path, ...]:
        return tuple(path for name in ("config.json", INDEX) if (path := self.path / name).is_file())

    def table_files(self) -> dict[str, tuple[Cut, ...]]:
        return {name: tuple(cuts) for name, cuts in sorted(self.cuts.items())}


def read_json(path: Path) -> dict[str, Any]:
    """Raises EngramError when the file is missing or holds no JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise EngramError(f"no such file: {path}") from e
    except OSError as e:
        raise EngramError(f"{path} cannot be read: {e.strerror}") from e
    except (ValueError, RecursionError) as e:
        raise EngramError(f"{path} is not JSON: {e}") from e
    if not isinstance(content, dict):
        raise EngramError(f"{path} holds no JSON object")
    return content


@dataclass(frozen=True, slots=True)
class Config:
    """A family's keys in `config.json`, in `text_config` where that exists."""

    path: Path
    content: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "Config":
        content = read_json(folder / "config.json")
        return cls(folder / "config.json", content.get("text_config", content))

    def integer(self, *names: str, least: int = 0, most: int = INT64_MAX, default: int | None = None) -> int:
        """The first of these keys that is there. Raises EngramError when none is, or it is not a whole number in the range."""
        for name in names:
            if name in self.content:
                return self._checked(name, self.content[name], least, most)
        if default is None:
            raise EngramError(f"{self.path} lacks {names[0]}")
        return default

    def integers(self, name: str) -> tuple[int, ...]:
        if not isinstance(values := self.content.get(name), list):
            raise EngramError(f"{self.path} lacks the list {name}")
        return tuple(self._checked(name, value) for value in values)

    def _checked(self, name: str, value: object, least: int = 0, most: int = INT64_MAX) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise EngramError(f"{self.path}: {name} is {value!r}, expected a whole number")
        if not least <= value <= most:
            raise EngramError(f"{self.path}: {name} is {value}, expected {least} to {most}")
        return value

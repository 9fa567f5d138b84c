"""A checkpoint's folder while it is examined: finds configuration values and tensors, and collects what is wrong with them."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hashing.base.errors import EngramError
from hashing.base.json_object import INT64_MAX, JsonObject, brief, read_json
from table.checkpoints.published import TableFile
from table.checkpoints.safetensors_file import SafetensorsFile, Tensor, read_header
from table.store.origin import Cut, Plane, is_file_name
from table.store.parts import FilePart

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
MAX_CONFIG_BYTES = 16 << 20
MAX_INDEX_BYTES = 100_000_000  # the limit of a safetensors header, which names as many tensors


@dataclass(frozen=True, slots=True)
class Config:
    """The keys of a model's `config.json`: those of its `text_config` where there is one, else its own."""

    path: Path
    keys: JsonObject
    names: frozenset[str]  # of all keys, those beside a `text_config` too

    @classmethod
    def read(cls, folder: Path) -> "Config":
        content = read_json(folder / CONFIG, MAX_CONFIG_BYTES)
        keys = content.child("text_config").members if "text_config" in content.members else content.members
        return cls(folder / CONFIG, JsonObject(str(folder / CONFIG), keys), frozenset([*content.members, *keys]))

    def integer(self, name: str, least: int = 0, most: int = INT64_MAX, default: int | None = None) -> int:
        """A whole number in the range. Raises EngramError when it is another value, or is missing and has no default."""
        if default is not None and name not in self.keys.members:
            return default
        return self.keys.integer(name, least, most)

    def integers(self, name: str) -> tuple[int, ...]:
        return self.keys.integers(name)


@dataclass(slots=True)
class Folder:
    """Tensors by the names of the index, and the faults found so far."""

    path: Path
    files: dict[str, SafetensorsFile | None] = field(default_factory=dict)  # None: unreadable, and reported
    faults: list[str] = field(default_factory=list)
    cuts: dict[str, list[tuple[Tensor, Cut]]] = field(default_factory=dict)  # file name → tensors that hold tables
    weight_map: dict[str, str] = field(default_factory=dict)  # tensor → file name

    def __post_init__(self) -> None:
        if (self.path / INDEX).exists():
            self.weight_map = self._read_index()
        elif (self.path / SINGLE).exists():
            self.weight_map = dict.fromkeys(read_header(self.path / SINGLE).tensors, SINGLE)
        else:
            raise EngramError(f"{self.path} holds neither {INDEX} nor {SINGLE}")

    def _read_index(self) -> dict[str, str]:
        weight_map = read_json(self.path / INDEX, MAX_INDEX_BYTES).members.get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise EngramError(f"{self.path / INDEX} has no weight_map from tensors to files")
        if outside := [name for name in weight_map.values() if not is_file_name(name)]:
            raise EngramError(f"{self.path / INDEX} names a file outside the folder: {brief(outside[0])}")
        return weight_map

    def expect(self, what: str, found: object, expected: object) -> bool:
        """Notes a fault when the two differ."""
        if found != expected:
            shown = [value if isinstance(value, str) else brief(value) for value in (found, expected)]
            self.faults.append(f"{what}: found {shown[0]}, expected {shown[1]}")
        return found == expected

    def file(self, name: str) -> SafetensorsFile | None:
        """A file's header; a fault is noted when it cannot be read."""
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
        self.cut_out(file, tensor, Cut(name, layer, plane, first_row))
        return FilePart(file.path, tensor.begin, rows, (tensor.end - tensor.begin) // rows)

    def cut_out(self, file: SafetensorsFile, tensor: Tensor, cut: Cut) -> None:
        """Notes that a tensor's bytes are a table's."""
        self.cuts.setdefault(file.path.name, []).append((tensor, cut))

    def numbers(self, name: str, dtype: str, count: int) -> NDArray[np.int64] | None:
        """A small tensor of integers."""
        found = self.tensor(name)
        if found is None or not self.expect(f"dtype of {name}", found[1].dtype, dtype):
            return None
        if not self.expect(f"shape of {name}", list(found[1].shape), [count]):
            return None
        return np.frombuffer(found[0].read(name), "<i8").astype(np.int64)

    def check_held_once(self) -> None:
        """Notes a fault for a table's tensor that another file of the folder holds as well.

        Loaders differ in which they take: that of the index, that of `model.safetensors`, or that of the last file. So the same
        name twice is refused, whether or not the bytes are the same.
        """
        own = {cut.tensor: name for name, cuts in self.cuts.items() for _, cut in cuts}
        for path in sorted(self.path.glob("*.safetensors")):
            file = self.file(path.name)
            for name in own.keys() & (file.tensors.keys() if file else set()):
                if own[name] != path.name:
                    self.faults.append(f"{name} is in two files, {own[name]} and {path.name}: expected one")

    def small_files(self) -> tuple[Path, ...]:
        """What an export gives back besides the files with tables."""
        return tuple(path for name in (CONFIG, INDEX) if (path := self.path / name).is_file())

    def table_files(self) -> tuple[TableFile, ...]:
        return tuple(TableFile(self.path / name, tuple(cuts)) for name, cuts in sorted(self.cuts.items()))

"""How fast a model decodes while its rows come from tables of any size: in memory, through a cache, by page faults.

All ways decode the same texts of the validation side: each step is given the next token of the text, so that rows are asked for
as texts ask for them, and its likeliest token must be the same in all ways. They take turns step by step, since a machine that
others use is not the same a second later; in a round each has another text, so that none finds in the processor's caches what
another has just read. The cache begins full of the rows of training texts, as it is after some time of serving.
"""

import gc
import mmap
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from engram_cli.bench.resident import peak_growth
from hashing.base.errors import EngramError
from hashing.spec import HashSpec, assign_primes
from runtime.decoder import Decoded, Decoder
from runtime.device import default_device
from runtime.lookup import Addressing, Lookup
from runtime.placement.disk import DiskPlacement
from runtime.placement.placement import Placement, place
from runtime.run import Run
from runtime.serve.threads import choose_threads
from runtime.tokens import Tokens
from runtime.trained_run import TrainedRun
from table.encodings.encoding import ENCODINGS, Records
from table.store.gather import Table
from table.store.manifest import Manifest, cut_layers
from table.store.store import TableStore
from table.store.writer import StoreWriter

MADV_POPULATE_READ = 22  # Linux 5.14: every page is read and mapped
PROMPT_TOKENS = 64
FILLING_TOKENS = 1 << 10  # whose rows are asked for at a time, to fill a cache
MOST_FILLING = 1 << 21  # tokens
SCALE = 0.02  # of the random rows


@dataclass(frozen=True, slots=True)
class Turn:
    """One prompt continued with one placement."""

    text: int  # its number
    likeliest: Sequence[int]  # token after each that was given
    first_sec: float  # of the prompt, to the first token
    step_sec: Sequence[float]  # of the tokens after the first
    wait_sec: float  # spent waiting for the drive
    unique: int  # rows that were asked for, each once a step; 0 where nobody counts
    hit: int  # of those, in the cache
    resident_bytes: int  # of the tables, in the system's memory before the turn


@dataclass(frozen=True, slots=True)
class Bench:
    trained: TrainedRun
    addressing: Addressing
    store: TableStore
    memory: int  # for rows on disk, bytes
    tokens: int
    texts: NDArray[np.integer]  # (texts, PROMPT_TOKENS + tokens)
    filling: NDArray[np.integer]  # (tokens,)

    @classmethod
    def made(cls, run: Run, rows: int, memory: int, tokens: int, folder: Path) -> "Bench":
        """Writes random tables of about so many rows in all, for the run's own heads and orders, into `folder`.

        Raises EngramError for a run without memory, or with fewer tokens to validate on than a prompt.
        """
        trained = TrainedRun.load(run, default_device())
        if trained.store is None:
            raise EngramError(f"{run.folder} was trained without memory: it has no tables to place")
        spec = enlarged(trained.store.spec, rows)
        store = random_store(folder / "tables.zarr", spec, trained.store.head_dim)
        corpus, length = Tokens.open(run.train_folder / "tokens"), PROMPT_TOKENS + tokens
        text = corpus.ids("validation")
        if len(text) < length:
            raise EngramError(f"{run.folder} has {len(text)} tokens to validate on, expected {length} for a text")
        texts = np.asarray(text[: len(text) // length * length]).reshape(-1, length)
        return cls(trained, Addressing(trained.vocab, spec), store, memory, tokens, texts, corpus.ids("train")[:MOST_FILLING])

    @property
    def table_bytes(self) -> int:
        return self.store.total_bytes

    def turns(self, rounds: int, cold: bool) -> dict[str, list[Turn]]:
        """By way. Where they are to be cold, the files are taken out of the system's memory before each of those turns."""
        choose_threads(lambda: self._turn(place(self._tables(), "mapped", self.trained.model.device), 0, 1))
        found = self._warm(rounds)
        if cold:
            found |= self._cold(rounds)
        expected = {turn.text: turn.likeliest for turn in found["resident"]}
        same = all(turn.likeliest == expected[turn.text] for turns in found.values() for turn in turns)
        assert same, "the placements do not give the same tokens"
        return found

    def _warm(self, rounds: int) -> dict[str, list[Turn]]:
        resident, disk = self._tables(), self._disk()
        for table in resident.values():
            table.advise(MADV_POPULATE_READ)
        self._fill(disk)
        ways: dict[str, Placement] = {"resident": place(resident, "mapped", self.trained.model.device), "disk": disk}
        ways["no prefetch"] = self._by_faults()
        found: dict[str, list[Turn]] = {way: [] for way in ways}
        for number in range(-1, rounds):  # one to warm up
            texts = ((number + place) % rounds % len(self.texts) for place in range(len(ways)))
            turns = _together([self._begun(*both, self.tokens) for both in zip(ways.values(), texts, strict=True)])
            for way, turn in zip(ways, turns, strict=True):
                if number >= 0:
                    found[way].append(turn)
        return found

    def _cold(self, rounds: int) -> dict[str, list[Turn]]:
        found: dict[str, list[Turn]] = {"disk, cold": [], "no prefetch, cold": []}
        for number in range(rounds):
            for way, made in (("disk, cold", self._disk), ("no prefetch, cold", self._by_faults)):
                drop(self.store)
                found[way].append(self._turn(made(), number % len(self.texts), self.tokens))
        return found

    def cache_growth(self) -> int:
        """By how many bytes the process grows with a full cache for rows on disk, and a text decoded with it."""

        def job() -> None:
            disk = self._disk()
            self._fill(disk)
            self._turn(disk, 0, self.tokens)

        return peak_growth(job)

    def _tables(self) -> dict[int, Table]:
        return {layer: self.store.table(layer) for layer in self.store.spec.layers}

    def _disk(self) -> DiskPlacement:
        return DiskPlacement(self._tables(), self.trained.model.device, self.memory)

    def _by_faults(self) -> Placement:
        tables = self._tables()
        for table in tables.values():
            table.advise(mmap.MADV_RANDOM)
        return place(tables, "mapped", self.trained.model.device)

    def _fill(self, disk: DiskPlacement) -> None:
        for first in range(0, len(self.filling), FILLING_TOKENS):
            ids = np.asarray(self.filling[first : first + FILLING_TOKENS], np.int64)
            for layer, rows in self.addressing.addresses(ids[None]).rows.items():
                disk.caches[layer].finish(disk.caches[layer].begin(rows))

    def _turn(self, placement: Placement, number: int, tokens: int) -> Turn:
        return _together([self._begun(placement, number, tokens)])[0]

    def _begun(self, placement: Placement, number: int, tokens: int) -> "Going":
        resident = sum(table.resident_bytes() for table in self._tables().values())
        text = self.texts[number].tolist()
        pieces = [text[:PROMPT_TOKENS], *([token] for token in text[PROMPT_TOKENS : PROMPT_TOKENS + tokens - 1])]
        decoder = Decoder(self.trained.model, Lookup(self.addressing, placement))
        return Going(number, placement, decoder, pieces, resident, _counted(placement))


@dataclass(frozen=True, slots=True)
class Going:
    """A text that is decoded with one placement."""

    text: int
    placement: Placement
    decoder: Decoder
    pieces: Sequence[Sequence[int]]  # the prompt, then token by token
    resident_bytes: int
    before: tuple[float, int, int]  # what was counted
    sequence: Decoded = field(default_factory=Decoded)
    likeliest: list[int] = field(default_factory=list)
    sec: list[float] = field(default_factory=list)

    def step(self) -> None:
        began = perf_counter()
        logits = self.decoder.logits([(self.sequence, self.pieces[len(self.sec)])])[0]
        self.likeliest.append(int(logits.argmax()))
        self.sec.append(perf_counter() - began)

    def turn(self) -> Turn:
        wait, unique, hit = (after - own for after, own in zip(_counted(self.placement), self.before, strict=True))
        return Turn(self.text, self.likeliest, self.sec[0], self.sec[1:], wait, int(unique), int(hit), self.resident_bytes)


def _together(goings: Sequence[Going]) -> list[Turn]:
    """All of them to their end, a step of each in turn, each as often the first of them as the others."""
    for number in range(len(goings[0].pieces)):
        first = number % len(goings)
        for going in (*goings[first:], *goings[:first]):
            going.step()
    return [going.turn() for going in goings]


def _counted(placement: Placement) -> tuple[float, int, int]:
    """Of all layers: seconds waited, rows asked for, rows hit."""
    caches = placement.caches.values() if isinstance(placement, DiskPlacement) else ()
    found = [cache.counts() for cache in caches]
    return sum(each.wait_sec for each in found), sum(each.unique for each in found), sum(each.hit for each in found)


def enlarged(spec: HashSpec, rows: int) -> HashSpec:
    """The same heads and orders over tables of about so many rows in all."""
    each = rows // (len(spec.layers) * spec.columns)
    primes = assign_primes(len(spec.layers), len(spec.orders), spec.heads, each)
    return replace(spec, primes=primes)


def random_store(path: Path, spec: HashSpec, head_dim: int) -> TableStore:
    """Small random numbers, of which all blocks have the same."""
    encoding = ENCODINGS["float32"]
    block = (np.random.default_rng(0).standard_normal((1 << 18, head_dim), np.float32) * SCALE).view(np.uint8)

    def fill(_: int, records: Records) -> None:
        for first in range(0, len(records), len(block)):
            piece = records[first : first + len(block)]
            piece[:] = block[: len(piece)]

    manifest = Manifest(encoding, head_dim, spec, cut_layers(spec, encoding, head_dim))
    with StoreWriter(path, manifest, np.empty(0, np.int32)) as writer:
        for layer in spec.layers:
            writer.write_layer(layer, fill)
        writer.finish()
    return TableStore.open(path)


def drop(store: TableStore) -> None:
    """Takes a store's files out of the system's memory; pages that are mapped stay."""
    gc.collect()  # mappings that nobody uses
    for path in _files(store):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)  # what is not on the drive yet stays, too
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def _files(store: TableStore) -> Iterator[Path]:
    for layer in store.spec.layers:
        yield from (part.path for part in store.table(layer).files.parts if part)

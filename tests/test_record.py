"""Named values: reading changes no bit, a replacement changes what comes after it and nothing before, nothing stays hooked."""

from fnmatch import fnmatch
from typing import Any

import pytest
import torch
from torch import Tensor

from hashing.base.errors import EngramError, UsageError
from runtime.inspect.record import points, record
from runtime.model.points import Watched, watching
from runtime.run import Run
from runtime.trained_run import TrainedRun

TEXT = "def parse(self, name):"
MEMORY = ("rows", "e", "key", "value", "score", "gate", "conv", "out")


@pytest.fixture(scope="module")
def trained(trained_run: Run) -> TrainedRun:
    return TrainedRun.load(trained_run, torch.device("cpu"))


def ids_of(trained: TrainedRun, text: str = TEXT) -> Tensor:
    return torch.tensor([trained.tokenizer.encode(text).ids])


@torch.no_grad()
def logits_of(trained: TrainedRun, memory: bool = True) -> Tensor:
    ids, lookup = ids_of(trained), trained.lookup("device")
    assert lookup is not None
    return trained.model.logits(ids, lookup.vectors(ids.numpy()) if memory else None)


def unwatched(trained: TrainedRun) -> bool:
    return all(module.watch is None for module in trained.model.modules() if isinstance(module, Watched))


def test_the_points_are_listed_in_order_with_shapes(trained: TrainedRun) -> None:
    listed, hidden = points(trained), trained.config.model.hidden
    names = [f"blocks.{block}.{name}" for block in (0, 1) for name in ("in", "attention", "ffn", "out")]
    names[5:5] = [f"blocks.1.memory.{name}" for name in MEMORY]
    assert list(listed) == [*names, "logits"]
    assert listed["blocks.1.memory.rows"] == ("B", "T", 8)
    assert listed["blocks.1.memory.gate"] == ("B", "T", 1, 1)
    assert listed["blocks.0.ffn"] == ("B", "T", hidden)
    assert listed["logits"] == ("B", "T", trained.config.model.vocab_size)


def test_reading_everything_changes_no_bit(trained: TrainedRun) -> None:
    plain, shapes = logits_of(trained), points(trained)
    read = record(trained, TEXT, list(shapes))
    assert torch.equal(read["logits"], plain)
    assert torch.equal(logits_of(trained), plain)
    for name, value in read.items():
        assert tuple(value.shape) == (1, ids_of(trained).shape[1], *shapes[name][2:])
    assert read["blocks.1.memory.rows"].dtype == torch.int64
    assert list(read) == list(shapes)


def test_rows_are_the_lookups_and_e_their_vectors(trained: TrainedRun) -> None:
    lookup = trained.lookup("disk")
    assert lookup is not None
    read = record(trained, TEXT, ["blocks.1.memory.e", "blocks.1.memory.rows"])
    rows = lookup.addressing.addresses(ids_of(trained).numpy()).rows[1]
    assert torch.equal(read["blocks.1.memory.rows"], torch.from_numpy(rows))
    assert torch.equal(read["blocks.1.memory.e"].flatten(), torch.from_numpy(trained.tables[1].gather(rows)).flatten())


def test_a_run_by_its_folder_and_a_list_of_texts(trained_run: Run, trained: TrainedRun) -> None:
    names, texts = ["blocks.1.memory.gate", "logits"], [TEXT, "import os", TEXT]
    apart = [record(trained, text, names) for text in texts]
    for together in (record(trained_run, texts, names), record(trained, tuple(texts), names)):
        assert len(together) == 3
        for one, other in zip(apart, together, strict=True):
            assert all(torch.equal(one[name], other[name]) for name in names)


def changed(trained: TrainedRun, replace: dict[str, Any]) -> dict[str, bool]:
    """Whether each value is another one with the replacement."""
    names = list(points(trained))
    before, after = record(trained, TEXT, names), record(trained, TEXT, names, replace)
    return {name: not torch.equal(before[name], after[name]) for name in names}


@pytest.mark.parametrize("name", ["blocks.0.ffn", "blocks.1.memory.rows", "blocks.1.memory.score", "blocks.1.attention"])
def test_a_replacement_changes_what_follows_and_nothing_before(trained: TrainedRun, name: str) -> None:
    names = list(points(trained))
    found = changed(trained, {name: lambda value, _: value.flip(1) + (0 if value.dtype == torch.int64 else 1)})
    assert not any(found[other] for other in names[: names.index(name)])
    assert found[name]
    assert found["logits"]
    if name == "blocks.0.ffn":  # which rows are read does not depend on the hidden state
        assert not any(found[f"blocks.1.memory.{other}"] for other in ("rows", "e", "key", "value"))


def test_a_replacement_at_a_position_changes_no_earlier_one(trained: TrainedRun) -> None:
    def at_the_third(value: Tensor, name: str) -> Tensor:
        assert name == "blocks.0.ffn"
        value = value.clone()
        value[:, 3] = 1
        return value

    names = [name for name in points(trained) if name.startswith("blocks.1") or name == "logits"]
    before, after = record(trained, TEXT, names), record(trained, TEXT, names, {"blocks.0.ffn": at_the_third})
    assert all(torch.equal(before[name][:, :3], after[name][:, :3]) for name in names)
    assert not torch.equal(before["logits"][:, 3], after["logits"][:, 3])
    assert not torch.equal(before["logits"][:, 4], after["logits"][:, 4])


def test_a_closed_gate_is_the_memory_suppressed(trained: TrainedRun) -> None:
    gate = record(trained, TEXT, ["blocks.1.memory.gate"])["blocks.1.memory.gate"]
    read = record(trained, TEXT, ["logits", "blocks.1.memory.gate"], {"blocks.1.memory.gate": torch.zeros_like(gate)})
    assert torch.equal(read["logits"], logits_of(trained, memory=False))
    assert (read["blocks.1.memory.gate"] == 0).all()  # recorded as it was put in
    left = record(trained, TEXT, ["logits"], {"blocks.1.memory.gate": lambda _value, _name: None})
    assert torch.equal(left["logits"], logits_of(trained))


def test_other_rows_are_gathered(trained: TrainedRun) -> None:
    names = ["blocks.1.memory.rows", "blocks.1.memory.e"]
    first = record(trained, "import os", names)
    rows = first[names[0]][:, -1:].expand(1, ids_of(trained).shape[1], 8)
    read = record(trained, TEXT, names, {names[0]: rows})
    assert torch.equal(read[names[1]], first[names[1]][:, -1:].expand_as(read[names[1]]))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "shape": ({"blocks.1.ffn": torch.zeros(2)}, r"replacement of blocks\.1\.ffn has shape \(2,\), expected \(1, \d+, 64\)"),
    "no tensor": ({"blocks.1.ffn": lambda _value, _name: 3}, r"replacement of blocks\.1\.ffn is a int, expected a tensor"),
    "kind of numbers": ({"blocks.1.memory.rows": lambda rows, _: rows * 1.0}, r"blocks\.1\.memory\.rows is torch\.float32"),
    "row": ({"blocks.1.memory.rows": lambda rows, _: rows * 0 - 1}, r"blocks\.1\.memory\.rows has row -1, expected 0 to"),
    "name": ({"blocks.1.memory.gates": torch.zeros(1)}, r"the nearest is 'blocks\.1\.memory\.gate'"),
}


@pytest.mark.parametrize("lie", WRONG)
def test_what_is_wrong_names_the_point_and_nothing_stays(trained: TrainedRun, lie: str) -> None:
    replace, message = WRONG[lie]
    with pytest.raises(UsageError, match=message):
        record(trained, TEXT, ["logits"], replace)
    assert unwatched(trained)


def test_other_wrong_calls(trained: TrainedRun) -> None:
    with pytest.raises(UsageError, match=r"no point 'logit'; the nearest is 'logits'"):
        record(trained, TEXT, ["logit"])
    with pytest.raises(UsageError, match="the text is empty"):
        record(trained, [TEXT, ""], ["logits"])


def test_nothing_stays_hooked_after_an_exception(trained: TrainedRun) -> None:
    def broken(_value: Tensor, _name: str) -> Tensor:
        raise EngramError("mine")

    with pytest.raises(EngramError, match="mine"):
        record(trained, TEXT, [], {"blocks.1.out": broken})
    assert unwatched(trained)
    assert torch.equal(record(trained, TEXT, ["logits"])["logits"], logits_of(trained))


# The example of docs/inspect.md: hooks as TransformerLens has them, over the same points.


def run_with_hooks(trained: TrainedRun, text: str, hooks: Any) -> Tensor:
    """Logits (1, T, V) of a text; `hooks` are pairs of a name's pattern and fn(tensor, name), which gives None or a tensor."""
    ids = torch.tensor([trained.tokenizer.encode(text).ids])

    def watch(name: str, value: Tensor) -> Tensor:
        for pattern, hook in hooks:
            if fnmatch(name, pattern):
                changed = hook(value, name)
                value = value if changed is None else changed
        return value

    with torch.no_grad(), watching(trained.model, watch):  # nothing stays hooked, whatever is raised
        return trained.model.logits(ids, trained.lookup("disk").vectors(ids.numpy()))  # type: ignore[union-attr]


def test_hooks_as_transformerlens_has_them(trained: TrainedRun) -> None:
    kept: dict[str, Tensor] = {}
    keep = lambda value, name: kept.update({name: value})  # noqa: E731
    assert torch.equal(run_with_hooks(trained, TEXT, [("*", keep)]), logits_of(trained))
    read = record(trained, TEXT, list(kept))
    assert len(kept) == 15
    assert all(torch.equal(kept[name], read[name]) for name in kept)
    closed = run_with_hooks(trained, TEXT, [("*.gate", lambda gate, _: 0 * gate)])
    assert torch.equal(closed, logits_of(trained, memory=False))

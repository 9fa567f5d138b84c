"""The value lens as a table: what each of some vectors pushes up most, then down most, with the logits."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.inspect.lens import Lens


def print_lenses(title: str, lenses: "Mapping[str, Lens]") -> None:
    """A column for each lens, under its name."""
    from engram_cli.output import print_table

    pushes = {name: (*lens.up, *reversed(lens.down)) for name, lens in lenses.items()}
    lines = zip(*([f"{push.logit:+7.3f} {push.token!r}" for push in found] for found in pushes.values()), strict=True)
    ups = len(next(iter(lenses.values())).up)
    rows = ((f"{'up' if i < ups else 'down'}", *line) for i, line in enumerate(lines))
    print_table(title, ("", *lenses), rows, left=1 + len(lenses))

"""What `--spec` means where tables are made or planned: the spec, the width of a row, and the encoding it is published in."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashing.spec import HashSpec
    from hashing.vocab import CanonicalVocab


@dataclass(frozen=True, slots=True)
class TableShape:
    """All that a table's size follows from, but for the encoding that a command may choose instead."""

    spec: "HashSpec"
    head_dim: int  # numbers in a row
    encoding: str  # the name of the encoding that the rows are published in


def table_shape(name: str, vocab: "CanonicalVocab | None", head_dim: int) -> TableShape:
    """The shape of a named spec's tables, or of a spec's in JSON; `head_dim` 0 stands for the named spec's own width.

    Raises UsageError for an unknown name, and for a spec in JSON without a `head_dim`, which the file does not hold.
    """
    from hashing.base.errors import UsageError
    from hashing.named_specs import is_spec_file, named_spec

    if not is_spec_file(name):
        named = named_spec(name)
        return TableShape(spec_over(name, vocab), head_dim or named.head_dim, named.encoding)
    if not head_dim:
        raise UsageError("a spec in JSON does not say how wide a row is", hint="give --head-dim")
    return TableShape(spec_over(name, vocab), head_dim, "float32")


def spec_over(name: str, vocab: "CanonicalVocab | None") -> "HashSpec":
    """The spec in a JSON file as it stands; a named one over the vocabulary, or without one over the published ids."""
    from hashing.named_specs import is_spec_file, named_spec
    from hashing.spec import HashSpec

    if is_spec_file(name):
        return HashSpec.load(Path(name))
    return named_spec(name).spec(vocab) if vocab else named_spec(name).bare_spec()

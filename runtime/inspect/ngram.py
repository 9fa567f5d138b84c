"""What a phrase reads: the n-grams that end it, their rows in every layer, who else reads those, and how often.

A phrase is addressed by the reference rule and its rows are read from the mapping: for one position that is sooner done than
compiled code is loaded. Who shares a row is found by hashing the counted n-grams again, one pass for the whole phrase. What a
model says of the vectors (lens and gates) is added by `ngram_model.py`; nothing here loads torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from hashing import reference
from hashing.base.errors import UsageError
from hashing.ngrams.sharers import Known, Readers
from runtime.inspect.sample import finite, norms_of
from runtime.inspect.subject import Subject
from runtime.inspect.training_side import Inside, Longer

if TYPE_CHECKING:
    from runtime.inspect.lens import Lens
    from runtime.inspect.occurrences import GateQuartiles

HEAVIEST = 5  # sharers named per head


@dataclass(frozen=True, slots=True)
class Sharers:
    """The other known n-grams that read a row: their number, and the most frequent of them."""

    others: int
    heaviest: tuple[dict[str, Any], ...]  # HEAVIEST at most; as JSON has them
    own_count: int  # times the n-gram itself is in the corpus
    other_count: int  # times all the others are, together
    largest_count: int  # times the most frequent other is; 0 where there is none

    @classmethod
    def of(cls, subject: Subject, ngram: Sequence[int], readers: Sequence[Known]) -> "Sharers":
        """From all known n-grams that read the row, the n-gram itself among them if the corpus has it."""
        others = [known for known in readers if known.ids != tuple(ngram)]
        total, other_count = sum(known.count for known in readers), sum(known.count for known in others)
        named = tuple(subject.named(known) for known in others[:HEAVIEST])
        largest = others[0].count if others else 0
        return cls(len(others), named, total - other_count, other_count, largest)

    @property
    def share_percent(self) -> float | None:
        """How much of the row's reads in the corpus are this n-gram's; None for a row that the corpus never reads."""
        total = self.own_count + self.other_count
        return 100 * self.own_count / total if total else None


@dataclass(frozen=True, slots=True)
class Head:
    """The row of one head that an n-gram reads."""

    row: int  # in the layer's table
    norm: float
    reads: int | None  # training steps that read it; None where no training kept that
    sharers: Sharers | None  # None without counts


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far an order's heads stand for one n-gram.

    Each head has a table and columns of the projection of its own, so a cosine of their vectors would compare nothing. What
    they can agree on is whose row it is: the n-gram that most of a row's reads come from is the one that training mostly shaped
    it for. Where that is this n-gram the head has learnt it; elsewhere it has learnt what collides with it.
    """

    heads: int
    heaviest_in: int  # heads of whose row no other n-gram of the corpus is a more frequent reader
    alone_in: int  # heads of whose row no other n-gram of the corpus is a reader
    mean_share_percent: float  # of the row's reads in the corpus, those that are this n-gram's; mean over heads
    least_share_percent: float  # the same of the head where it is least

    @classmethod
    def of(cls, heads: Sequence[Sharers]) -> "Agreement | None":
        """None for an n-gram that the corpus does not have: no row is its own."""
        if not heads[0].own_count:
            return None
        shares = [head.share_percent or 0.0 for head in heads]
        return cls(
            len(heads),
            sum(head.own_count >= head.largest_count for head in heads),
            sum(head.others == 0 for head in heads),
            sum(shares) / len(shares),
            min(shares),
        )


@dataclass(frozen=True, slots=True)
class OrderView:
    """The n-gram of one order in one layer."""

    ids: tuple[int, ...]  # canonical, in reading order; the pad where look-back is blocked
    ngram: tuple[str, ...]  # what they stand for
    corpus_count: int | None  # times in the counted corpus; None without counts
    training_count: int | None  # times in the training side of the run's corpus; None without its text
    heads: tuple[Head, ...]
    agreement: Agreement | None
    lens: "Lens | None" = None  # None where no model was asked
    gates: "GateQuartiles | None" = None  # over its occurrences in the training side; None where that has none

    @property
    def rows(self) -> list[int]:
        """Of the layer's table, one per head."""
        return [head.row for head in self.heads]

    def to_json(self) -> dict[str, Any]:
        sharers = [head.sharers for head in self.heads if head.sharers]
        reads = [head.reads for head in self.heads if head.reads is not None]
        return {
            "ngram": list(self.ngram),
            "corpus_count": self.corpus_count,
            "training_count": self.training_count,
            "rows": self.rows,
            "row_norms": [finite(head.norm) for head in self.heads],
            "row_reads": reads or None,
            "sharers": [list(found.heaviest) for found in sharers] or None,
            "sharer_counts": [found.others for found in sharers] or None,
            "share_percent": [found.share_percent for found in sharers] or None,
            "agreement": asdict(self.agreement) if self.agreement else None,
            "lens": self.lens.to_json() if self.lens else None,
            "gate_quartiles": self.gates.to_json() if self.gates else None,
        }


@dataclass(frozen=True, slots=True)
class LayerView:
    """What a position reads from a layer."""

    orders: Mapping[int, OrderView]
    lens: "Lens | None" = None  # of all orders' vectors together

    def to_json(self) -> dict[str, Any]:
        orders = {order: view.to_json() for order, view in self.orders.items()}
        return {"orders": orders, "lens": self.lens.to_json() if self.lens else None}


@dataclass(frozen=True, slots=True)
class NgramView:
    """The n-grams that end at a text's last token, one per order; look-back before the text reads the pad.

    `positions` has the same of every token, each as if the text ended there, where that was asked for.
    """

    tokens: tuple[str, ...]  # the tokenizer's names
    texts: tuple[str, ...]
    keys: tuple[str, ...]  # of the canonical ids
    token_ids: tuple[int, ...]
    canonical_ids: tuple[int, ...]
    layers: Mapping[int, LayerView]
    written_otherwise: Longer | None = None
    after_a_space: Inside | None = None
    positions: tuple["NgramView", ...] = ()

    def to_json(self) -> dict[str, Any]:
        content = {
            "tokens": list(self.tokens),
            "token_ids": list(self.token_ids),
            "canonical_ids": list(self.canonical_ids),
            "written_otherwise": asdict(self.written_otherwise) if self.written_otherwise else None,
            "after_a_space": asdict(self.after_a_space) if self.after_a_space else None,
            "layers": {layer: view.to_json() for layer, view in self.layers.items()},
        }
        return content | ({"positions": [view.to_json() for view in self.positions]} if self.positions else {})


def view_ngram(subject: Subject, text: str, every_token: bool = False) -> NgramView:
    """Raises UsageError for a text without tokens, and for a store whose tokenizer is not known."""
    words = subject.addressed
    encoding = words.tokenizer.encode(text, add_special_tokens=False)
    if not encoding.ids:
        raise UsageError("the text is empty; an n-gram needs at least one token", hint="name a phrase")
    vocab = words.vocab
    canonical = [vocab.canonical_of(i) for i in encoding.ids]
    ends = range(1 if every_token else len(canonical), len(canonical) + 1)
    addresses = [_Address.of(subject, canonical[:end]) for end in ends]
    asked = {layer: [row for a in addresses for row in a.rows[layer]] for layer in subject.spec.layers}
    readers = subject.readers(asked)
    whole = NgramView(
        tokens=tuple(encoding.tokens),
        texts=tuple(vocab.texts[i] for i in encoding.ids),
        keys=tuple(vocab.keys[i] for i in canonical),
        token_ids=tuple(encoding.ids),
        canonical_ids=tuple(canonical),
        layers={},
    )
    views = [_cut(whole, end, a.layers(subject, readers)) for end, a in zip(ends, addresses, strict=True)]
    return replace(_with_notes(subject, text, views[-1]), positions=tuple(views) if every_token else ())


def _cut(view: NgramView, end: int, layers: Mapping[int, LayerView]) -> NgramView:
    """The view of the first tokens."""
    names = ("tokens", "texts", "keys", "token_ids", "canonical_ids")
    return replace(view, layers=layers, **{name: getattr(view, name)[:end] for name in names})


@dataclass(frozen=True, slots=True)
class _Address:
    """What the last of some canonical ids reads."""

    ngrams: Mapping[int, tuple[int, ...]]  # by order, as the spec reads them
    rows: Mapping[int, list[int]]  # by layer, one per column

    @classmethod
    def of(cls, subject: Subject, canonical: Sequence[int]) -> "_Address":
        spec = subject.spec
        seen = list(canonical)[-spec.max_order :]
        slots = reference.slots(spec, seen, len(seen) - 1)
        ngrams = {order: tuple(slots[order - 1 :: -1]) for order in spec.orders}
        return cls(ngrams, {layer: reference.rows(spec, layer, seen)[-1] for layer in spec.layers})

    def layers(self, subject: Subject, readers: Readers | None) -> dict[int, LayerView]:
        training = subject.training
        counts = {order: len(training.following(list(ids))) if training else None for order, ids in self.ngrams.items()}
        return {
            layer: LayerView({order: self._order(subject, layer, order, readers, counts[order]) for order in self.ngrams})
            for layer in self.rows
        }

    def _order(
        self, subject: Subject, layer: int, order: int, readers: Readers | None, training_count: int | None
    ) -> OrderView:
        ids, first = self.ngrams[order], (order - 2) * subject.spec.heads
        rows = self.rows[layer][first : first + subject.spec.heads]
        norms = norms_of(subject.vectors(layer, rows)).tolist()
        unknown: list[None] = [None] * len(rows)
        reads = subject.reads.of_rows(layer, rows) if subject.reads else unknown
        sharers = [Sharers.of(subject, ids, readers[layer][row]) for row in rows] if readers else []
        return OrderView(
            ids=ids,
            ngram=tuple(subject.keys(ids)),
            corpus_count=sharers[0].own_count if sharers else None,
            training_count=training_count,
            heads=tuple(map(Head, rows, norms, reads, sharers or unknown)),
            agreement=Agreement.of(sharers) if sharers else None,
        )


def _with_notes(subject: Subject, text: str, view: NgramView) -> NgramView:
    """With what running text has instead of the phrase, where that is more frequent."""
    side, canonical, longest = subject.training, list(view.canonical_ids), subject.spec.max_order
    if side is None:
        return view
    before = canonical[-min(longest, len(canonical)) : -1]
    own = next(iter(view.layers.values())).orders[len(before) + 1].training_count if before else None
    longer = side.longer(before, view.token_ids[-1], own) if own is not None else None
    return replace(
        view,
        written_otherwise=longer,
        after_a_space=side.inside(subject.addressed.tokenizer, text, canonical, longest),
    )

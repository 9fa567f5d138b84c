"""The report of `engram stats`, as tables and as JSON."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hashing.ngrams.collisions import Compared, HeadCollisions
    from hashing.ngrams.report import CollisionReport
    from hashing.vocab import CanonicalVocab


def _compared(value: "Compared", scale: float) -> dict[str, float | None]:
    z = value.z
    return {"found": value.found * scale, "expected": value.expected * scale, "z": None if z != z else z}


def as_json(report: "CollisionReport") -> dict[str, Any]:
    return {
        "totals": asdict(report.totals),
        "spec_fingerprint": report.spec_fingerprint,
        "top": {order: [asdict(ngram) for ngram in top] for order, top in report.top.items()},
        "heads": [_plain_head(head, report.totals.tokens) for head in report.heads],
        "joint": [{**asdict(joint), "shared_in_all": _compared(joint.shared_in_all, 1)} for joint in report.joint],
        "curve": [asdict(point) for point in report.curve],
    }


def _plain_head(head: "HeadCollisions", tokens: int) -> dict[str, Any]:
    return {
        "layer": head.layer,
        "order": head.order,
        "head": head.head,
        "rows": head.rows,
        "distinct_ngrams": head.distinct,
        "occupied_percent": _compared(head.occupied, 100 / head.rows),
        "shared_percent": _compared(head.shared, 100 / head.distinct),
        "shared_traffic_percent": _compared(head.shared_traffic, 100 / tokens),
        "heaviest": [asdict(row) for row in head.heaviest],
    }


def print_report(report: "CollisionReport", raw: "CollisionReport | None", vocab: "CanonicalVocab") -> None:
    from engram_cli.output import print_table

    print_table(
        "Most frequent n-grams",
        ("n", "n-gram", "count", "documents"),
        ((n, _text(vocab, g.ids), g.count, g.documents) for n, top in report.top.items() for g in top),
        left=2,
    )
    _print_heads("Rows and collisions, mean over an order's heads; z is against a uniform hash", report)
    _print_joint(report)
    print_table(
        "Heaviest rows",
        ("layer", "n", "head", "row", "in the head", "traffic %", "n-grams in it", "most frequent"),
        _heaviest(report, vocab),
        left=3,
    )
    if report.curve:
        _print_curve(report)
    if raw:
        _print_heads("The same tables addressed by raw token ids", raw)


def _text(vocab: "CanonicalVocab", ids: Any) -> str:
    return "".join("⟨start⟩" if i < 0 else vocab.keys[i] for i in ids).__repr__()


def _print_heads(title: str, report: "CollisionReport") -> None:
    from itertools import groupby

    from engram_cli.output import print_table

    def rows() -> Iterator[tuple[object, ...]]:
        for (layer, order), group in groupby(report.heads, key=lambda head: (head.layer, head.order)):
            heads = list(group)

            def mean(values: Iterator[float], count: int = len(heads)) -> float:
                return sum(values) / count

            yield (
                layer,
                order,
                heads[0].distinct,
                heads[0].rows,
                mean(100 * h.occupied.found / h.rows for h in heads),
                mean(100 * h.occupied.expected / h.rows for h in heads),
                mean(100 * h.shared.found / h.distinct for h in heads),
                mean(100 * h.shared.expected / h.distinct for h in heads),
                mean(100 * h.shared_traffic.found / report.totals.tokens for h in heads),
                max((h.shared.z for h in heads), key=abs),
            )

    columns = ("layer", "n", "distinct", "rows", "full %", "expected", "sharing %", "expected", "traffic %", "worst z")
    print_table(title, columns, rows(), left=2)


def _print_joint(report: "CollisionReport") -> None:
    from engram_cli.output import print_table

    heads = max(len(joint.alone_in) for joint in report.joint)
    rows = (
        (
            joint.layer,
            joint.order,
            *(100 * count / joint.distinct for count in joint.alone_in),
            joint.correlation_largest,
            joint.correlation_noise,
        )
        for joint in report.joint
    )
    columns = ("layer", "n", *(f"in {k}" for k in range(heads)), "correlation", "noise")
    print_table("N-grams (%) by the number of heads in which they are alone", columns, rows, left=2)


def _heaviest(report: "CollisionReport", vocab: "CanonicalVocab") -> Iterator[tuple[object, ...]]:
    for head in report.heads:
        if head.head == 0:
            for row in head.heaviest[:2]:
                text = _text(vocab, row.ngram)
                yield head.layer, head.order, head.head, row.row, row.head_row, row.traffic_percent, row.distinct, text


def _print_curve(report: "CollisionReport") -> None:
    from engram_cli.output import print_table

    columns = ("rows/head", "layer", "n", "full %", "sharing %", "expected", "traffic %", "alone nowhere %")
    rows = (
        (
            p.base,
            p.layer,
            p.order,
            p.occupied_percent,
            p.shared_percent,
            p.shared_expected_percent,
            p.shared_traffic_percent,
            p.shared_in_all_percent,
        )
        for p in report.curve
    )
    print_table("By table size", columns, rows, left=3)

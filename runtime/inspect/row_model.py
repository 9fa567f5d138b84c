"""What a run's model says of a row: what its vector pushes up and down, and the contexts in which the training side reads it.

Loads torch; `row.py` has what can be said without. A run whose training text is gone has a lens and no contexts.
"""

from collections.abc import Sequence
from dataclasses import replace

from runtime.inspect.lens import ValueLens
from runtime.inspect.occurrences import ROW_SAMPLED, row_contexts
from runtime.inspect.row import RowView
from runtime.tokens import Tokens
from runtime.trained_run import TrainedRun


def with_model(views: Sequence[RowView], trained: TrainedRun, tokens: Tokens | None, most: int = ROW_SAMPLED) -> list[RowView]:
    """Each view with the lens of its row alone, and its contexts among up to `most` occurrences.

    The training side is gone through once for all of them.
    """
    contexts = row_contexts(trained, tokens, [(view.layer, view.row) for view in views], most) if tokens else {}
    lens = ValueLens(trained)
    return [
        replace(view, lens=lens.of_rows(view.layer, [view.row]), contexts=contexts.get((view.layer, view.row)))
        for view in views
    ]

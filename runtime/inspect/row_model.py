"""What a run's model says of a row: what its vector pushes up and down, and the contexts in which the training side reads it.

Loads torch; `row.py` has what can be said without. A run whose training text is gone has a lens and no contexts.
"""

from dataclasses import replace

from runtime.inspect.lens import ValueLens
from runtime.inspect.occurrences import row_contexts
from runtime.inspect.row import RowView
from runtime.tokens import Tokens
from runtime.trained_run import TrainedRun


def with_model(view: RowView, trained: TrainedRun, tokens: Tokens | None) -> RowView:
    """The view with the lens of the row alone, and its contexts."""
    place = view.layer, view.row
    contexts = row_contexts(trained, tokens, [place])[place] if tokens else None
    return replace(view, lens=ValueLens(trained).of_rows(view.layer, [view.row]), contexts=contexts)

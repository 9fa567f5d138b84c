"""What a run's model says of a phrase's n-grams: what their vectors push up and down, and how far the gate opens on them.

Loads torch; `ngram.py` has what can be said without. A run whose training text is gone has lenses and no gates.
"""

from dataclasses import replace

from runtime.inspect.lens import ValueLens
from runtime.inspect.ngram import LayerView, NgramView
from runtime.inspect.occurrences import NGRAM_SAMPLED, GateQuartiles, gates_of_ngrams
from runtime.tokens import Tokens
from runtime.trained_run import TrainedRun

Gates = dict[tuple[int, ...], dict[int, GateQuartiles]]  # n-gram → layer → the gate at its occurrences


def with_model(view: NgramView, trained: TrainedRun, tokens: Tokens | None, most: int = NGRAM_SAMPLED) -> NgramView:
    """The view with lenses of every order and of the whole memory, and the gates over up to `most` occurrences of each n-gram
    in the training side.
    """
    views = view.positions or (view,)
    ngrams = {order.ids for one in views for layer in one.layers.values() for order in layer.orders.values()}
    gates = gates_of_ngrams(trained, tokens, sorted(ngrams), most) if tokens else {}
    lens = ValueLens(trained)
    told = tuple(_told(one, lens, gates) for one in views)
    return replace(view, layers=told[-1].layers, positions=told if view.positions else ())


def _told(view: NgramView, lens: ValueLens, gates: Gates) -> NgramView:
    return replace(view, layers={layer: _layer(layer, found, lens, gates) for layer, found in view.layers.items()})


def _layer(number: int, layer: LayerView, lens: ValueLens, gates: Gates) -> LayerView:
    orders = {
        order: replace(view, lens=lens.of_rows(number, view.rows), gates=gates.get(view.ids, {}).get(number))
        for order, view in layer.orders.items()
    }
    return replace(layer, orders=orders, lens=lens.of_rows(number, [row for view in orders.values() for row in view.rows]))

"""Similarity of the blocks of two models: CKA with a linear kernel, and the soft alignment that follows from it.

Both models read the same tokens, and their states are compared at the same positions, those where a word ends. With the Gram
matrices K and L of n states, their diagonals zeroed, the unbiased HSIC (Song et al. 2012) is

    HSIC(K, L) = [tr(K L) + 1ᵀK1 · 1ᵀL1 / ((n−1)(n−2)) − 2/(n−2) · 1ᵀK L 1] / (n (n−3))

and CKA = Σ HSIC(K, L) / sqrt(Σ HSIC(K, K) · Σ HSIC(L, L)), the sums being over mini-batches, before the ratio (Nguyen et al.
2020). It is 1 for states that are a rotation and a scale of each other, about 0 for unrelated ones, and can fall a bit below.
Positions are put in an order that was drawn before they are cut into batches, so that a batch is not of one document.

Soft alignment, a_j = Σ_i S_ij · i / Σ_i S_ij over the five most similar blocks i, says where block j of the first model lies
among the blocks of the second (paper, section 6.1). That of a model with itself is not j: near either end the five lie on one
side. So the curve is given less its *null*, the same curve for two models that differ in nothing that is asked about.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashing.base.errors import EngramError
from hashing.vocab import CanonicalVocab
from runtime.inspect.probes.block_states import block_states
from runtime.inspect.probes.token_classes import INSIDE, NUMBER, START, TokenClasses
from runtime.inspect.threads import few_threads
from runtime.lookup import Lookup
from runtime.model.language_model import LanguageModel
from runtime.trained_run import TrainedRun
from runtime.windows import CONTEXT, Block, Side, Texts

MOST_SIMILAR = 5
MOST_POSITIONS = 1 << 12
BATCH = 256  # positions
LEAST = 4  # positions of a batch: with fewer, the unbiased HSIC is not defined
SEED = 0


@dataclass(frozen=True, slots=True)
class Reader:
    """A model with its memory, or without one."""

    model: LanguageModel
    lookup: Lookup | None  # None: the memory is suppressed, or the model has none

    def states(self, block: Block, chosen: NDArray[np.bool_]) -> Tensor:
        """(blocks, P, D) What each block puts out at the chosen positions (B, T)."""
        vectors = self.lookup.vectors(block.inputs) if self.lookup else None
        _, *found = block_states(self.model, torch.from_numpy(block.inputs).to(self.model.device), vectors)
        where = torch.from_numpy(chosen).to(self.model.device)
        return torch.stack([state[where] for state in found]).cpu()


@dataclass(frozen=True, slots=True)
class Comparison:
    """Of the blocks of two models; all are counted from 0."""

    matrix: NDArray[np.float64]  # (blocks of the second, blocks of the first) CKA
    alignment: NDArray[np.float64]  # (blocks of the first,) each one's place among the blocks of the second


@dataclass(frozen=True, slots=True)
class SimilarityView:
    positions: int  # compared: whole batches of them
    batch: int
    found: Comparison
    null: Comparison | None  # None where there is none of as many blocks as the first model's

    @property
    def less_null(self) -> NDArray[np.float64] | None:
        return None if self.null is None else self.found.alignment - self.null.alignment

    def to_json(self) -> dict[str, Any]:
        """`cka[i][j]` is of block i of the second model and block j of the first."""
        less = self.less_null
        return {
            "positions": self.positions,
            "positions_are": "ends of words and numbers",
            "batch": self.batch,
            "cka": self.found.matrix.tolist(),
            "alignment": self.found.alignment.tolist(),
            "null_alignment": None if self.null is None else self.null.alignment.tolist(),
            "alignment_less_null": None if less is None else less.tolist(),
        }


def check_same_tokens(first: CanonicalVocab, second: CanonicalVocab) -> None:
    """Raises EngramError for two vocabularies of which one token id does not mean the same."""
    if (first.fingerprint, first.tokens) != (second.fingerprint, second.tokens):
        raise EngramError(
            f"the two runs read text differently: vocabularies {first.fingerprint} of {len(first.tokens):,} tokens "
            f"and {second.fingerprint} of {len(second.tokens):,}",
            hint="compare runs that were built on one tokenizer: engram build-vocab TOKENIZER --run DIR takes another run's",
        )


def reader(trained: TrainedRun, memory: bool = True) -> Reader:
    return Reader(trained.model, trained.lookup("mapped") if memory else None)


def probe_similarity(
    first: Reader,
    second: Reader,
    null: Reader | None,
    windows: Side | Texts,
    vocab: CanonicalVocab,
    advance: Callable[[int], None] = lambda _: None,
) -> SimilarityView:
    """The first model's blocks among the second's; `null` is another seed of the second, with none it is the second itself.

    `advance` hears of every block of windows. Raises EngramError for a text with too few words, and for a null of another depth
    than the first model's.
    """
    depth = len(first.model.blocks)
    if null is not None and len(null.model.blocks) != depth:
        raise EngramError(
            f"the null has {len(null.model.blocks)} blocks, expected {depth} as in the run that is compared",
            hint="name another seed of a model of that depth, or leave --null out",
        )
    as_null = null or (second if len(second.model.blocks) == depth else None)
    with few_threads(first.model):
        states = _states([first, second, *([null] if null else [])], windows, vocab, advance)
        of_first, of_second, of_null = states[0], states[1], states[2] if null else states[1]
        batch = min(BATCH, of_first.shape[1])
        found = _comparison(of_first, of_second, batch)
        of_its_null = _comparison(of_null, of_second, batch) if as_null else None
    return SimilarityView(of_first.shape[1] // batch * batch, batch, found, of_its_null)


def _comparison(first: Tensor, second: Tensor, batch: int) -> Comparison:
    matrix = cka(second, first, batch)
    return Comparison(matrix, alignment(matrix))


def _states(
    readers: Sequence[Reader], windows: Side | Texts, vocab: CanonicalVocab, advance: Callable[[int], None]
) -> list[Tensor]:
    """(blocks, P, D) of each reader at the same positions, in an order that was drawn."""
    classes = TokenClasses.of_vocab(vocab)
    pieces: list[list[Tensor]] = [[] for _ in readers]
    for block in windows:
        chosen = word_ends(block, classes)
        for reader, states in zip(readers, pieces, strict=True):
            states.append(reader.states(block, chosen))
        advance(1)
    found = [torch.cat(states, 1) for states in pieces]
    positions = found[0].shape[1]
    if positions < LEAST:
        raise EngramError(f"the text has {positions} ends of words, expected at least {LEAST}", hint="name a longer text")
    order = torch.from_numpy(np.random.default_rng(SEED).permutation(positions)[:MOST_POSITIONS])
    return [states[:, order] for states in found]


def word_ends(block: Block, classes: TokenClasses) -> NDArray[np.bool_]:
    """(B, T) Whether a judged position holds the last token of a word or number."""
    found = classes.of(np.concatenate([block.inputs, block.targets[:, -1:]], 1))
    in_word = np.isin(found[:, :-1], (START, INSIDE, NUMBER))
    ends: NDArray[np.bool_] = in_word & (found[:, 1:] != INSIDE) & (block.documents != CONTEXT)
    return ends


def cka(first: Tensor, second: Tensor, batch: int = BATCH) -> NDArray[np.float64]:
    """(A, B) of states (A, P, D) and (B, P, D'), in mini-batches; positions that fill no batch are left out."""
    cross = torch.zeros(len(first), len(second), dtype=torch.float64)
    own, other = cross.new_zeros(len(first)), cross.new_zeros(len(second))
    for a, b in zip(_grams(first, batch), _grams(second, batch), strict=True):
        cross += hsic(a, b)
        own += hsic(a, a).diagonal()
        other += hsic(b, b).diagonal()
    return (cross / (own[:, None] * other).sqrt()).numpy()


def _grams(states: Tensor, batch: int) -> Iterator[Tensor]:
    """(blocks, n, n) Gram matrices of each whole batch, in float64, their diagonals zeroed."""
    for piece in states[:, : states.shape[1] // batch * batch].split(batch, 1):  # type: ignore[no-untyped-call]
        wide = piece.double()
        gram = wide @ wide.transpose(1, 2)
        gram.diagonal(dim1=1, dim2=2).zero_()
        yield gram


def hsic(first: Tensor, second: Tensor) -> Tensor:
    """(A, B) The unbiased HSIC of each two of symmetric matrices (A, n, n) and (B, n, n) whose diagonals are zero."""
    n = first.shape[-1]
    sums, other = first.sum(-1), second.sum(-1)  # K1 (A, n) and L1 (B, n)
    trace = first.flatten(1) @ second.flatten(1).T
    means = sums.sum(-1)[:, None] * other.sum(-1) / ((n - 1) * (n - 2))
    return (trace + means - 2 / (n - 2) * (sums @ other.T)) / (n * (n - 3))


def alignment(similarity: NDArray[np.float64]) -> NDArray[np.float64]:
    """(J,) The soft alignment of each column of similarities (I, J), where one below 0 weighs nothing."""
    weights = np.maximum(similarity, 0)
    order = np.argsort(-weights, axis=0)[:MOST_SIMILAR]
    nearest = np.take_along_axis(weights, order, 0)
    centre: NDArray[np.float64] = (nearest * order).sum(0) / nearest.sum(0)
    return centre

"""What a sequence gives does not depend on who is computed with it, nor on how it is cut into pieces: to the bit."""

import numpy as np
import pytest
import torch
from torch import Tensor

from runtime.decoder import Decoded, Decoder
from runtime.lookup import Lookup
from runtime.model.language_model import LanguageModel
from runtime.model.pages import PAGE
from runtime.run import Run
from tests.untrained import untrained

FORMS = {
    "plain": [],
    "no memory": ["memory=none"],
    "no convolution": ["memory.conv=false"],
    "always open": ["memory.gate=none"],
    "grouped": ["model.heads=4", "model.kv_heads=2", "model.qk_norm=true"],
    "streams": ["model.streams=2"],
    "single pass": ["model.streams=3", "model.stream_form=single_pass"],
    "experts": ["model.experts=4", "model.dense_blocks=0"],
}


@pytest.fixture(scope="module", params=FORMS)
def decoding(request: pytest.FixtureRequest, vocab_run: Run) -> tuple[LanguageModel, Lookup | None]:
    return untrained(vocab_run, *FORMS[request.param])


def drawn(seed: int, lengths: list[int]) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(0, 512, length).tolist() for length in lengths]


def alone(model: LanguageModel, lookup: Lookup | None, ids: list[int]) -> Tensor:
    """(tokens, vocabulary) Logits of a sequence by itself, token by token."""
    decoder, sequence = Decoder(model, lookup), Decoded()
    return torch.cat([decoder.logits([(sequence, [token])]) for token in ids])


@pytest.mark.parametrize("seed", range(3))
def test_any_company_and_any_pieces(decoding: tuple[LanguageModel, Lookup | None], seed: int) -> None:
    texts, random = drawn(seed, [3, 40, 71, 12, 1, 33, 64, 9, 20]), np.random.default_rng(seed)
    expected = [alone(*decoding, ids) for ids in texts]
    decoder = Decoder(*decoding)
    sequences, found = [Decoded() for _ in texts], [list[Tensor]() for _ in texts]
    while unfinished := [number for number, ids in enumerate(texts) if sequences[number].length < len(ids)]:
        chosen = random.permutation(unfinished)[: random.integers(1, 6)].tolist()
        pieces = []
        for number in chosen:
            begin = sequences[number].length
            end = begin + int(random.choice([1, 1, 1, 5, 37]))
            pieces.append((sequences[number], texts[number][begin:end]))
        hidden = decoder.head(decoder.hidden(pieces)).split([len(ids) for _, ids in pieces])
        for number, logits in zip(chosen, hidden, strict=True):
            found[number].append(logits)
    for logits, one in zip(found, expected, strict=True):
        assert torch.equal(torch.cat(logits), one)


def test_sequences_that_go_on_together_token_by_token(decoding: tuple[LanguageModel, Lookup | None]) -> None:
    model, lookup = decoding
    begun = [PAGE - 3, PAGE - 1, 2 * PAGE, 5]
    texts = drawn(6, [length + PAGE + 4 for length in begun])
    decoder, sequences, found = Decoder(model, lookup), [Decoded() for _ in texts], [list[Tensor]() for _ in texts]
    decoder.hidden([(each, ids[:length]) for each, ids, length in zip(sequences, texts, begun, strict=True)])
    for _ in range(PAGE + 4):
        logits = decoder.logits([(each, ids[each.length :][:1]) for each, ids in zip(sequences, texts, strict=True)])
        for line, own in zip(found, logits, strict=True):
            line.append(own)
    for ids, length, logits in zip(texts, begun, found, strict=True):
        assert torch.equal(torch.stack(logits), alone(model, lookup, ids)[length:])


def test_the_whole_sequence_by_torch_s_own_operations(decoding: tuple[LanguageModel, Lookup | None]) -> None:
    model, lookup = decoding
    (ids,) = drawn(5, [50])
    with torch.no_grad():
        vectors = lookup.vectors(np.array([ids])) if lookup else None
        whole = model.logits(torch.tensor([ids]), vectors)[0]
    torch.testing.assert_close(alone(model, lookup, ids), whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("length", [1, PAGE - 1, PAGE, PAGE + 1])
def test_forks_go_on_apart(decoding: tuple[LanguageModel, Lookup | None], length: int) -> None:
    (stem,), ends = drawn(1, [length]), drawn(2, [4, 9, 40])
    decoder, sequence = Decoder(*decoding), Decoded()
    decoder.hidden([(sequence, stem)])
    forks = decoder.forked(sequence, 3)
    found = decoder.logits([(fork, ids) for fork, ids in zip(forks, ends, strict=True)])
    for logits, ids in zip(found, ends, strict=True):
        assert torch.equal(logits, alone(*decoding, stem + ids)[-1])
    for each in (sequence, *forks):
        decoder.release(each)
    assert decoder.pool.free == len(decoder.pool)


def test_pages_that_were_given_back_are_used_again(decoding: tuple[LanguageModel, Lookup | None]) -> None:
    decoder, found = Decoder(*decoding), []
    for ids in drawn(3, [70, 70, 3]):
        sequence = Decoded()
        found.append((ids, decoder.logits([(sequence, ids)])[0]))
        decoder.release(sequence)
    assert len(decoder.pool) == 3
    for ids, logits in found:
        assert torch.equal(logits, alone(*decoding, ids)[-1])

"""Cloze scores: those of whole sentences, chance for whoever knows nothing, and all right for whoever knows everything."""

import numpy as np
import pytest
import torch
from torch import Tensor

from hashing.text.planted import KINDS, PlantedText
from runtime.run import Run
from runtime.sweep.cloze import Asked, end_scores, right_percent
from tests.untrained import untrained


def asked(run: Run, kind: str, count: int) -> list[Asked]:
    questions, tokenizer = PlantedText(0).questions(kind, count), run.tokenizer()  # type: ignore[arg-type]
    return [Asked.of(question, tokenizer, run.vocab().end_of_text_id) for question in questions]


@pytest.mark.parametrize("sets", [[], ["memory=none"], ["model.streams=2", "memory.gate=none"], ["memory.conv=false"]], ids=str)
def test_a_score_is_the_likelihood_of_the_whole_sentence_with_its_end(vocab_run: Run, sets: list[str]) -> None:
    model, lookup = untrained(vocab_run, *sets)
    for question in asked(vocab_run, "reading", 3):
        found = end_scores(model, lookup, [question])
        for end, score in zip(question.ends, found[0], strict=True):
            ids = np.array([[*question.prompt, *end]])
            with torch.no_grad():
                vectors = lookup.vectors(ids) if lookup else None
                likelihoods = model.logits(torch.from_numpy(ids), vectors)[0].log_softmax(-1)
            places = range(len(question.prompt) - 1, ids.shape[1] - 1)
            expected = sum(float(likelihoods[place, ids[0, place + 1]]) for place in places)
            assert score == pytest.approx(expected, abs=2e-3)


def test_questions_together_score_as_each_alone(vocab_run: Run) -> None:
    model, lookup = untrained(vocab_run)
    first = asked(vocab_run, "fact", 200)
    same = [question for question in first if len(question.prompt) == len(first[0].prompt)][:5]
    assert len(same) > 1
    alone = np.concatenate([end_scores(model, lookup, [question]) for question in same])
    np.testing.assert_allclose(end_scores(model, lookup, same), alone, atol=1e-3)


def test_a_model_that_knows_nothing_answers_by_chance(vocab_run: Run) -> None:
    model, lookup = untrained(vocab_run)
    found = [right_percent(model, lookup, asked(vocab_run, kind, 300)) for kind in KINDS]
    assert all(1 < percent < 10 for percent in found)  # of 300, binomial: 5 ± 1.3
    assert 3 < sum(found) / 3 < 7


def test_a_model_that_knows_the_sentences_by_heart_is_right(vocab_run: Run) -> None:
    model, _ = untrained(vocab_run, "memory=none")
    questions = asked(vocab_run, "fact", 40)
    sentences = [[*question.prompt, *question.ends[question.right]] for question in questions]
    longest = max(map(len, sentences))
    ids = torch.tensor([sentence + [0] * (longest - len(sentence)) for sentence in sentences])
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(150):
        loss: Tensor = model.loss(ids[:, :-1], ids[:, 1:], None)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    assert right_percent(model, None, questions) >= 95

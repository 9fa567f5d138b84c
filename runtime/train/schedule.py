"""Schedule: how far a training has come, and what follows from that: its learning rate, its validations and its end.

A training is as long as its steps or as its minutes. Minutes are those of the training itself, with its validations and
checkpoints, over all the times that it was resumed; the learning rate follows them, so that it has decayed when they are over.
"""

from dataclasses import dataclass

from runtime.config import Recipe


@dataclass(frozen=True, slots=True)
class Schedule:
    recipe: Recipe

    def passed(self, step: float, elapsed_sec: float, times: int = 1) -> float:
        """The share of the training that lies behind a step, times a number (first, so that whole numbers stay exact)."""
        if self.recipe.minutes is not None:
            return elapsed_sec * times / (60 * self.recipe.minutes)
        assert self.recipe.steps is not None
        return step * times / self.recipe.steps

    def is_over(self, step: int, elapsed_sec: float) -> bool:
        return self.passed(step, elapsed_sec) >= 1

    def rate(self, step: int, elapsed_sec: float) -> float:
        """The share of the learning rate for the step that follows: linear warm-up, then linear decay to nothing."""
        begin = self.passed(step, elapsed_sec)
        end = self.passed(step + 1, elapsed_sec * (step + 1) / step if step else 0.0)
        warmup = self.recipe.warmup_share
        rising, falling = end / warmup if warmup else 1.0, max(0.0, 1 - begin) / (1 - warmup) if warmup < 1 else 1.0
        return min(rising, falling)

    def validations_due(self, step: int, elapsed_sec: float) -> int:
        """How many validations a training has had by then: they lie at even distances, the last one at the end."""
        return min(self.recipe.evaluations, int(self.passed(step, elapsed_sec, self.recipe.evaluations)))

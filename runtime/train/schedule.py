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
        """The share of the learning rate for the step that follows: it rises along a line, stays, and falls to nothing.

        With no `decay_share` it does not stay, but falls all the way from where it has risen to.
        """
        begin = self.passed(step, elapsed_sec)
        end = self.passed(step + 1, elapsed_sec * (step + 1) / step if step else 0.0)
        warmup, decay = self.recipe.warmup_share, self.recipe.decay_share
        rising = end / warmup if warmup else 1.0
        if decay is None:
            return min(rising, max(0.0, 1 - begin) / (1 - warmup) if warmup < 1 else 1.0)
        return min(rising, max(0.0, 1 - begin) / decay if decay else 1.0, 1.0)

    def checkpoint_due(self, step: int) -> bool:
        """Whether a checkpoint follows a step, whether or not there was a validation."""
        return self.recipe.checkpoint_steps is not None and step % self.recipe.checkpoint_steps == 0

    def validations_due(self, step: int, elapsed_sec: float) -> int:
        """How many validations a training has had by then: they lie at even distances, the last one at the end."""
        return min(self.recipe.evaluations, int(self.passed(step, elapsed_sec, self.recipe.evaluations)))

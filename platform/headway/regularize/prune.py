"""Gradual magnitude pruning: the smallest weights are set to zero and stay there, more of them as training goes on.

After t steps, at every `every`-th between `begin` and `end`, the share of zeros in each weight matrix is
`sparsity * (1 - (1 - (t - begin) / (end - begin))^3)`, each matrix on its own. A weight at zero gets no
gradient and is set back to zero after each update. So the zeros are the mask and there is no other
state: a run that goes on from a checkpoint prunes as if it had never stopped. Embeddings are pruned
too; biases, norms and other vectors are not.

Source: Zhu and Gupta 2017, "To prune, or not to prune", section 3.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor, nn

from headway.config.contracts import DataSpec, Engine, RegularizeConfig
from headway.config.errors import UserError
from headway.regularize.base import Idle


class Config(RegularizeConfig):
    """Configures `Prune`."""

    sparsity: float = Field(gt=0, lt=1)
    """Share of each weight matrix that is zero in the end."""
    begin: NonNegativeInt = 0
    """Steps before pruning starts."""
    end: PositiveInt
    """Steps after which no more is pruned."""
    every: PositiveInt = 100
    """Steps from one pruning to the next; the last is at `end`."""
    spare: tuple[str, ...] = Field(default=(), strict=False)
    """Names of weights that stay whole, with `*` for any part: `["output.*"]`."""

    @model_validator(mode="after")
    def _begins_before_it_ends(self) -> Config:
        if self.begin > self.end:
            raise ValueError(f"begin is {self.begin}, after end, {self.end}; make begin smaller")
        return self

    @property
    def settled_after(self) -> int:
        """Returns `end`."""
        return self.end

    def sparsity_after(self, steps: int) -> float:
        """Returns the share of zeros that was set last, after so many steps."""
        if steps >= self.end:
            return self.sparsity
        if steps < self.begin:
            return 0.0
        last = (steps - self.begin) // self.every * self.every
        return self.sparsity * (1.0 - (1.0 - last / (self.end - self.begin)) ** 3)

    def build(self, spec: DataSpec, *, seed: int) -> Prune:
        """Returns the technique."""
        return Prune(self)


class Prune(Idle):
    """Keeps the smallest weights of each matrix at zero."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._pruned: set[str] = set()
        self._masks: dict[str, Tensor] = {}

    def attach(self, net: nn.Module) -> None:
        """Notes which weights are pruned.

        Raises:
            UserError: a spared name that is not there.
        """
        names = [name for name, weight in net.named_parameters() if weight.ndim >= 2]
        for pattern in self.config.spare:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise UserError(
                    f"regularize.prune.spare: {pattern!r} is no weight matrix of this net; it has {', '.join(names)}"
                )
        self._pruned = {name for name in names if not any(fnmatchcase(name, pattern) for pattern in self.config.spare)}

    def after_backward(self, engine: Engine, step: int) -> Tensor | float:
        """Takes the gradient of weights at zero, and remembers which they are."""
        self._masks = {}
        if self.config.sparsity_after(step) == 0.0:
            return 0.0

        def mask(name: str, weight: Tensor, gradient: Tensor) -> None:
            if name in self._pruned:
                self._masks[name] = weight == 0
                gradient.masked_fill_(self._masks[name], 0.0)

        engine.edit_gradients(mask)
        return 0.0

    def after_update(self, engine: Engine, step: int) -> None:
        """Sets those weights back to zero, and at every so many steps more of them."""
        sparsity = self.config.sparsity_after(step + 1)
        if sparsity == 0.0:
            return
        more = sparsity != self.config.sparsity_after(step)

        def cut(name: str, weight: Tensor) -> None:
            if name not in self._pruned:
                return
            if name in self._masks:
                weight.masked_fill_(self._masks[name], 0.0)
            count = round(sparsity * weight.numel())
            if more and count:
                magnitude = weight.abs()
                weight.masked_fill_(magnitude <= magnitude.flatten().kthvalue(count).values, 0.0)

        engine.edit_weights(cut)

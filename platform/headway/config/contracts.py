"""What the parts of headway promise each other. Every family of kinds is declared here.

A recipe's section builds its thing and never reads another section: what a model needs to know of
the data (shapes, classes, vocabulary) comes in a `DataSpec`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, Self, runtime_checkable

from headway.config.kinds import Family
from headway.config.section import Kind, Section

if TYPE_CHECKING:
    import torch
    from lightning.pytorch import LightningModule
    from lightning.pytorch.strategies import Strategy
    from torch import Tensor, nn

    from headway.nn.draws import Draws

Batch = dict[str, "Tensor"]
"""Tensors by name, all with the sample as their first axis: always `input`, usually `target`.

By data also `fresh` (bool: the row starts anew), `segment` and `is_next` (BERT), `decoder_input` (pairs).
"""

State = dict[str, "Tensor"]
"""What a net carries from one stretch of a sequence to the next, each tensor with the row as its first axis.

No state and all zeros mean the same: nothing came before.
"""

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class DataSpec:
    """What a model and an objective need to know of the data."""

    input_kind: Literal["features", "image", "tokens", "sequence", "pairs"]
    input_shape: tuple[int, ...]
    """Of one sample: (features,), (channels, height, width), (tokens,), (steps, features), or (source tokens,)."""
    num_classes: int | None = None
    """Number of classes of the target, an integer a sample; None where the target is no class."""
    target_size: int | None = None
    """Number of real-valued targets a sample; None where the target is no real vector."""
    vocab_size: int | None = None
    """Number of distinct tokens, where the input is tokens."""
    target_length: int | None = None
    """Tokens of the other text of a pair, where the input is a pair."""
    masked: bool = False
    """Whether the targets are tokens that are hidden from the input."""
    carried: bool = False
    """Whether each row of a batch goes on where the same row of the batch before ended."""
    feature_names: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()


class Split(Protocol):
    """One part of a data set: train, validation or test."""

    in_memory: bool
    """True: `gather` is an indexing of tensors. False: it reads files, worth worker processes."""

    def __len__(self) -> int:
        """Returns the number of samples in an epoch."""

    def gather(self, index_N: Tensor, *, epoch: int) -> Batch:
        """Returns the samples of these indices; `epoch` lets a source vary how it cuts them."""

    def to(self, device: torch.device, dtype: torch.dtype) -> Split:
        """Returns the split with its in-memory tensors on a device, real values in `dtype`."""


@runtime_checkable
class CarriedSplit(Split, Protocol):
    """A split whose batches go on where the last ones ended, so that it has to know how many rows they have."""

    def lay_out(self, batch_size: int) -> Split:
        """Returns the split for batches of so many rows, taken in order and never shuffled."""


@dataclass(frozen=True)
class Data:
    """A loaded data set."""

    spec: DataSpec
    train: Split
    validation: Split
    test: Split
    fingerprint: str
    """SHA-256 over the raw content, for the manifest."""
    decode: Callable[[list[int]], str] | None = None
    """Turns tokens back into text, where the data is text."""
    workers: int = 0
    """Processes that read ahead where a split is not in memory."""
    reading: dict[str, Any] = field(default_factory=dict)
    """How a raw input becomes what the net reads, as plain values: `scaling`, `vocabulary`. The run folder keeps it."""


class DataConfig(Kind):
    """A recipe's `data` section."""

    seed: int | None = None
    """Seed of the splits and of the order of samples; trainer.seed when absent."""

    @abstractmethod
    def load(self) -> Data:
        """Returns the data, split; `seed` is resolved by then.

        Raises:
            UserError: a missing, truncated or wrong file, by name.
        """
        raise NotImplementedError

    def split_seed(self) -> int:
        """Returns the resolved seed."""
        assert self.seed is not None, "the recipe resolves data.seed"
        return self.seed


class ModelConfig(Kind):
    """A recipe's `model` section."""

    @abstractmethod
    def build(self, spec: DataSpec) -> nn.Module:
        """Returns the net, whose `forward(input, rng=None)` gives the raw output.

        `rng` is a `headway.nn.draws.Draws` or None; its weights are whatever the constructor
        left: the recipe's `init` draws them afterwards.

        Raises:
            UserError: the data does not fit the net, with the setting to change.
        """
        raise NotImplementedError

    @abstractmethod
    def default_objective(self, spec: DataSpec) -> str:
        """Returns the kind of objective a recipe gets that names none."""
        raise NotImplementedError

    def widened(self, factor: int) -> Self:
        """Returns the config of a net whose every hidden width is so many times as large."""
        return self.model_copy(update={name: _times(value, factor) for name, value in self._widths().items()})

    def main_width(self) -> int | None:
        """Returns the first of the net's hidden widths; None where it has none."""
        width = next(iter(self._widths().values()), None)
        return next(iter(width), None) if isinstance(width, tuple) else width

    def _widths(self) -> dict[str, Any]:
        values = {name: getattr(self, name, None) for name in _WIDTHS}
        return {name: value for name, value in values.items() if value is not None}


_WIDTHS = ("width", "hidden", "filters", "num_heads")
"""Names that settings of a net's hidden widths have; heads grow in number, not in width."""


def _times(value: Any, factor: int) -> Any:
    return tuple(part * factor for part in value) if isinstance(value, tuple) else value * factor


class Scale(NamedTuple):
    """What a net's width makes of one weight."""

    draw: float = 1.0
    """Factor on what the scheme draws."""
    lr: float = 1.0
    """Factor on the learning rate."""


class InitConfig(Kind):
    """A recipe's `init` section: how weights and biases start."""

    by_width: ClassVar[bool] = False
    """Whether the scheme asks how the net's weights grow with its width."""

    seed: int | None = None
    """Seed of the initial weights; trainer.seed when absent."""

    @abstractmethod
    def fill(self, weight: Tensor, *, generator: torch.Generator) -> None:
        """Draws one weight in place, in float32: (out, in, ...) for a layer, (rows, width) for an embedding."""
        raise NotImplementedError

    def given(self, net: nn.Module) -> dict[str, Tensor]:
        """Returns the weights, by their name in `net.state_dict()`, that are known and replace the draw."""
        return {}

    def scales(self, net: nn.Module, wider: nn.Module, *, width: int) -> dict[str, Scale]:
        """Returns what the width makes of weights, by name; `wider` is the net at twice its width, on no device."""
        return {}


class RegularizeConfig(Section):
    """One technique of a recipe's `regularize` section; its key there is the name of its file."""

    train_metrics: ClassVar[tuple[str, ...]] = ()
    """Names of the sums that its `add_loss` gives."""
    eval_metrics: ClassVar[tuple[str, ...]] = ()
    """Names of the sums that its `add_metrics` gives."""

    @property
    def settled_after(self) -> int:
        """Returns the optimizer steps after which the net is what the technique makes of it; none is best before."""
        return 0

    def check(self, spec: DataSpec, strategy: StrategyConfig) -> None:
        """Raises a UserError where it cannot be done with such data, or under such a strategy."""

    @abstractmethod
    def build(self, spec: DataSpec, *, seed: int) -> Technique:
        """Returns the technique; `seed` is the run's, for what it draws."""
        raise NotImplementedError


class Technique(Protocol):
    """What a technique may do to a training; `headway.regularize.base.Idle` does nothing in every place.

    All but `add_metrics` happens in training alone. Weights and gradients come whole and by name, under every strategy.
    """

    def attach(self, net: nn.Module) -> None:
        """Is called once with the net, before a strategy wraps it: for hooks."""

    def change_batch(self, batch: Batch, rng: Draws | None) -> Batch:
        """Returns the micro-batch that the net is trained on."""

    def add_loss(self, loss: Loss, batch: Batch, outcome: Outcome) -> Outcome:
        """Returns an outcome with something added; `loss(batch)` is that of another batch under the same masks."""

    def add_metrics(self, loss: Loss, batch: Batch, outcome: Outcome) -> Outcome:
        """Returns the outcome of a held-out batch with metrics added. Gradients are off; `torch.enable_grad` helps."""

    def before_forward(self, engine: Engine, step: int) -> None:
        """Is called before a step's first forward."""

    def after_backward(self, engine: Engine, step: int) -> Tensor | float:
        """Is called when a step's gradient is complete, before it is clipped.

        Returns what the change of the gradient means for the loss, for an optimizer that looks at it.
        """

    def after_update(self, engine: Engine, step: int) -> None:
        """Is called when the weights have moved."""


class Watch(Protocol):
    """Measures some of the steps. A run is the same to the last bit with it or without."""

    def due(self, step: int) -> bool:
        """Returns whether a step, counted from 0, is measured; the same on all ranks."""

    def listening(self) -> AbstractContextManager[object]:
        """Measures the forwards that are made inside."""

    def before_update(self, engine: Engine) -> None:
        """Is called when a step's gradient is complete and as the optimizer will see it, but for `clip_norm`."""

    def after_update(self, engine: Engine) -> Tensor:
        """Is called when the optimizer has moved the weights; returns this rank's sums, float64, always as many."""

    def metrics(self, sums: list[float]) -> dict[str, float]:
        """Returns what the sums over ranks say, by name."""


class Outcome(NamedTuple):
    """What an objective makes of a micro-batch."""

    loss_sum: Tensor
    """Scalar: the loss summed over everything that counts."""
    counted: Tensor | int
    """How many things counted: rows, or tokens that are not masked."""
    state: State | None
    """The carried state for the next call; None where nothing is carried."""
    sums: dict[str, Tensor]
    """Metrics as sums over the same things that were counted, by name: `{"accuracy": hits}`."""


class ObjectiveConfig(Kind):
    """A recipe's `objective` section."""

    row_settings: ClassVar[tuple[str, ...]] = ()
    """Settings of which runs that are trained as one may have one each: `outcome` takes them as tensors too."""

    def check(self, spec: DataSpec) -> None:
        """Raises a UserError where the data has no such target."""


class ModuleConfig(ObjectiveConfig):
    """An `objective` that is a whole LightningModule of yours: `kind: your.module:Config`.

    headway makes the optimizer steps, so it runs under every strategy and resumes like any other: `training_step`
    and `validation_step` are called with a batch, the loss they return and what they `self.log`
    are recorded. Its other hooks are not called.
    """

    @abstractmethod
    def build_module(self, net: nn.Module | None, spec: DataSpec) -> LightningModule:
        """Returns the module; `net` is the recipe's model where it names one.

        Batches are `{"input": ..., "target": ...}`. Where the recipe has no `optim`, its
        `configure_optimizers` gives one optimizer.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Place:
    """Where a process stands among those that train together."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    device: Device = "cpu"

    @property
    def device_name(self) -> str:
        """Returns what torch calls its device."""
        return "cpu" if self.device == "cpu" else f"cuda:{self.local_rank}"

    @property
    def num_nodes(self) -> int:
        """Returns the number of machines."""
        return self.world_size // self.local_world_size


class StrategyConfig(Kind):
    """A recipe's `strategy` section: how ranks share the work."""

    @abstractmethod
    def check(self, place: Place, precision: str) -> None:
        """Raises a UserError where this machine, device or precision cannot do it. Imports no lightning."""
        raise NotImplementedError

    @abstractmethod
    def build(self, place: Place, *, precision: str, clip_norm: float | None, timeout_s: int) -> Strategy:
        """Returns the Lightning strategy, which is an `Engine` too."""
        raise NotImplementedError


class Engine(Protocol):
    """What an objective and a checkpoint ask of a strategy. Every method is called on all ranks alike."""

    def forward(self, *arguments: Any) -> Any:
        """Returns the wrapped module's forward, in the recipe's precision."""

    def accumulate(self, *, last: bool) -> None:
        """Says whether the next forward and backward are the step's last, after which gradients are averaged."""

    tells_waiting: bool
    """Whether `backward` says where its waiting for other ranks begins; else that is a part of all parts of a step."""

    def backward(self, loss: Tensor, computed: Callable[[], None] = lambda: None) -> None:
        """Adds the loss's gradient; calls `computed` when this rank's is there and the others' are yet to be added."""

    def update(self, optimizer: torch.optim.Optimizer, clip_norm: float | None) -> Tensor | None:
        """Clips, steps and clears the gradient; returns its norm over all ranks where it was clipped."""

    def minimize(self, optimizer: torch.optim.Optimizer, closure: Callable[[], Tensor]) -> None:
        """Steps an optimizer that asks for the loss and its gradient as often as it likes."""

    def edit_gradients(self, edit: EditGradient) -> None:
        """Changes the complete gradient of each weight in place: `edit(name, weight, gradient)`, whole tensors."""

    def edit_weights(self, edit: EditWeight) -> None:
        """Changes each weight in place: `edit(name, weight)`, whole tensors."""

    def disturb(self, noise: DrawNoise) -> None:
        """Adds `noise(name, shape)` to the weights that the next forward and backward see, and to those only."""

    def own_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yields this rank's part of each weight, as it is updated; over all ranks every value is there once."""

    def own_gradients(self) -> Iterator[tuple[str, Tensor]]:
        """Yields this rank's part of each complete gradient, without a factor against underflow."""

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        """Returns the element-wise sum."""

    def gather_weights(self) -> dict[str, Tensor]:
        """Returns every weight and buffer of the net, whole and on the CPU, on rank 0; others get {}."""

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Sets every weight and buffer of the net."""

    def gather_optimizer(self) -> dict[str, Tensor]:
        """Returns the optimizer's state on rank 0, whole, by `<state>/<weight>`; others get {}."""

    def load_optimizer(self, state: dict[str, Tensor]) -> None:
        """Sets the optimizer's state."""


class Hooks:
    """What a training loop tells whoever listens; each may be overridden. Lightning's names and arguments."""

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Hears of the start."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Hears of a chunk of steps."""

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Hears of a validation."""

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Hears of the end."""


Loss = Callable[[Batch], Outcome]
"""The outcome of a batch, for the net and the masks of the moment."""
EditGradient = Callable[[str, "Tensor", "Tensor"], object]
EditWeight = Callable[[str, "Tensor"], object]
DrawNoise = Callable[[str, tuple[int, ...]], "Tensor | None"]


MODEL = Family("model", "models", ModelConfig)
DATA = Family("data", "data", DataConfig)
INIT = Family("init", "init", InitConfig)
OBJECTIVE = Family("objective", "objectives", ObjectiveConfig)
STRATEGY = Family("strategy", "strategies", StrategyConfig)
REGULARIZE = Family("regularize", "regularize", RegularizeConfig)
FAMILIES = (MODEL, DATA, INIT, OBJECTIVE, STRATEGY)
"""The sections that are one kind; `regularize` is a mapping of kinds."""

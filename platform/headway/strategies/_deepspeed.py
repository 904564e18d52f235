"""DeepSpeed through Lightning's strategy, on CUDA as it comes and on the CPU with gloo.

Lightning refuses DeepSpeed without CUDA, though the library trains on the CPU: the few methods
that look at the device are overridden below. State is gathered and set weight by weight through DeepSpeed's
own accessors, so that a checkpoint is headway's, by name and whole, and never DeepSpeed's pickles.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, cast

import torch
from lightning.fabric.utilities.seed import reset_seed
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy
from torch import Tensor

from headway.config.contracts import DrawNoise, EditGradient, EditWeight, Place
from headway.strategies._engine import StepEngine
from headway.strategies._environment import RankEnvironment

_BUCKET = 50_000_000


class DeepSpeed(StepEngine, DeepSpeedStrategy):
    """ZeRO stage 1, 2 or 3."""

    def __init__(
        self, place: Place, *, stage: int, offload: bool, precision: str, clip_norm: float | None, timeout_s: int
    ) -> None:
        if place.device == "cpu":
            os.environ["DS_ACCELERATOR"] = "cpu"  # read when deepspeed is first imported
        self.on_cpu = place.device == "cpu"
        _import_without_compiling()
        DeepSpeedStrategy.__init__(
            self,
            config=_config(stage=stage, offload=offload, precision=precision, clip_norm=clip_norm),
            cluster_environment=RankEnvironment(place),
            process_group_backend="gloo" if self.on_cpu else "nccl",
            timeout=timedelta(seconds=timeout_s),
            logging_level=logging.ERROR,
        )

    # ---- the CPU ---------------------------------------------------------------------------------

    def setup_environment(self) -> None:
        """Sets up the process group; Lightning's own refuses the CPU here."""
        if self.on_cpu:
            DDPStrategy.setup_environment(self)
        else:
            DeepSpeedStrategy.setup_environment(self)

    def setup_distributed(self) -> None:
        """Joins the process group."""
        if not self.on_cpu:
            DeepSpeedStrategy.setup_distributed(self)
            return
        reset_seed()
        self.set_world_ranks()
        self._init_deepspeed_distributed()

    @property
    def root_device(self) -> torch.device:
        """Returns this rank's device; on the CPU with the index that DeepSpeed compares with 0."""
        return torch.device("cpu", 0) if self.on_cpu else super().root_device

    # ---- the step --------------------------------------------------------------------------------

    def forward(self, *arguments: Any) -> Any:
        """Returns the engine's forward; in half precision real inputs are cast as the weights are."""
        assert self.model is not None
        return self.model(*(_cast(argument, self._weight_dtype) for argument in arguments))

    def accumulate(self, *, last: bool) -> None:
        """Tells the engine whether the next backward ends the step."""
        self.deepspeed_engine.set_gradient_accumulation_boundary(last)

    def backward(  # type: ignore[override]
        self, loss: Tensor, computed: Callable[[], None] = lambda: None
    ) -> None:
        """Adds the loss's gradient."""
        self.deepspeed_engine.backward(loss)

    def update(self, optimizer: torch.optim.Optimizer, clip_norm: float | None) -> Tensor | None:
        """Clips, steps and clears the gradient; the engine knows the limit from its config."""
        self._settle()
        engine = self.deepspeed_engine
        engine.step()
        if clip_norm is None:
            return None
        norm = engine.get_global_grad_norm()
        return torch.as_tensor(float("nan") if norm is None else float(norm), dtype=torch.float64)

    def edit_gradients(self, edit: EditGradient) -> None:
        """Changes the complete gradient of each weight in place, gathered weight by weight."""
        from deepspeed.utils import (
            safe_get_full_fp32_param,
            safe_get_full_grad,
            safe_set_full_grad,
            safe_set_local_grad,
        )

        self._settle()
        scale = float(getattr(self.deepspeed_engine.optimizer, "loss_scale", 1.0))
        for name, weight in self._weights:
            gradient = safe_get_full_grad(weight).detach().float() / scale
            edit(name, safe_get_full_fp32_param(weight), gradient)
            gradient *= scale
            if self.zero_stage_3:
                safe_set_local_grad(weight, self._slice(weight, gradient))
            else:
                safe_set_full_grad(weight, gradient)

    def edit_weights(self, edit: EditWeight) -> None:
        """Changes each weight in place, in the fp32 copy and in the net."""
        from deepspeed.utils import safe_get_full_fp32_param

        self._settle()
        for name, weight in self._weights:
            whole = safe_get_full_fp32_param(weight)
            edit(name, whole)
            self._set_master_copy(weight, whole)
            self._set_working_copy(weight, whole)

    def disturb(self, noise: DrawNoise) -> None:
        """Adds noise to the weights until the gradient is complete."""
        if not self.zero_stage_3:
            StepEngine.disturb(self, noise)
            return
        from deepspeed.utils import safe_get_full_fp32_param

        for name, weight in self._weights:
            drawn = noise(name, tuple(cast(Any, weight).ds_shape))
            if drawn is not None:
                whole = safe_get_full_fp32_param(weight)
                self._set_working_copy(weight, whole + drawn.to(whole))
                self._undisturbed.append((weight, None))

    def _settle(self) -> None:
        """Takes the noise off the weights; under stage 3 they are made anew from the fp32 copy."""
        if not self.zero_stage_3:
            StepEngine._settle(self)
            return
        from deepspeed.utils import safe_get_full_fp32_param

        for weight, _ in self._undisturbed:
            self._set_working_copy(weight, safe_get_full_fp32_param(weight))
        self._undisturbed.clear()

    # ---- what is measured ------------------------------------------------------------------------

    def own_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yields this rank's slice of each weight's fp32 copy."""
        from deepspeed.utils import safe_get_local_fp32_param

        self._settle()
        for name, weight in self._weights:
            if self.zero_stage_3:
                yield name, self._unpadded(weight, safe_get_local_fp32_param(weight))
            elif (mapping := cast(Any, weight)._hp_mapping) is not None:
                yield name, mapping.get_hp_fragment()

    def own_gradients(self) -> Iterator[tuple[str, Tensor]]:
        """Yields this rank's slice of each gradient."""
        from deepspeed.utils import safe_get_local_grad

        scale = float(getattr(self.deepspeed_engine.optimizer, "loss_scale", 1.0))
        for name, weight in self._weights:
            if self.zero_stage_3:
                part = self._unpadded(weight, safe_get_local_grad(weight))
            elif (mapping := cast(Any, weight)._hp_mapping) is not None:
                part = mapping.get_lp_grad_fragment(cast(Any, weight)._index_in_param_group)
            else:
                continue
            yield name, part if scale == 1.0 else part.float() / scale

    def _unpadded(self, weight: torch.nn.Parameter, part: Tensor) -> Tensor:
        """Returns a stage 3 slice without what fills up the last ones."""
        length = int(cast(Any, weight).partition_numel())
        left = int(cast(Any, weight).ds_numel) - length * self.global_rank
        return part.flatten()[: max(0, min(length, left))]

    @property
    def _weight_dtype(self) -> torch.dtype:
        return next(self._net.parameters()).dtype

    # ---- state, by name and whole ----------------------------------------------------------------

    def gather_weights(self) -> dict[str, Tensor]:
        """Returns every weight in fp32 and every buffer, whole, on rank 0."""
        from deepspeed.utils import safe_get_full_fp32_param

        weights: dict[str, Tensor] = {}
        for name, weight in self._net.named_parameters(remove_duplicate=False):
            whole = safe_get_full_fp32_param(weight)
            if self.is_global_zero:
                weights[name] = whole.detach().cpu().clone()
        for name, buffer in self._net.named_buffers():
            weights[name] = buffer.detach().cpu().clone()
        return weights if self.is_global_zero else {}

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Sets every weight, in the engine's fp32 copy and in the net."""
        for name, weight in self._net.named_parameters():
            value = weights[name]
            self._set_master_copy(weight, value)
            self._set_working_copy(weight, value)
        with torch.no_grad():
            for name, buffer in self._net.named_buffers():
                buffer.copy_(weights[name])

    def _set_master_copy(self, weight: torch.nn.Parameter, value: Tensor, state: str | None = None) -> None:
        """Sets this rank's slice of a weight's fp32 copy, or of one of its optimizer states."""
        from deepspeed.utils import (
            safe_set_full_fp32_param,
            safe_set_full_optimizer_state,
            safe_set_local_fp32_param,
            safe_set_local_optimizer_state,
        )

        value = value.to(self.root_device, torch.float32)
        if self.zero_stage_3:
            value = self._slice(weight, value)
        set_weight = safe_set_local_fp32_param if self.zero_stage_3 else safe_set_full_fp32_param
        set_state = safe_set_local_optimizer_state if self.zero_stage_3 else safe_set_full_optimizer_state
        if state is None:
            set_weight(weight, value)
        else:
            set_state(weight, value, state)

    def _slice(self, weight: torch.nn.Parameter, value: Tensor) -> Tensor:
        """Returns this rank's slice under stage 3; DeepSpeed 0.19.8 cannot cut what its ranks cannot share equally."""
        length = int(cast(Any, weight).partition_numel())
        padded = torch.nn.functional.pad(value.flatten(), (0, length * self.world_size - value.numel()))
        return padded.narrow(0, length * self.global_rank, length)

    def _set_working_copy(self, weight: Tensor, value: Tensor) -> None:
        if self.zero_stage_3:
            from deepspeed.runtime.zero import GatheredParameters

            with GatheredParameters(weight, modifier_rank=0):
                weight.data.copy_(value)
        else:
            weight.data.copy_(value)

    def gather_optimizer(self) -> dict[str, Tensor]:
        """Returns the optimizer's state on rank 0, whole, by `<state>/<weight>`."""
        from deepspeed.utils import safe_get_full_optimizer_state

        self._link_state()
        state: dict[str, Tensor] = {}
        for name, weight in self._net.named_parameters():
            for key in self._state_keys():
                whole = safe_get_full_optimizer_state(weight, key)
                if self.is_global_zero and whole is not None:
                    state[f"{key}/{name}"] = whole.detach().cpu().clone()
            if self.is_global_zero:
                state |= {f"{key}/{name}": value for key, value in self._scalars().items()}
        return state if self.is_global_zero else {}

    def load_optimizer(self, state: dict[str, Tensor]) -> None:
        """Sets the optimizer's state, of which ZeRO keeps one slice a rank."""
        weights = dict(self._net.named_parameters())
        whole: dict[str, dict[str, Tensor]] = {}
        scalars: dict[str, Tensor] = {}
        for path, value in state.items():
            key, _, name = path.partition("/")
            if value.shape == torch.Size([]) and key == "step":
                scalars[key] = value
            else:
                whole.setdefault(key, {})[name] = value
        # torch allocates an optimizer's state at its first step, which is yet to come.
        for flat in self._flat_weights():
            self._inner.state[flat] = {key: torch.zeros_like(flat) for key in whole}
            self._inner.state[flat] |= {key: value.clone() for key, value in scalars.items()}
        self._link_state()
        for key, values in whole.items():
            for name, value in values.items():
                self._set_master_copy(weights[name], value, key)

    def _flat_weights(self) -> list[Tensor]:
        """Returns this rank's flat fp32 slices, which are what the optimizer steps."""
        zero = self.deepspeed_engine.optimizer
        flat: list[Tensor] = (
            zero.fp32_partitioned_groups_flat if self.zero_stage_3 else zero.single_partition_of_fp32_groups
        )
        return flat

    def _link_state(self) -> None:
        """Lets DeepSpeed find each weight's state, under stages 1 and 2.

        DeepSpeed 0.19.8 does so after the step of the first parameter group, when the others have no state yet.
        """
        if not self.zero_stage_3:
            zero = self.deepspeed_engine.optimizer
            zero._hp_optimizer_states_linked = False
            zero._lazy_init_hp_params_optimizer_state()

    @property
    def _inner(self) -> torch.optim.Optimizer:
        """Returns torch's optimizer over this rank's flat slices."""
        inner: torch.optim.Optimizer = self.deepspeed_engine.optimizer.optimizer
        return inner

    def _state_keys(self) -> list[str]:
        """Returns the names of the state tensors as large as a weight: `exp_avg`, `momentum_buffer`."""
        for inner in self._inner.state.values():
            return [key for key, value in inner.items() if isinstance(value, Tensor) and value.ndim > 0]
        return []

    def _scalars(self) -> dict[str, Tensor]:
        """Returns the state that is one number for all weights: Adam's count of steps."""
        for inner in self._inner.state.values():
            return {
                key: value.detach().cpu().clone()
                for key, value in inner.items()
                if isinstance(value, Tensor) and value.ndim == 0
            }
        return {}


def _import_without_compiling() -> None:
    """Imports deepspeed and keeps it from compiling its shared-memory all-reduce for one CPU host.

    gloo does that job; the compiled kernel needs a C++ compiler, a minute at first use, and rounds otherwise.
    """
    deepspeed = importlib.import_module("deepspeed")
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def _config(*, stage: int, offload: bool, precision: str, clip_norm: float | None) -> dict[str, Any]:
    """Returns DeepSpeed's own configuration."""
    zero: dict[str, Any] = {
        "stage": stage,
        "contiguous_gradients": True,
        "overlap_comm": False,
        "reduce_bucket_size": _BUCKET,
        "allgather_bucket_size": _BUCKET,
    }
    if offload:
        zero["offload_optimizer"] = {"device": "cpu"}
        if stage == 3:
            zero["offload_param"] = {"device": "cpu"}
    config: dict[str, Any] = {
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        # Offloading would otherwise compile DeepSpeed's own Adam at start.
        "zero_force_ds_cpu_optimizer": False,
        "train_micro_batch_size_per_gpu": 1,
    }
    if clip_norm is not None:
        config["gradient_clipping"] = clip_norm
    if precision.startswith("bf16"):
        config["bf16"] = {"enabled": True}
    if precision == "fp16-mixed":
        config["fp16"] = {"enabled": True, "initial_scale_power": 16}
    return config


def _cast(argument: Any, dtype: torch.dtype) -> Any:
    """Returns a batch with its real tensors in another precision; anything else as it is."""
    if not isinstance(argument, dict):
        return argument
    return {
        name: value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
        for name, value in argument.items()
    }

"""Building the network of a run: initial weights and batch norm over processes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import SegformerModel

from model import checkpoint
from model.config import GammaConfig
from model.network import GammaModel
from training.config import ConfigError, Settings

_LIBRARY_DROP_PATH = 0.1  # maximum rate in the library's encoders
_KEPT_OF_DRAWN = 0.1


def build(settings: Settings) -> GammaModel:
    """Build the network of a run; random weights depend on `train.seed` only.

    Raises:
        ConfigError: A setting of the model is invalid, or weights do not fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.train.seed)
        try:
            model = GammaModel(GammaConfig(**asdict(settings.model), trained=True))
        except ValueError as error:
            raise ConfigError(f"model: {error}") from error
        if model.input is not None:
            start_averaging(model)
    try:
        if settings.start.encoder:
            checkpoint.load_backbone(model, settings.start.encoder)
        if settings.start.checkpoint:
            model.load_state_dict(checkpoint.load(settings.start.checkpoint).state_dict())
    except (checkpoint.CheckpointError, RuntimeError) as error:
        raise ConfigError(f"start: {error}") from error
    for name in settings.start.frozen:
        try:
            model.get_submodule(name).requires_grad_(False)
        except AttributeError as error:
            raise ConfigError(f"start.frozen: the network has no module {name}") from error
    for module in model.encoder.modules():
        rate = getattr(module, "drop_prob", None)
        if isinstance(rate, float):
            module.drop_prob = rate * settings.start.drop_path / _LIBRARY_DROP_PATH  # type: ignore[assignment]
    return model


@torch.no_grad()
def start_averaging(model: GammaModel) -> None:
    """Initialise the patch embeddings of the stages close to local means.

    For co-occurrences, averages over growing areas are informative; random convolutions would
    hide them.

    Args:
        model: A network with co-occurrence input and a MiT encoder; changed in place.

    Raises:
        ConfigError: The encoder is not a MiT.
    """
    if not isinstance(model.encoder, SegformerModel):
        raise ConfigError(f"model.input: cooccurrence: not for {model.config.backbone}")
    stages: Any = model.encoder.stages
    for stage in stages:
        kernel = stage.patch_embeddings.proj.weight  # (D, C, k, k)
        channel = torch.arange(len(kernel))
        kernel *= _KEPT_OF_DRAWN
        kernel[channel, channel % kernel.shape[1]] += 1 / kernel[0, 0].numel()


def synchronise_batch_norm(model: GammaModel, device: torch.device) -> None:
    """Replace batch norm layers by layers that use the batch of all processes.

    PyTorch's `SyncBatchNorm` works on CUDA only; on a CPU `SharedBatchNorm` is used. Accumulated
    parts are still normalised separately.
    """
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            kind = nn.SyncBatchNorm if device.type == "cuda" else SharedBatchNorm
            shared = kind(module.num_features, module.eps, module.momentum)
            shared.load_state_dict(module.state_dict())
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, shared)


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm over the batches of all processes, for any device."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W) by the mean and variance over B, H, W of all processes."""
        if not self.training:
            return super().forward(x)
        values = x.float()
        count = values.new_tensor([values.numel() / values.shape[1]])
        sums = torch.cat([values.sum((0, 2, 3)), count])
        sums = _sum(sums)  # (C + 1,)
        total = sums[-1]
        mean = sums[:-1] / total  # (C,)
        centred = values - mean[:, None, None]
        variance = _sum(centred.square().sum((0, 2, 3))) / total  # (C,)
        self._follow(mean.detach(), (variance * total / (total - 1)).detach())
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Update the running statistics."""
        momentum = 0.1 if self.momentum is None else self.momentum
        for running, value in ((self.running_mean, mean), (self.running_var, variance)):
            if running is not None:
                running.lerp_(value, momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked += 1


def _sum(values: Tensor) -> Tensor:
    total: Tensor = _SumOverProcesses.apply(values)  # type: ignore[no-untyped-call]
    return total


class _SumOverProcesses(torch.autograd.Function):
    """Differentiable sum over processes; the gradient is the sum of the gradients."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total: Tensor = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total

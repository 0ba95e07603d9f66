"""The training loop of the thawed part."""

import copy
import math
import time
from dataclasses import asdict, dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel
from torchvision.transforms import v2
from tqdm import tqdm

from regraft.core.config import TuneConfig
from regraft.core.errors import TrainingDiverged
from regraft.model.embed import Compute, keep_freed_memory
from regraft.model.freeze import set_modes, thaw
from regraft.training.tune.batch_source import (
    BatchSource,
    TrainContext,
    TrainData,
    make_batch_source,
)
from regraft.training.tune.challenger import EpochRecord
from regraft.training.tune.checkpoint import Checkpoint, TreeOfTensors
from regraft.training.tune.precision import training_compute
from regraft.training.tune.training_setup import TrainingSetup

SAVING_SHARE = 0.1  # largest share of the time for checkpoints of short epochs. Guess


@dataclass
class Progress:
    """The changing state of the training: the content of a checkpoint."""

    network: nn.Module
    average: AveragedModel
    optimizer: torch.optim.Optimizer
    scheduler: LambdaLR
    setup: TrainingSetup
    device: torch.device
    epoch: int = 0
    best: EpochRecord | None = None
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    records: list[EpochRecord] = field(default_factory=list)
    spent_s: float = 0.0
    saved_at: float = -math.inf
    saving_s: float = 0.0

    @property
    def compute(self) -> Compute:
        """Return the device and the precision of the training steps."""
        return Compute(self.device, self.setup.dtype)

    @property
    def lr_share(self) -> float:
        """Return the next step's share of the full lr."""
        group = self.optimizer.param_groups[0]
        return float(group["lr"] / group["initial_lr"])

    def state(self) -> TreeOfTensors:
        """Return the state as tensors and plain values.

        Random generators have no state in it: each epoch seeds them by seed and number.
        """
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "setup": self.setup.state(),
            "epoch": self.epoch,
            "best": asdict(self.best) if self.best else {},
            "best_weights": self.best_weights,
            "records": [asdict(record) for record in self.records],
            "spent_s": self.spent_s,
        }

    def resume(self, state: TreeOfTensors) -> None:
        """Restore the result of state()."""
        for part in ("network", "average", "optimizer", "scheduler"):
            vars(self)[part].load_state_dict(state[part])
        self.epoch, self.spent_s = state["epoch"], state["spent_s"]
        self.best = EpochRecord(**state["best"]) if state["best"] else None
        self.best_weights = state["best_weights"]
        self.records = [EpochRecord(**record) for record in state["records"]]


def train_thawed(
    network: nn.Module, data: TrainData, context: TrainContext
) -> tuple[Progress, str]:
    """Train the thawed part; Progress.best_weights are those with the best validation loss.

    Returns:
        The progress, and the reason why the training stopped.

    Raises:
        TrainingDiverged: a loss or a gradient is not finite; the message names epoch and step.
    """
    keep_freed_memory()
    resumed = context.checkpoint.load()
    setup = TrainingSetup.of(resumed["setup"]) if resumed else None
    progress, source = _start(network, data, context, setup)
    if resumed:
        progress.resume(resumed)
        for record in progress.records:
            context.log(record)
    else:
        context.checkpoint.save(progress.state())  # a restart could choose another setup
    while not (stopped := _stop_reason(progress, context.config)):
        began = time.monotonic()
        progress.epoch += 1
        trained = _train_epoch(progress, source, data, context)
        validated = _validate(progress, source, data)
        seconds = time.monotonic() - began
        lr = context.config.lr * progress.lr_share
        record = EpochRecord("tune", progress.epoch, *trained, *validated, lr, 0.0, seconds)
        _record_epoch(progress, record)
        _save(progress, context.checkpoint)
        context.log(record)
    return progress, stopped


def _save(progress: Progress, checkpoint: Checkpoint) -> None:
    """Save the state after an epoch, unless saving would take too much of the time."""
    began = time.monotonic()
    if began - progress.saved_at >= progress.saving_s / SAVING_SHARE:
        checkpoint.save(progress.state())
        progress.saved_at = time.monotonic()
        progress.saving_s = progress.saved_at - began


def _start(
    network: nn.Module, data: TrainData, context: TrainContext, setup: TrainingSetup | None
) -> tuple[Progress, BatchSource]:
    config = context.config
    groups = thaw(network, context.plan, config.lr, config.weight_decay)
    source = make_batch_source(network, data, context, setup)
    network = network.to(context.compute.device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(groups)
    order = _order(len(data.train), config, epoch=1)
    n_steps = config.epochs * len(order)
    scheduler = LambdaLR(optimizer, lambda step: lr_scale(step, n_steps, config.warmup_fraction))
    average = AveragedModel(
        network, multi_avg_fn=partial(_update_averages, config.ema_decay), use_buffers=True
    )
    if not setup:

        def batch() -> Tensor:
            return next(source.train(1, order[:1]))

        chosen = training_compute(source.part(network), batch, context, n_steps)
        setup = TrainingSetup(chosen.dtype, source.uncached_reason)
    return Progress(network, average, optimizer, scheduler, setup, context.compute.device), source


@torch.no_grad()
def _update_averages(decay: float, averages: list[Tensor], values: list[Tensor], _: Tensor) -> None:
    """Move the averages towards the values; equal values remain equal, bit for bit.

    torch's get_ema_multi_avg_fn also averages integers and truncates the result: the step counter
    of a frozen norm would decrease.
    """
    for average, value in zip(averages, values, strict=True):
        if average.is_floating_point():
            average.lerp_(value, 1 - decay)
        else:
            average.copy_(value)


def lr_scale(step: int, n_steps: int, warmup_fraction: float) -> float:
    """Return the share of the full lr at a step: a linear rise, then half a cosine down to 0.

    Source: Goyal et al. 2017 (warm-up); Loshchilov & Hutter 2017, eq. 5 (cosine).

    >>> [round(lr_scale(step, 11, 0.2), 2) for step in (0, 1, 2, 10)]
    [0.5, 1.0, 1.0, 0.03]
    """
    n_warmup = int(n_steps * warmup_fraction)
    if step < n_warmup:
        return (step + 1) / n_warmup
    done = (step - n_warmup) / max(1, n_steps - n_warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _order(n_photos: int, config: TuneConfig, epoch: int) -> list[list[int]]:
    """Return the epoch's order of positions in batches; no batch of size 1, because of norms."""
    positions = np.random.default_rng((config.seed, epoch)).permutation(n_photos).tolist()
    starts = range(0, n_photos, config.batch_size)
    batches = [positions[at : at + config.batch_size] for at in starts]
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [batches[-2] + batches[-1]]
    return batches


def _stop_reason(progress: Progress, config: TuneConfig) -> str:
    best_epoch = progress.best.epoch if progress.best else progress.epoch
    if progress.epoch >= config.epochs:
        return f"all {config.epochs} epochs done"
    if config.patience and progress.epoch - best_epoch >= config.patience:
        return f"no better validation loss for {config.patience} epochs"
    if config.time_budget_s and progress.spent_s >= config.time_budget_s:
        return f"time budget of {config.time_budget_s:g} s spent"
    return ""


def _train_epoch(
    progress: Progress, source: BatchSource, data: TrainData, context: TrainContext
) -> tuple[float, float]:
    """Return the mean training loss, and the accuracy on the augmented photos."""
    config, compute = context.config, progress.compute
    device = compute.device
    batches = _order(len(data.train), config, progress.epoch)
    part = source.part(progress.network)
    set_modes(progress.network, context.plan)
    losses, n_right = [], 0
    with torch.random.fork_rng(), torch.backends.cudnn.flags(enabled=True, deterministic=True):
        torch.manual_seed(config.seed * 100_003 + progress.epoch)
        inputs = source.train(progress.epoch, batches)
        name = f"epoch {progress.epoch}/{config.epochs}"
        for step, batch in enumerate(tqdm(inputs, name, len(batches), disable=None, delay=2)):
            targets = data.train_targets[batches[step]].to(device)  # (B,)
            mixed, soft_targets = _mix(batch, targets, data.n_classes, config)
            with torch.autocast(device.type, compute.dtype, _is_reduced(compute)):
                logits = part(mixed)  # (B, K)
            loss = functional.cross_entropy(
                logits.float(),
                soft_targets,
                weight=_class_weights(data, config, device),
                label_smoothing=config.label_smoothing,
            )
            _step(progress, loss, config, f"epoch {progress.epoch}, step {step + 1}")
            losses.append(loss.item() * len(targets))
            n_right += int((logits.argmax(1) == targets).sum())
    return sum(losses) / len(data.train), n_right / len(data.train)


def _mix(
    pixels: Tensor, targets: Tensor, n_classes: int, config: TuneConfig
) -> tuple[Tensor, Tensor]:
    """Apply MixUp or CutMix, whichever is enabled; one of them at random if both are."""
    mixes: list[nn.Module] = []
    if config.mixup_alpha and len(pixels) > 1:
        mixes.append(v2.MixUp(alpha=config.mixup_alpha, num_classes=n_classes))
    if config.cutmix_alpha and len(pixels) > 1:
        mixes.append(v2.CutMix(alpha=config.cutmix_alpha, num_classes=n_classes))
    if not mixes:
        return pixels, targets
    mixed: tuple[Tensor, Tensor] = v2.RandomChoice(mixes)(pixels, targets)
    return mixed


def _class_weights(data: TrainData, config: TuneConfig, device: torch.device) -> Tensor | None:
    if config.class_weights == "none":
        return None
    counts = torch.bincount(data.train_targets, minlength=data.n_classes).clamp(min=1)
    return (len(data.train_targets) / (data.n_classes * counts)).to(device)


def _step(progress: Progress, loss: Tensor, config: TuneConfig, where: str) -> None:
    progress.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    thawed = [p for group in progress.optimizer.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(thawed, config.clip_norm or math.inf)
    if not (torch.isfinite(loss) and torch.isfinite(norm)):
        raise TrainingDiverged(
            f"Expected a finite loss and gradient, got loss {loss.item():g} and gradient norm "
            f"{norm.item():g} at {where}. Lower tune.lr (now {config.lr:g}) or set tune.clip_norm."
        )
    progress.optimizer.step()
    progress.scheduler.step()
    progress.average.update_parameters(progress.network)


def _validate(progress: Progress, source: BatchSource, data: TrainData) -> tuple[float, float]:
    """Return the mean negative log-likelihood and the accuracy of the averaged weights."""
    part, compute = source.part(progress.average.module), progress.compute
    progress.average.module.eval()
    with (
        torch.inference_mode(),
        torch.autocast(compute.device.type, compute.dtype, _is_reduced(compute)),
    ):
        logits = torch.cat([part(batch).float().cpu() for batch in source.validation()])  # (N, K)
    loss = functional.cross_entropy(logits, data.validation_targets).item()
    if not math.isfinite(loss):
        raise TrainingDiverged(
            f"Expected a finite validation loss, got {loss:g} after epoch {progress.epoch}. "
            "Lower tune.lr or set tune.clip_norm."
        )
    return loss, float((logits.argmax(1) == data.validation_targets).double().mean())


def _is_reduced(compute: Compute) -> bool:
    return compute.dtype is not torch.float32


def _record_epoch(progress: Progress, record: EpochRecord) -> None:
    progress.records.append(record)
    progress.spent_s += record.seconds
    if progress.best is None or record.validation_loss < progress.best.validation_loss:
        progress.best = record
        progress.best_weights = copy.deepcopy(progress.average.module.state_dict())

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
from regraft.training.tune.arrangement import Arrangement
from regraft.training.tune.challenger import EpochRecord
from regraft.training.tune.checkpoint import Checkpoint, TreeOfTensors
from regraft.training.tune.feed import Feed, Photos, Settings, feed_of
from regraft.training.tune.precision import training_compute

SAVING_SHARE = 0.1  # of the time may go into checkpoints, where epochs are short. Guess


@dataclass
class Progress:
    """What changes while training: everything that a checkpoint must hold."""

    network: nn.Module
    average: AveragedModel
    optimizer: torch.optim.Optimizer
    scheduler: LambdaLR
    arrangement: Arrangement
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
        """Where and how precisely the steps compute."""
        return Compute(self.device, self.arrangement.dtype)

    @property
    def lr_share(self) -> float:
        """Share of the full lr that the next step has."""
        group = self.optimizer.param_groups[0]
        return float(group["lr"] / group["initial_lr"])

    def state(self) -> TreeOfTensors:
        """All of it as tensors and plain values. The dice need none: seed and epoch set them."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "arrangement": self.arrangement.state(),
            "epoch": self.epoch,
            "best": asdict(self.best) if self.best else {},
            "best_weights": self.best_weights,
            "records": [asdict(record) for record in self.records],
            "spent_s": self.spent_s,
        }

    def resume(self, state: TreeOfTensors) -> None:
        """Takes up what state() gave."""
        for part in ("network", "average", "optimizer", "scheduler"):
            vars(self)[part].load_state_dict(state[part])
        self.epoch, self.spent_s = state["epoch"], state["spent_s"]
        self.best = EpochRecord(**state["best"]) if state["best"] else None
        self.best_weights = state["best_weights"]
        self.records = [EpochRecord(**record) for record in state["records"]]


def train_thawed(network: nn.Module, photos: Photos, settings: Settings) -> tuple[Progress, str]:
    """Trains the thawed part; the best weights by validation loss are in Progress.best_weights.

    Returns:
        The progress, and why it stopped.

    Raises:
        TrainingDiverged: a loss or a gradient is not finite; names epoch and step.
    """
    keep_freed_memory()
    resumed = settings.checkpoint.load()
    kept = Arrangement.of(resumed["arrangement"]) if resumed else None
    progress, feed = _start(network, photos, settings, kept)
    if resumed:
        progress.resume(resumed)
        for record in progress.records:
            settings.log(record)
    else:
        settings.checkpoint.save(progress.state())  # another start might arrange it otherwise
    while not (stopped := _why_stop(progress, settings.config)):
        began = time.monotonic()
        progress.epoch += 1
        trained = _train_epoch(progress, feed, photos, settings)
        judged = _validate(progress, feed, photos)
        seconds = time.monotonic() - began
        lr = settings.config.lr * progress.lr_share
        record = EpochRecord("tune", progress.epoch, *trained, *judged, lr, 0.0, seconds)
        _remember(progress, record)
        _save(progress, settings.checkpoint)
        settings.log(record)
    return progress, stopped


def _save(progress: Progress, checkpoint: Checkpoint) -> None:
    """Keeps the state after an epoch, unless saving would take too much of the time."""
    began = time.monotonic()
    if began - progress.saved_at >= progress.saving_s / SAVING_SHARE:
        checkpoint.save(progress.state())
        progress.saved_at = time.monotonic()
        progress.saving_s = progress.saved_at - began


def _start(
    network: nn.Module, photos: Photos, settings: Settings, kept: Arrangement | None
) -> tuple[Progress, Feed]:
    config = settings.config
    groups = thaw(network, settings.plan, config.lr, config.weight_decay)
    feed = feed_of(network, photos, settings, kept)
    network = network.to(settings.compute.device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(groups)
    order = _order(len(photos.train), config, epoch=1)
    n_steps = config.epochs * len(order)
    scheduler = LambdaLR(optimizer, lambda step: lr_scale(step, n_steps, config.warmup_fraction))
    average = AveragedModel(
        network, multi_avg_fn=partial(_follow, config.ema_decay), use_buffers=True
    )
    if not kept:

        def batch() -> Tensor:
            return next(feed.train(1, order[:1]))

        chosen = training_compute(feed.part(network), batch, settings, n_steps)
        kept = Arrangement(chosen.dtype, feed.whole_because)
    return Progress(network, average, optimizer, scheduler, kept, settings.compute.device), feed


@torch.no_grad()
def _follow(decay: float, averages: list[Tensor], values: list[Tensor], _: Tensor) -> None:
    """Moves the averages towards the values; what is equal stays equal, bit for bit.

    torch's own get_ema_multi_avg_fn averages integers too and cuts the result: the step counter of
    a frozen norm would fall.
    """
    for average, value in zip(averages, values, strict=True):
        if average.is_floating_point():
            average.lerp_(value, 1 - decay)
        else:
            average.copy_(value)


def lr_scale(step: int, n_steps: int, warmup_fraction: float) -> float:
    """Share of the full lr at a step: a straight rise, then half a cosine down to 0.

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
    """Positions in the order of the epoch, cut into batches; no batch of one (norms need two)."""
    positions = np.random.default_rng((config.seed, epoch)).permutation(n_photos).tolist()
    starts = range(0, n_photos, config.batch_size)
    batches = [positions[at : at + config.batch_size] for at in starts]
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [batches[-2] + batches[-1]]
    return batches


def _why_stop(progress: Progress, config: TuneConfig) -> str:
    best_epoch = progress.best.epoch if progress.best else progress.epoch
    if progress.epoch >= config.epochs:
        return f"all {config.epochs} epochs done"
    if config.patience and progress.epoch - best_epoch >= config.patience:
        return f"no better validation loss for {config.patience} epochs"
    if config.time_budget_s and progress.spent_s >= config.time_budget_s:
        return f"time budget of {config.time_budget_s:g} s spent"
    return ""


def _train_epoch(
    progress: Progress, feed: Feed, photos: Photos, settings: Settings
) -> tuple[float, float]:
    """Mean training loss, and accuracy on the photos as augmented."""
    config, compute = settings.config, progress.compute
    device = compute.device
    batches = _order(len(photos.train), config, progress.epoch)
    part = feed.part(progress.network)
    set_modes(progress.network, settings.plan)
    losses, n_right = [], 0
    with torch.random.fork_rng(), torch.backends.cudnn.flags(enabled=True, deterministic=True):
        torch.manual_seed(config.seed * 100_003 + progress.epoch)
        fed = feed.train(progress.epoch, batches)
        name = f"epoch {progress.epoch}/{config.epochs}"
        for step, batch in enumerate(tqdm(fed, name, len(batches), disable=None, delay=2)):
            targets = photos.train_targets[batches[step]].to(device)  # (B,)
            mixed, soft_targets = _mix(batch, targets, photos.n_classes, config)
            with torch.autocast(device.type, compute.dtype, _is_low(compute)):
                logits = part(mixed)  # (B, K)
            loss = functional.cross_entropy(
                logits.float(),
                soft_targets,
                weight=_class_weights(photos, config, device),
                label_smoothing=config.label_smoothing,
            )
            _step(progress, loss, config, f"epoch {progress.epoch}, step {step + 1}")
            losses.append(loss.item() * len(targets))
            n_right += int((logits.argmax(1) == targets).sum())
    return sum(losses) / len(photos.train), n_right / len(photos.train)


def _mix(
    pixels: Tensor, targets: Tensor, n_classes: int, config: TuneConfig
) -> tuple[Tensor, Tensor]:
    """MixUp or CutMix, whichever is on (one of them at random if both are)."""
    mixes: list[nn.Module] = []
    if config.mixup_alpha and len(pixels) > 1:
        mixes.append(v2.MixUp(alpha=config.mixup_alpha, num_classes=n_classes))
    if config.cutmix_alpha and len(pixels) > 1:
        mixes.append(v2.CutMix(alpha=config.cutmix_alpha, num_classes=n_classes))
    if not mixes:
        return pixels, targets
    mixed: tuple[Tensor, Tensor] = v2.RandomChoice(mixes)(pixels, targets)
    return mixed


def _class_weights(photos: Photos, config: TuneConfig, device: torch.device) -> Tensor | None:
    if config.class_weights == "none":
        return None
    counts = torch.bincount(photos.train_targets, minlength=photos.n_classes).clamp(min=1)
    return (len(photos.train_targets) / (photos.n_classes * counts)).to(device)


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


def _validate(progress: Progress, feed: Feed, photos: Photos) -> tuple[float, float]:
    """Mean negative log-likelihood and accuracy of the averaged weights on validation."""
    part, compute = feed.part(progress.average.module), progress.compute
    progress.average.module.eval()
    with (
        torch.inference_mode(),
        torch.autocast(compute.device.type, compute.dtype, _is_low(compute)),
    ):
        logits = torch.cat([part(batch).float().cpu() for batch in feed.validation()])  # (N, K)
    loss = functional.cross_entropy(logits, photos.validation_targets).item()
    if not math.isfinite(loss):
        raise TrainingDiverged(
            f"Expected a finite validation loss, got {loss:g} after epoch {progress.epoch}. "
            "Lower tune.lr or set tune.clip_norm."
        )
    return loss, float((logits.argmax(1) == photos.validation_targets).double().mean())


def _is_low(compute: Compute) -> bool:
    return compute.dtype is not torch.float32


def _remember(progress: Progress, record: EpochRecord) -> None:
    progress.records.append(record)
    progress.spent_s += record.seconds
    if progress.best is None or record.validation_loss < progress.best.validation_loss:
        progress.best = record
        progress.best_weights = copy.deepcopy(progress.average.module.state_dict())

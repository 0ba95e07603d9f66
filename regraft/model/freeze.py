"""Freezing: a policy becomes a plan, the plan is applied to a network and audited afterwards."""

import hashlib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

import pandas as pd
from torch import nn

from regraft.core.config import FreezeConfig
from regraft.core.config.network import Rule
from regraft.core.errors import FreezeDrift, FreezeError
from regraft.model.backbone import Block
from regraft.model.classifier import ImageClassifier, tensor_bytes

ParameterGroup = dict[str, list[nn.Parameter] | float]


@dataclass(frozen=True)
class PlannedParameter:
    """A parameter, its block, its number of values, and its lr factor; 0 means frozen."""

    name: str
    block: str
    n_values: int
    lr_factor: float


@dataclass(frozen=True)
class FreezePlan:
    """The lr factor of every parameter of the network, input side first; 0 means frozen.

    norm_statistics: whether the statistics of thawed norms move; those of frozen norms never move.
    """

    policy: str
    parameters: tuple[PlannedParameter, ...]
    norm_statistics: Literal["still", "moving"]

    @property
    def frozen(self) -> frozenset[str]:
        """Return the names of the frozen parameters."""
        return frozenset(p.name for p in self.parameters if p.lr_factor == 0)

    @property
    def thaws_backbone(self) -> bool:
        """Return whether any parameter below the head is trained."""
        return any(p.lr_factor > 0 and p.block != "head" for p in self.parameters)

    def __str__(self) -> str:
        thawed = list(dict.fromkeys(p.block for p in self.parameters if p.lr_factor > 0))
        return (
            f"freeze: {self.policy}, {len(self.frozen)} tensors frozen, thawed: {', '.join(thawed)}"
        )

    def table(self) -> pd.DataFrame:
        """Return one row per block: block, n_values, n_frozen, lr_factor (the block's largest)."""
        rows = pd.DataFrame([vars(parameter) for parameter in self.parameters])
        rows["n_frozen"] = rows.n_values.where(rows.lr_factor == 0, 0)
        return rows.groupby("block", sort=False, as_index=False).agg(
            {"n_values": "sum", "n_frozen": "sum", "lr_factor": "max"}
        )


@dataclass(frozen=True)
class FreezeAudit:
    """The number of tensors hashed before and after training; n_drifted is always 0."""

    n_parameters: int
    n_buffers: int
    n_drifted: int
    sha256: str


def freeze(classifier: ImageClassifier, config: FreezeConfig) -> FreezePlan:
    """Return the plan of the policy for this classifier.

    Raises:
        FreezeError: a rule matches nothing, a parameter matches no rule, the head is frozen, or
            n_blocks is larger than the number of blocks.
    """
    blocks = classifier.blocks()
    owners = [(name, block.name) for block in blocks for name in block.parameters]
    rules = config.rules if config.policy == "rules" else _policy_rules(blocks[:-1], config)
    factors = _match([name for name, _ in owners], rules)
    if factors["head.weight"] == 0 or factors["head.bias"] == 0:
        raise FreezeError(
            "The rules freeze the head, so the training could learn nothing. Thaw head.*."
        )
    return FreezePlan(
        config.policy,
        tuple(
            PlannedParameter(name, block, classifier.weights[name].numel(), factors[name])
            for name, block in owners
        ),
        config.norm_statistics,
    )


def _policy_rules(blocks: tuple[Block, ...], config: FreezeConfig) -> tuple[Rule, ...]:
    n_thawed = {"probe": 0, "last_block": 1, "last_n": config.n_blocks, "all": len(blocks)}
    n = n_thawed[config.policy]
    if n > len(blocks):
        names = ", ".join(block.name for block in blocks)
        raise FreezeError(f"Expected freeze.n_blocks <= {len(blocks)} ({names}), got {n}.")
    rules: list[Rule] = [("head.*", 1.0)]
    for depth, block in enumerate(reversed(blocks)):
        factor = config.layer_decay ** (depth + 1) if depth < n else 0.0
        rules += [(name, factor) for name in block.parameters]
    return tuple(rules)


def _match(names: list[str], rules: tuple[Rule, ...]) -> dict[str, float]:
    """Return the factor of the first matching rule for every name.

    Raises:
        FreezeError: a rule matches no name, or only names of earlier rules; a name has no rule.
    """
    factors: dict[str, float] = {}
    for glob, factor in rules:
        matched = [name for name in names if fnmatchcase(name, glob)]
        if not matched:
            raise FreezeError(
                f"The rule {glob!r} matches no parameter. Example names: {names[0]}, {names[-1]}."
            )
        new = [name for name in matched if name not in factors]
        if not new:
            raise FreezeError(
                f"The rule {glob!r} has no effect: earlier rules match all its parameters "
                f"(first: {matched[0]}). Move it before them; the first match counts."
            )
        factors |= dict.fromkeys(new, factor)
    unmatched = [name for name in names if name not in factors]
    if unmatched:
        raise FreezeError(
            f"{len(unmatched)} parameters match no rule (first: {unmatched[0]}). "
            'End freeze.rules with ["*", 0] to freeze the rest.'
        )
    return factors


def thaw(
    network: nn.Module, plan: FreezePlan, lr: float, weight_decay: float
) -> list[ParameterGroup]:
    """Apply the plan to the network and return the optimizer's parameter groups.

    Frozen parameters get no gradient, frozen modules are in eval mode (see set_modes), and the
    groups hold the thawed parameters only.

    Returns:
        Parameter groups with their lr; norms and biases have no weight decay (as in timm).
    """
    factors = {p.name: p.lr_factor for p in plan.parameters}
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(factors[name] > 0)
    set_modes(network, plan)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            decay = weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((lr * factors[name], decay), []).append(parameter)
    return [{"params": ps, "lr": g[0], "weight_decay": g[1]} for g, ps in groups.items()]


def set_modes(network: nn.Module, plan: FreezePlan) -> None:
    """Set thawed modules to train mode and frozen ones to eval mode, before a training pass."""
    network.train()
    for module in _still_modules(network, plan).values():
        module.eval()


def _still_modules(network: nn.Module, plan: FreezePlan) -> dict[str, nn.Module]:
    """Return by name the modules whose buffers must not change, with their submodules.

    These are modules whose parameters are all frozen, norms with any frozen parameter, and all
    norms if the plan's norm_statistics is "still".
    """
    frozen, still = plan.frozen, dict[str, nn.Module]()
    for path, module in network.named_modules():
        prefix = f"{path}." if path else ""
        names = [f"{prefix}{name}" for name, _ in module.named_parameters()]
        own = [f"{prefix}{name}" for name, _ in module.named_parameters(recurse=False)]
        has_buffers = any(True for _ in module.buffers(recurse=False))
        is_still = plan.norm_statistics == "still" or not frozen.isdisjoint(own)
        if (names and frozen.issuperset(names)) or (has_buffers and is_still):
            still |= {f"{prefix}{name}".rstrip("."): part for name, part in module.named_modules()}
    return still


def frozen_hashes(network: nn.Module, plan: FreezePlan) -> dict[str, str]:
    """Return the sha256 of every frozen parameter and of every buffer that must not change."""
    frozen = plan.frozen
    still = _still_modules(network, plan)
    buffers = {name for name, _ in network.named_buffers() if name.rpartition(".")[0] in still}
    return {
        name: hashlib.sha256(tensor_bytes(tensor)).hexdigest()
        for name, tensor in network.state_dict().items()
        if name in frozen or name in buffers
    }


def audit(before: dict[str, str], after: dict[str, str], plan: FreezePlan) -> FreezeAudit:
    """Return the proof that no frozen tensor changed.

    Raises:
        FreezeDrift: a hash changed; the message names the first tensor.
    """
    drifted = [name for name, sha256 in before.items() if after.get(name) != sha256]
    if drifted:
        raise FreezeDrift(
            f"{len(drifted)} frozen tensors changed during training (first: {drifted[0]}). "
            "The model was not saved. Please report this with the freeze plan."
        )
    n_parameters = len(plan.frozen)
    all_hashes = hashlib.sha256("".join(sorted(after.values())).encode()).hexdigest()
    return FreezeAudit(n_parameters, len(before) - n_parameters, 0, all_hashes)

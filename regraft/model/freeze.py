"""What is frozen: the wish (a policy), the result (a plan), its application, its audit."""

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
    """A parameter, its block, how many numbers it holds, its lr factor; 0 means frozen."""

    name: str
    block: str
    n_values: int
    lr_factor: float


@dataclass(frozen=True)
class FreezePlan:
    """Every parameter of the network, frozen or its lr factor, input side first.

    norm_statistics: whether those of thawed norms move; those of frozen ones never do.
    """

    policy: str
    parameters: tuple[PlannedParameter, ...]
    norm_statistics: Literal["still", "moving"]

    @property
    def frozen(self) -> frozenset[str]:
        """The names of the frozen parameters."""
        return frozenset(p.name for p in self.parameters if p.lr_factor == 0)

    @property
    def thaws_backbone(self) -> bool:
        """Whether anything below the head is trained."""
        return any(p.lr_factor > 0 and p.block != "head" for p in self.parameters)

    def __str__(self) -> str:
        thawed = list(dict.fromkeys(p.block for p in self.parameters if p.lr_factor > 0))
        return (
            f"freeze: {self.policy}, {len(self.frozen)} tensors frozen, thawed: {', '.join(thawed)}"
        )

    def table(self) -> pd.DataFrame:
        """A row a block: block, n_values, n_frozen, lr_factor (the largest in the block)."""
        rows = pd.DataFrame([vars(parameter) for parameter in self.parameters])
        rows["n_frozen"] = rows.n_values.where(rows.lr_factor == 0, 0)
        return rows.groupby("block", sort=False, as_index=False).agg(
            {"n_values": "sum", "n_frozen": "sum", "lr_factor": "max"}
        )


@dataclass(frozen=True)
class FreezeAudit:
    """What was hashed before and after training; n_drifted is 0, or training has failed."""

    n_parameters: int
    n_buffers: int
    n_drifted: int
    sha256: str


def freeze(classifier: ImageClassifier, config: FreezeConfig) -> FreezePlan:
    """The plan that the policy means for this classifier.

    Raises:
        FreezeError: a rule that matches nothing, a parameter that no rule matches, a frozen head,
            more blocks asked for than there are.
    """
    blocks = classifier.blocks()
    owners = [(name, block.name) for block in blocks for name in block.parameters]
    rules = config.rules if config.policy == "rules" else _policy_rules(blocks[:-1], config)
    factors = _match([name for name, _ in owners], rules)
    if factors["head.weight"] == 0 or factors["head.bias"] == 0:
        raise FreezeError("The rules freeze the head, so nothing would be learned. Thaw head.*.")
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
    """The first matching rule's factor for every name; no rule idle, no name left.

    A rule whose names all went to rules before it is idle too: it would be a wish unheard.
    """
    factors: dict[str, float] = {}
    for glob, factor in rules:
        matched = [name for name in names if fnmatchcase(name, glob)]
        if not matched:
            raise FreezeError(
                f"The rule {glob!r} matches no parameter. Names look like {names[0]}, {names[-1]}."
            )
        new = [name for name in matched if name not in factors]
        if not new:
            raise FreezeError(
                f"The rule {glob!r} comes too late: earlier rules match all its parameters "
                f"(first: {matched[0]}). Put it before them, the first match wins."
            )
        factors |= dict.fromkeys(new, factor)
    left = [name for name in names if name not in factors]
    if left:
        raise FreezeError(
            f"{len(left)} parameters are matched by no rule (first: {left[0]}). "
            'End freeze.rules with ["*", 0] to freeze the rest.'
        )
    return factors


def thaw(
    network: nn.Module, plan: FreezePlan, lr: float, weight_decay: float
) -> list[ParameterGroup]:
    """Makes frozen mean frozen: no gradient, no statistics moving, not in the optimizer.

    Gradients are switched off and modes set here (set_modes), and the groups returned hold the
    thawed parameters only.

    Returns:
        Parameter groups with their lr; norms and biases decay no weight (as timm does).
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
    """Train mode for what is thawed, eval mode for what is frozen: before each pass that learns."""
    network.train()
    for module in _still_modules(network, plan).values():
        module.eval()


def _still_modules(network: nn.Module, plan: FreezePlan) -> dict[str, nn.Module]:
    """By name, the modules whose buffers may not move, their parts included.

    They are those whose parameters are all frozen, norms with any frozen parameter, and all norms
    if the plan says so.
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
    """sha256 of every frozen parameter, and of every buffer in a module that must keep still."""
    frozen = plan.frozen
    still = _still_modules(network, plan)
    buffers = {name for name, _ in network.named_buffers() if name.rpartition(".")[0] in still}
    return {
        name: hashlib.sha256(tensor_bytes(tensor)).hexdigest()
        for name, tensor in network.state_dict().items()
        if name in frozen or name in buffers
    }


def audit(before: dict[str, str], after: dict[str, str], plan: FreezePlan) -> FreezeAudit:
    """The proof that what was frozen did not move.

    Raises:
        FreezeDrift: a hash changed; names the first tensor.
    """
    drifted = [name for name, sha256 in before.items() if after.get(name) != sha256]
    if drifted:
        raise FreezeDrift(
            f"{len(drifted)} frozen tensors changed while training (first: {drifted[0]}). "
            "The model was not kept; please report this with the freeze plan."
        )
    n_parameters = len(plan.frozen)
    all_hashes = hashlib.sha256("".join(sorted(after.values())).encode()).hexdigest()
    return FreezeAudit(n_parameters, len(before) - n_parameters, 0, all_hashes)

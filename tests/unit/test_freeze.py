"""Frozen means: no gradient, no moving statistics, not in the optimizer, and audited."""

import re

import pytest
import torch
from tiny import N_COUNTED, POLICIES
from torch import nn

from regraft.core.config import FreezeConfig
from regraft.core.errors import FreezeDrift, FreezeError
from regraft.model.classifier import GraftedNetwork, tensor_bytes
from regraft.model.freeze import (
    FreezePlan,
    PlannedParameter,
    audit,
    freeze,
    frozen_hashes,
    set_modes,
    thaw,
)

BLOCKS = ["stem", "blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4", "head"]


def ruled(*rules):
    return FreezeConfig(policy="rules", rules=rules)


def factors(plan):
    """Return the lr factor of each block."""
    return dict(plan.table()[["block", "lr_factor"]].to_numpy().tolist())


def train_a_little(network, groups, plan, n_steps=3):
    """Train a few steps with a high learning rate, so that every thawed tensor changes."""
    optimizer = torch.optim.AdamW(groups)
    generator = torch.Generator().manual_seed(0)
    for _ in range(n_steps):
        set_modes(network, plan)
        optimizer.zero_grad()
        pixels = torch.randn(4, 3, 32, 32, generator=generator)
        nn.functional.cross_entropy(network(pixels), torch.tensor([0, 1, 2, 0])).backward()
        optimizer.step()


def moved(before, network):
    return {
        name
        for name, tensor in network.state_dict().items()
        if tensor_bytes(tensor) != tensor_bytes(before[name])
    }


@pytest.mark.parametrize(
    ("config", "thawed"),
    [
        (FreezeConfig(policy="probe"), {"head": 1}),
        (FreezeConfig(policy="last_block", layer_decay=0.5), {"head": 1, "blocks.4": 0.5}),
        (
            FreezeConfig(policy="last_n", n_blocks=3, layer_decay=0.5),
            {"head": 1, "blocks.4": 0.5, "blocks.3": 0.25, "blocks.2": 0.125},
        ),
        (
            FreezeConfig(policy="all", layer_decay=0.5),
            {block: 0.5 ** (len(BLOCKS) - 1 - at) for at, block in enumerate(BLOCKS)},
        ),
        (
            ruled(("head.*", 1), ("backbone.blocks.1.*", 0.1), ("*", 0)),
            {"head": 1, "blocks.1": 0.1},
        ),
    ],
    ids=lambda value: value.policy if isinstance(value, FreezeConfig) else "",
)
def test_every_policy_thaws_what_it_says(start, config, thawed):
    assert factors(freeze(start, config)) == dict.fromkeys(BLOCKS, 0.0) | thawed


def test_the_plan_holds_every_parameter_once_and_in_order(start):
    for config in POLICIES.values():
        plan = freeze(start, config)
        names = [name for name, _ in start.build().named_parameters()]
        assert [p.name for p in plan.parameters] == names


def test_the_first_matching_rule_wins(start):
    plan = freeze(start, ruled(("*.bn1.*", 0), ("head.*", 2), ("*", 0.5)))
    by_name = {p.name: p.lr_factor for p in plan.parameters}
    assert by_name["backbone.bn1.weight"] == 0
    assert by_name["head.bias"] == 2
    assert by_name["backbone.conv_stem.weight"] == 0.5


def test_the_table_is_total(start):
    plan = freeze(start, POLICIES["last_block"])
    table = plan.table()
    assert table.block.tolist() == BLOCKS
    assert table.n_values.sum() == sum(p.numel() for p in start.build().parameters())
    frozen = table.set_index("block").n_frozen
    assert (frozen["head"], frozen["blocks.4"]) == (0, 0)
    assert frozen["stem"] == table.set_index("block").n_values["stem"]
    n_frozen = len(plan.frozen)
    assert re.search(rf"\blast_block\b.*\b{n_frozen}\b.*: blocks\.4, head$", str(plan))


def test_a_rule_that_matches_nothing_is_refused(start):
    words = r"'layer4\.\*'.*\bbackbone\.conv_stem\.weight, head\.bias\b"
    with pytest.raises(FreezeError, match=words):
        freeze(start, ruled(("layer4.*", 1), ("*", 0)))


def test_a_rule_that_comes_too_late_is_refused(start):
    with pytest.raises(FreezeError, match=r"'backbone\.blocks\.4\.\*'.*\bbackbone\.blocks\.4\.0\."):
        freeze(start, ruled(("head.*", 1), ("backbone.*", 0), ("backbone.blocks.4.*", 1)))


def test_a_parameter_that_no_rule_matches_is_refused(start):
    with pytest.raises(
        FreezeError, match=r"^\d+ parameters\b.*\bbackbone\.conv_stem\.weight\b.*\[\"\*\", 0\]"
    ):
        freeze(start, ruled(("head.*", 1), ("backbone.blocks.*", 0)))


@pytest.mark.parametrize("rules", [[("*", 0)], [("head.bias", 0), ("*", 1)]])
def test_a_frozen_head_is_refused(start, rules):
    with pytest.raises(FreezeError, match=r"\bhead\.\*"):
        freeze(start, ruled(*rules))


def test_more_blocks_than_there_are_is_refused(start):
    with pytest.raises(FreezeError, match=r"\bfreeze\.n_blocks <= 6\b.*\(stem, .*\).*\b7\b"):
        freeze(start, FreezeConfig(policy="last_n", n_blocks=7))
    whole = freeze(start, FreezeConfig(policy="last_n", n_blocks=6))
    assert factors(whole) == factors(freeze(start, POLICIES["all"]))


@pytest.mark.parametrize("norm_statistics", ["still", "moving"])
@pytest.mark.parametrize("policy", ["probe", "last_block", "all"])
def test_frozen_stays_frozen_and_thawed_moves(start, policy, norm_statistics):
    config = FreezeConfig(policy=policy, norm_statistics=norm_statistics)
    network, plan = start.build(), freeze(start, config)
    before, hashes = start.weights, frozen_hashes(network, plan)
    train_a_little(network, thaw(network, plan, 0.01, 0.1), plan)
    thawed = {p.name for p in plan.parameters if p.lr_factor > 0}
    statistics = {
        name
        for name in before
        if name.endswith(("running_mean", "running_var", "num_batches_tracked"))
        and f"{name.rpartition('.')[0]}.weight" in thawed
        and norm_statistics == "moving"
    }
    assert moved(before, network) == thawed | statistics
    assert {name for name, p in network.named_parameters() if p.requires_grad} == thawed
    assert audit(hashes, frozen_hashes(network, plan), plan).n_drifted == 0


def test_frozen_norms_keep_their_statistics_bit_for_bit(start):
    config = FreezeConfig(policy="last_block", norm_statistics="moving")
    network, plan = start.build(), freeze(start, config)
    train_a_little(network, thaw(network, plan, 0.01, 0.1), plan)
    assert int(network.backbone.bn1.num_batches_tracked) == N_COUNTED
    last = network.backbone.blocks[4][0].bn3
    assert int(last.num_batches_tracked) == N_COUNTED + 3


def test_only_thawed_parameters_reach_the_optimizer_each_once(start):
    network, plan = start.build(), freeze(start, POLICIES["last_block"])
    groups = thaw(network, plan, 0.01, 0.1)
    given = [id(parameter) for group in groups for parameter in group["params"]]
    by_id = {id(parameter): name for name, parameter in network.named_parameters()}
    assert sorted(by_id[at] for at in given) == sorted(
        p.name for p in plan.parameters if p.lr_factor > 0
    )
    assert {name for name, p in network.named_parameters() if not p.requires_grad} == plan.frozen


def test_groups_have_their_blocks_learning_rate_and_norms_decay_no_weight(start):
    network = start.build()
    plan = freeze(start, FreezeConfig(policy="last_block", layer_decay=0.5))
    groups = thaw(network, plan, 0.01, 0.1)
    rates = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }
    assert rates[id(network.head.weight)] == (0.01, 0.1)
    assert rates[id(network.head.bias)] == (0.01, 0.0)
    last = network.backbone.blocks[4][0]
    assert rates[id(last.bn1.weight)] == (0.005, 0.0)
    assert rates[id(last.conv_pw.weight)] == (0.005, 0.1)


class Dropping(nn.Module):
    """A block with dropout, a norm without parameters, and a norm, in two numbered parts."""

    def __init__(self):
        super().__init__()
        self.part = nn.ModuleList(
            nn.Sequential(
                nn.Linear(4, 4), nn.Dropout(), nn.BatchNorm1d(4, affine=False), nn.BatchNorm1d(4)
            )
            for _ in range(2)
        )

    def forward(self, x):
        return self.part[1](self.part[0](x))


def dropping(*thawed):
    """Return the network and a plan that thaws only these parts."""
    network = GraftedNetwork(Dropping(), 4, 2)
    parameters = tuple(
        PlannedParameter(name, "b", 1, float(any(part in name for part in thawed)))
        for name, _ in network.named_parameters()
    )
    return network, FreezePlan("rules", parameters, "moving")


def test_dropout_and_norms_in_a_frozen_part_are_in_eval_mode():
    network, plan = dropping("part.1", "head")
    thaw(network.eval(), plan, 0.1, 0.0)
    first, second = network.backbone.part
    assert [module.training for module in first.modules()] == [False] * 5
    assert [module.training for module in second.modules()] == [True] * 5
    assert network.training


def test_a_half_frozen_norm_keeps_its_statistics_and_is_audited():
    network, plan = dropping("part.1.0", "part.1.3.bias", "head")
    hashes = frozen_hashes(network, plan)
    assert "backbone.part.1.3.running_mean" in hashes
    groups = thaw(network, plan, 0.1, 0.0)
    network(torch.randn(8, 4)).sum().backward()
    torch.optim.SGD(groups).step()
    audit(hashes, frozen_hashes(network, plan), plan)
    assert not network.backbone.part[1][3].training


def test_a_norm_without_parameters_moves_only_in_a_thawed_part():
    network, plan = dropping("part.1", "head")
    hashes = frozen_hashes(network, plan)
    assert "backbone.part.0.2.running_mean" in hashes
    assert "backbone.part.1.2.running_mean" not in hashes
    thaw(network, plan, 0.1, 0.0)
    network(torch.randn(8, 4))
    audit(hashes, frozen_hashes(network, plan), plan)
    assert bool((network.backbone.part[1][2].running_mean != 0).all())


def test_setting_the_modes_again_undoes_an_evaluation(start):
    network, plan = start.build(), freeze(start, POLICIES["last_block"])
    thaw(network, plan, 0.01, 0.1)
    before = [module.training for module in network.modules()]
    assert True in before
    assert False in before
    network.eval()
    set_modes(network, plan)
    assert [module.training for module in network.modules()] == before


@pytest.mark.parametrize(
    "name", ["backbone.conv_stem.weight", "backbone.bn1.running_var", "backbone.bn1.bias"]
)
def test_the_audit_notices_one_moved_tensor(start, name):
    network, plan = start.build(), freeze(start, POLICIES["last_block"])
    before = frozen_hashes(network, plan)
    with torch.no_grad():
        network.state_dict()[name].view(-1)[0] += 1e-6
    with pytest.raises(FreezeDrift, match=rf"\b1 frozen\b.*\b{name}\b"):
        audit(before, frozen_hashes(network, plan), plan)


def test_the_audit_notices_a_tensor_that_is_gone(start):
    plan = freeze(start, POLICIES["probe"])
    before = frozen_hashes(start.build(), plan)
    gone = next(iter(before))
    with pytest.raises(FreezeDrift, match=rf"\b1 frozen\b.*\b{gone}\b"):
        audit(before, dict(list(before.items())[1:]), plan)


def test_the_audit_counts_parameters_and_buffers(start):
    plan = freeze(start, POLICIES["probe"])
    hashes = frozen_hashes(start.build(), plan)
    checked = audit(hashes, hashes, plan)
    n_buffers = sum(1 for _ in start.build().named_buffers())
    assert (checked.n_parameters, checked.n_buffers) == (len(plan.frozen), n_buffers)

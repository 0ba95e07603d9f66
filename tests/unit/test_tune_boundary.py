"""The frozen part runs once per view, and the training has the same result."""

import copy
import logging
import shutil
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import POLICIES, SETTINGS, keep_the_tuned_phase, splits_of
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from regraft.core.config import EmbedConfig, FreezeConfig
from regraft.model.backbone import build_body
from regraft.model.classifier import GraftedNetwork
from regraft.model.embed import Compute
from regraft.model.freeze import FreezePlan, PlannedParameter, freeze, set_modes
from regraft.training.tune.batch_source import TrainContext, make_batch_source
from regraft.training.tune.boundary import cut
from regraft.training.tune.checkpoint import Checkpoint
from regraft.training.tune.precision import training_compute

pytestmark = pytest.mark.usefixtures("prepared_once")

N_TRAIN, N_VALIDATION = 18, 9
BF16 = Compute(torch.device("cpu"), torch.bfloat16)


@pytest.fixture(autouse=True)
def tuned_is_kept(monkeypatch):
    keep_the_tuned_phase(monkeypatch)


@contextmanager
def photos_seen():
    """Return the sizes of the batches of real photos in any first convolution."""
    seen = []

    def count(module, inputs, output):
        if isinstance(module, nn.Conv2d) and module.in_channels == 3 and len(inputs[0]) > 1:
            seen.append(len(inputs[0]))

    hook = register_module_forward_hook(count)
    try:
        yield seen
    finally:
        hook.remove()


def settings(**changes):
    return SETTINGS.model_copy(update=changes)


def train(start, splits, store=None, policy="last_block", **changes):
    """Solve the head before: its rows are in the store when counting starts."""
    from regraft.training.tune import fine_tune

    place = EmbedConfig(store_url=str(store)) if store else EmbedConfig()
    plan = freeze(start, POLICIES[policy])
    return fine_tune(start, plan, splits, settings(**changes), lambda record: None, place)


def photos_of_splits(start, splits):
    return sys.modules["regraft.training.tune.fine_tune"]._train_data(start, splits)


def curves(challenger):
    return challenger.history.drop(columns="seconds")


@pytest.fixture(scope="module")
def cached(start, splits):
    """A training in fp32 with as many cached views as epochs; read-only."""
    with pytest.MonkeyPatch.context() as patch:
        keep_the_tuned_phase(patch)
        return train(start, splits, cached_views=2, epochs=2)


@pytest.fixture(scope="module")
def probed(start, splits, tmp_path_factory):
    """A store with the head's embeddings only; to be copied."""
    store = tmp_path_factory.mktemp("probed")
    train(start, splits, store, policy="probe")
    return store


@pytest.fixture
def store(probed, tmp_path):
    return shutil.copytree(probed, tmp_path / "store")


@pytest.fixture(scope="module")
def twice_viewed(start, splits, probed, tmp_path_factory):
    """A store after three epochs with two views, and the number of computed photos."""
    store = shutil.copytree(probed, tmp_path_factory.mktemp("viewed") / "store")
    with photos_seen() as seen, pytest.MonkeyPatch.context() as patch:
        keep_the_tuned_phase(patch)
        train(start, splits, store, cached_views=2, epochs=3)
    return SimpleNamespace(store=store, n_seen=sum(seen))


def test_training_from_cached_values_is_training_from_pixels(start, splits, cached):
    """In fp32, with as many views as epochs, the cache loses nothing."""
    whole = train(start, splits, cached_views=0, epochs=2)
    for column in ("train_loss", "validation_loss"):
        torch.testing.assert_close(
            *(torch.tensor(curves(c)[column].to_numpy()) for c in (cached, whole)),
            atol=1e-3,
            rtol=1e-3,
        )
    for name, tensor in whole.classifier.weights.items():
        torch.testing.assert_close(cached.classifier.weights[name], tensor, atol=2e-2, rtol=2e-2)


def test_in_bf16_cached_values_change_what_rounding_does(start, splits, cached):
    """The frozen part in bf16 and folded, compared with fp32."""
    rounded = train(start, splits, cached_views=2, epochs=2, precision="bf16")
    check_rounding(rounded, cached)
    assert not np.array_equal(
        rounded.history.train_loss, cached.history.train_loss
    )  # bf16 was used


@pytest.mark.slow
def test_in_bf16_cached_values_change_what_rounding_does_to_the_network_itself(start, splits):
    """The same, compared with the whole network under autocast."""
    check_rounding(
        *(train(start, splits, cached_views=n, epochs=3, precision="bf16") for n in (3, 0))
    )


def check_rounding(one, other):
    for column in ("train_loss", "validation_loss"):
        assert np.abs(one.history[column] - other.history[column]).max() < 0.05


def test_the_frozen_part_sees_each_view_once(twice_viewed):
    assert twice_viewed.n_seen == 2 * N_TRAIN + N_VALIDATION


def test_another_training_on_the_same_photos_computes_nothing(start, splits, twice_viewed):
    with photos_seen() as seen:
        train(start, splits, twice_viewed.store, cached_views=2, epochs=4, lr=1e-3)
    assert not sum(seen)


def test_without_augmentation_there_is_one_view(start, splits, store):
    with photos_seen() as seen:
        train(start, splits, store, augment="none", epochs=3)
    assert sum(seen) == N_TRAIN + N_VALIDATION


def test_more_photos_cost_their_own_views_only(start, splits, tmp_path):
    frame = splits.frame
    fewer = splits_of(frame.drop(frame[frame.split == "train"].index[:4]))
    train(start, fewer, tmp_path, cached_views=1, epochs=1)
    with photos_seen() as seen:
        train(start, splits, tmp_path, cached_views=1, epochs=1)
    assert sum(seen) == 4 * (1 + 1)  # for each photo the head's embedding and one view


def test_the_store_changes_no_weight(start, splits, cached, tmp_path):
    filled, read = (
        train(start, splits, tmp_path, cached_views=2, epochs=2).classifier for _ in range(2)
    )
    assert filled.content_hash == cached.classifier.content_hash
    assert read.content_hash == cached.classifier.content_hash


UNCACHED = [
    ("last_block", {"mixup_alpha": 0.4}, 1.0, "pixels"),
    ("all", {}, 1.0, "cannot be cut"),
    ("last_block", {}, 1e-9, "embed.max_gb"),
]


@pytest.mark.parametrize(("policy", "changes", "max_gb", "why"), UNCACHED)
def test_the_reason_against_caching_is_stated(
    start, splits, tmp_path, policy, changes, max_gb, why
):
    plan = freeze(start, POLICIES[policy])
    store = EmbedConfig(store_url=str(tmp_path), max_gb=max_gb)
    compute, nowhere = Compute(torch.device("cpu"), torch.float32), Checkpoint("", "")
    given = TrainContext(plan, settings(**changes), compute, nowhere, print, store)
    network = start.build()
    set_modes(network, plan)
    assert why in make_batch_source(network, photos_of_splits(start, splits), given).uncached_reason


@pytest.mark.parametrize(
    ("policy", "changes", "max_gb", "why"),
    [UNCACHED[0], *(pytest.param(*case, marks=pytest.mark.slow) for case in UNCACHED[1:])],
)
def test_without_caching_the_frozen_part_runs_each_epoch_and_the_reason_is_logged(
    start, splits, tmp_path, caplog, policy, changes, max_gb, why
):
    from regraft.training.tune import fine_tune

    plan = freeze(start, POLICIES[policy])
    store = EmbedConfig(store_url=str(tmp_path), max_gb=max_gb)
    with caplog.at_level(logging.INFO, "regraft.fine_tune"), photos_seen() as seen:
        config = settings(epochs=2, **changes)
        challenger = fine_tune(start, plan, splits, config, lambda record: None, store)
    assert why in caplog.text
    assert why in challenger.trained_as
    assert sum(seen) >= 2 * (N_TRAIN + N_VALIDATION)


def network_of(architecture, n_classes=3):
    body = build_body(architecture)
    network = GraftedNetwork(body.module, body.embedding_dim, n_classes)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network


def plan_of(network, thawed):
    planned = [
        PlannedParameter(name, thawed[0], p.numel(), float(name.startswith(thawed)))
        for name, p in network.named_parameters()
    ]
    return FreezePlan("rules", tuple(planned), "still")


@pytest.mark.parametrize(
    ("architecture", "thawed", "side"),
    [
        (
            "timm:test_efficientnet",
            ("backbone.blocks.4", "backbone.conv_head", "backbone.bn2", "head"),
            64,
        ),
        ("timm:test_resnet", ("backbone.layer4", "head"), 64),
        (
            "timm:test_vit3",
            ("backbone.blocks.8", "backbone.attn", "backbone.norm", "backbone.fc_norm", "head"),
            160,
        ),
        pytest.param(
            *("torchvision:resnet18", ("backbone.layer4", "head"), 64), marks=pytest.mark.slow
        ),
        pytest.param(
            *("timm:vit_tiny_patch16_224", ("backbone.blocks.11", "backbone.norm", "head"), 224),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_two_parts_in_a_row_are_the_network(architecture, thawed, side):
    network = network_of(architecture)
    plan = plan_of(network, thawed)
    set_modes(network, plan)
    found = cut(network, plan)
    assert found is not None
    network.eval()
    photos = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(found.tail(found.frozen(photos)), network(photos))
    thawed_weights = {name for name, p in found.tail.named_parameters()}
    assert thawed_weights == {p.name for p in plan.parameters if p.lr_factor}


def test_a_step_on_the_tail_moves_the_network_itself(start):
    network = start.build()
    plan = freeze(start, POLICIES["last_block"])
    found = cut(network, plan)
    weight = network.backbone.blocks[4][0].conv_pw.weight
    before = weight.detach().clone()
    nn.init.ones_(network.head.weight)
    found.tail(found.frozen(torch.randn(2, 3, 32, 32))).sum().backward()
    torch.optim.SGD(found.tail.parameters(), 1.0).step()
    assert not torch.equal(weight, before)


class Dropping(nn.Module):
    def __init__(self, share):
        super().__init__()
        self.stem, self.drop = nn.Conv2d(3, 4, 3), nn.Dropout(share)
        self.middle, self.head = nn.Conv2d(4, 4, 3), nn.Linear(4, 2)

    def forward(self, pixels):
        return self.head(self.middle(self.drop(self.stem(pixels))).mean((2, 3)))


class Sized(nn.Module):
    """Reads a size of a frozen value below and above the cut, as the attention of levit does."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, pixels):
        values = self.stem(pixels)  # (B, 4, S, S)
        n_photos, n_channels, _, _ = values.shape
        means = values.reshape(n_photos, n_channels, -1).mean(2)  # (B, 4)
        return self.head(means).reshape(n_photos, 2)


def test_a_size_that_is_needed_on_both_sides_of_the_cut_is_computed_on_both():
    network = Sized()
    found = cut(network, plan_of(network, ("head",)))
    photos = torch.randn(2, 3, 8, 8)
    assert torch.equal(found.tail(found.frozen(photos)), network(photos))
    assert found.frozen(photos).shape == (2, 4, 6, 6)


def test_random_values_are_not_cached():
    """Only where it is active: not with a rate of 0, and not in a frozen block (eval mode)."""
    for share, trains, expected in ((0.5, True, 1), (0.0, True, 2), (0.5, False, 2)):
        network = Dropping(share)
        network.drop.train(trains)
        found = cut(network, plan_of(network, ("head",)))
        frozen = [m for m in found.frozen.modules() if isinstance(m, nn.Conv2d)]
        assert len(frozen) == expected


def test_a_norm_without_parameters_whose_statistics_move_is_not_cached():
    network = Dropping(0.0)
    network.drop = nn.BatchNorm2d(4, affine=False)
    plan = plan_of(network, ("head",))
    moving = FreezePlan("rules", plan.parameters, "moving")
    counts = [
        sum(isinstance(m, nn.Conv2d) for m in cut(network, one).frozen.modules())
        for one in (plan, moving)
    ]
    assert counts == [2, 1]


def context_of(start, config):
    plan = freeze(start, FreezeConfig(policy="last_block"))
    return TrainContext(plan, config, BF16, Checkpoint("", ""), print, EmbedConfig())


def unasked():
    pytest.fail("a batch was made for no trial")


def test_precision_is_tried_only_where_it_may_be_chosen_and_pays(start):
    network, batch = start.build(), torch.randn(8, 3, 32, 32)
    before = copy.deepcopy(network.state_dict())
    auto, pinned = (settings(precision=precision_setting) for precision_setting in ("auto", "bf16"))
    assert training_compute(network, unasked, context_of(start, auto), 49) == BF16
    assert training_compute(network, unasked, context_of(start, pinned), 1000) == BF16
    tried = training_compute(network, lambda: batch, context_of(start, auto), 1000)
    assert tried.dtype in (torch.float32, torch.bfloat16)
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())


def test_bf16_that_is_not_faster_is_not_used(start):
    """Independent of the machine: the test makes the backward pass slow."""

    class Slow(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 2)

        def forward(self, values):
            if torch.is_autocast_enabled("cpu"):
                for _ in range(50):
                    values = values + 0 * torch.randn(100_000).sum()
            return self.head(values)

    chosen = training_compute(
        Slow(), lambda: torch.randn(8, 4), context_of(start, settings(precision="auto")), 99
    )
    assert chosen.dtype is torch.float32

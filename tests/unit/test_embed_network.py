"""A network prepared for inference has the same outputs and is faster."""

import sys

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from regraft.model.backbone import build_body
from regraft.model.classifier import tensors_hash
from regraft.model.embed import Compute, prepared

CPU = torch.device("cpu")
FP32, BF16 = Compute(CPU, torch.float32), Compute(CPU, torch.bfloat16)
SIDE = 160  # pixels; not one of CHECKED_SIDES
SMALL = 64  # for networks that take any size


def lived(network: nn.Module) -> nn.Module:
    """Return the network with norms as after a training; new norms are identities."""
    generator = torch.Generator().manual_seed(0)
    for norm in norms(network):
        norm.running_mean.normal_(0, 0.3, generator=generator)
        norm.running_var.uniform_(0.5, 2, generator=generator)
        if norm.affine:
            norm.weight.data.uniform_(0.5, 1.5, generator=generator)
            norm.bias.data.normal_(0, 0.3, generator=generator)
    return network.eval()


def norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [
        module
        for module in network.modules()
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None
    ]


def answers(network: nn.Module, side: int = SIDE, compute: Compute = FP32) -> torch.Tensor:
    photos = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return network(photos.to(compute.dtype)).float()


def assert_same(one: torch.Tensor, other: torch.Tensor):
    assert (one - other).abs().max() <= 1e-5 * other.abs().max()


class TwoWays(nn.Module):
    """Its control flow depends on the photo."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, photos):
        normed = self.norm(self.conv(photos))
        return normed.mean((2, 3)) if normed.mean() > 0 else normed.amax((2, 3))


class Twice(nn.Module):
    """One convolution with two norms, and one whose output is read besides its norm."""

    def __init__(self):
        super().__init__()
        self.conv, self.other = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(3))

    def forward(self, photos):
        once = self.norms[0](self.conv(photos))
        twice = self.norms[1](self.conv(once))
        plain = self.other(twice)
        return (plain + self.norms[2](plain)).mean((2, 3))


class Standardised(nn.Conv2d):
    """It computes its weight in forward(), so a norm cannot be folded into it."""

    def forward(self, photos):
        return self._conv_forward(photos, self.weight / self.weight.std(), self.bias)


def chain(conv: nn.Module, norm: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(conv, norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


FOLDED = {
    "timm:test_efficientnet": lambda: build_body("timm:test_efficientnet").module,
    "timm:test_resnet": lambda: build_body("timm:test_resnet").module,
    "timm:resnet10t": lambda: build_body("timm:resnet10t").module,
    "torchvision:resnet18": lambda: build_body("torchvision:resnet18").module,
    "no bias, no scale": lambda: chain(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, affine=False)
    ),
    "in groups": lambda: chain(nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6)),
    "with an activation": lambda: chain(nn.Conv2d(3, 4, 3), BatchNormAct2d(4)),
}
LARGE = ("timm:resnet10t", "torchvision:resnet18")
LEFT = {
    "no norms": lambda: build_body("timm:test_convnext").module,
    "a transformer": lambda: build_body("timm:test_vit").module,
    "untraceable": TwoWays,
    "used twice": Twice,
    "changes its weight": lambda: chain(Standardised(3, 4, 3), nn.BatchNorm2d(4)),
    "statistics of the batch": lambda: chain(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)
    ),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in FOLDED],
)
def test_norms_are_folded_and_the_answers_stay(name):
    torch.manual_seed(0)
    network = lived(FOLDED[name]())
    folded = prepared(network, FP32)
    assert norms(network)
    assert not norms(folded)
    assert_same(answers(folded, SMALL), answers(network, SMALL))


@pytest.mark.parametrize("name", LEFT)
def test_what_cannot_be_folded_answers_as_before(name):
    torch.manual_seed(0)
    network = lived(LEFT[name]())
    same = prepared(network, FP32)
    assert len(norms(same)) == len(norms(network))
    assert_same(answers(same), answers(network))


def test_what_can_be_folded_is_folded_beside_what_cannot():
    torch.manual_seed(0)
    network = lived(nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), Twice()))
    folded = prepared(network, FP32)
    assert (len(norms(network)), len(norms(folded))) == (4, 3)
    assert_same(answers(folded), answers(network))


def test_a_network_that_takes_one_size_only_is_folded_too():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3, 8), nn.BatchNorm2d(4)
            self.place = nn.Parameter(torch.randn(1, 4, 28, 28))

        def forward(self, photos):
            return (self.norm(self.conv(photos)) * self.place).mean((2, 3))

    network = lived(Fixed())
    folded = prepared(network, FP32)
    assert not norms(folded)
    assert_same(answers(folded, 224), answers(network, 224))


def test_a_network_whose_size_is_not_known_is_left_as_it_is(capfd):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
            self.line = nn.Linear(4 * 30 * 30, 5)

        def forward(self, photos):
            return self.line(self.norm(self.conv(photos)).flatten(1))

    network = lived(Odd())
    same = prepared(network, FP32)
    assert len(norms(same)) == 1
    assert_same(answers(same, 32), answers(network, 32))
    assert capfd.readouterr().err == ""


def test_a_network_that_is_training_is_prepared_for_answering():
    network = lived(FOLDED["timm:test_efficientnet"]())
    expected = answers(network, SMALL)
    assert_same(answers(prepared(network.train(), FP32), SMALL), expected)


@pytest.mark.parametrize("compute", [FP32, BF16], ids=str)
def test_the_given_network_is_not_changed(compute):
    network = lived(FOLDED["timm:test_efficientnet"]()).train()
    before, names = tensors_hash(network.state_dict()), [n for n, _ in network.named_modules()]
    made = prepared(network, compute)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.zero_()
    assert tensors_hash(network.state_dict()) == before
    assert [name for name, _ in network.named_modules()] == names
    assert network.training


@pytest.mark.parametrize(
    "name",
    ["timm:test_efficientnet", pytest.param("timm:resnet10t", marks=pytest.mark.slow)],
)
def test_folded_bf16_is_no_further_from_fp32_than_plain_bf16(name):
    torch.manual_seed(0)
    network = lived(FOLDED[name]())
    exact = answers(network, SMALL)
    folded = (answers(prepared(network, BF16), SMALL, BF16) - exact).norm()
    plain = (answers(network.bfloat16(), SMALL, BF16) - exact).norm()
    assert folded <= 1.1 * plain


def test_a_convolution_whose_weight_is_computed_is_not_folded():
    network = nn.Sequential(spectral_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4)).eval()
    assert_same(answers(prepared(network, FP32)), answers(network))


@pytest.mark.parametrize(
    ("largest", "set_by_the_user", "expected"),
    [
        (2**31, False, [(-3, 2**31 - 1), (-1, 2**31 - 1)]),
        (2**26, False, [(-3, 2**31 - 1), (-3, 2**25), (-1, 2**31 - 1)]),
        (0, False, [(-3, 2**31 - 1), (-3, 2**25)]),
        (2**31, True, []),
    ],
    ids=["new", "old", "refuses", "set by the user"],
)
def test_freed_memory_is_reused_as_far_as_this_glibc_can(
    monkeypatch, largest, set_by_the_user, expected
):
    """If glibc refuses the first option, the second must not be set."""
    asked = []

    class Allocator:
        def mallopt(self, option, size):
            asked.append((option, size))
            return int(option == -1 or size <= largest)

    room = sys.modules["regraft.model.embed.compute"]
    monkeypatch.setattr(room.platform, "libc_ver", lambda: ("glibc", "2.31"))
    monkeypatch.setattr(room.ctypes, "CDLL", lambda _: Allocator())
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    if set_by_the_user:
        monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1")
    room.keep_freed_memory.__wrapped__()
    assert asked == expected

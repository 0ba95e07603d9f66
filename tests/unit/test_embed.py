"""Embeddings: one pass over exactly the photos given, in order, on a stated device."""

import pytest
import torch

from regraft import embed as room
from regraft.config import TuneConfig
from regraft.errors import ConfigError

FP32 = room.Compute(torch.device("cpu"), torch.float32)
BF16 = room.Compute(torch.device("cpu"), torch.bfloat16)


@pytest.fixture
def paths(splits):
    return splits.frame.path.tolist()[:7]


@pytest.fixture(scope="module")
def trained_like(start):
    """The tiny classifier with a head that says something."""
    generator = torch.Generator().manual_seed(0)
    head = {
        "head.weight": torch.randn(3, 256, generator=generator),
        "head.bias": torch.randn(3, generator=generator),
    }
    return type(start)(start.card, start.weights | head)


def test_a_pass_is_over_exactly_the_photos_and_in_order(start, paths, monkeypatch):
    monkeypatch.setattr(room, "BATCH_SIZE", 3)
    together = room.embed(start, paths, FP32)
    assert together.shape == (7, 256)
    backwards = room.embed(start, paths[::-1], FP32)
    torch.testing.assert_close(together.flip(0), backwards, atol=1e-5, rtol=1e-5)
    assert torch.cdist(together, together).fill_diagonal_(9).min() > 1e-3  # all seven differ


def test_the_batch_size_changes_no_logit(trained_like, paths, monkeypatch):
    whole = room.logits(trained_like, paths)
    monkeypatch.setattr(room, "BATCH_SIZE", 2)
    torch.testing.assert_close(room.logits(trained_like, paths), whole, atol=1e-5, rtol=1e-5)


def test_no_photo_gives_no_row(start):
    assert room.embed(start, [], FP32).shape == (0, 0)


def test_judging_is_done_in_fp32(start, paths, monkeypatch):
    assert room.judging_compute().dtype == torch.float32
    assert room.logits(start, paths).dtype == torch.float32


def test_bf16_is_near_fp32_and_comes_back_as_float32(start, paths):
    exact, rough = (room.embed(start, paths, compute) for compute in (FP32, BF16))
    assert rough.dtype == torch.float32
    assert not torch.equal(exact, rough)
    assert ((exact - rough).norm(dim=1) / exact.norm(dim=1)).max() < 0.05


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        ({}, torch.float32),
        ({"avx512_bf16": False, "amx_bf16": False}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
    ],
)
def test_bf16_is_chosen_only_where_the_processor_has_it(monkeypatch, capabilities, dtype):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert room.choose_compute(TuneConfig()) == room.Compute(torch.device("cpu"), dtype)


@pytest.mark.parametrize(("has_bf16", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_on_a_gpu_bf16_is_chosen_only_where_it_has_it(monkeypatch, has_bf16, dtype):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: has_bf16)
    assert room.choose_compute(TuneConfig()) == room.Compute(torch.device("cuda"), dtype)
    assert room.choose_compute(TuneConfig(device="cpu")).device.type == "cpu"


def test_a_stated_precision_is_taken_at_its_word(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert room.choose_compute(TuneConfig(precision="bf16")).dtype == torch.bfloat16
    assert room.choose_compute(TuneConfig(precision="fp32")).dtype == torch.float32


def test_cuda_without_a_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"torch sees no GPU here\. Use auto or cpu"):
        room.choose_compute(TuneConfig(device="cuda"))


def test_probabilities_are_softmax_of_the_cooled_scores():
    scores = torch.tensor([[0.0, 2.0], [1.0, 1.0]])
    probs = room.probabilities(scores, 2.0)
    assert probs[0].tolist() == pytest.approx([0.268941, 0.731059], abs=1e-6)
    assert probs.sum(1).tolist() == [1, 1]

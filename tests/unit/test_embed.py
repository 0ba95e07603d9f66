"""Embeddings: one pass over exactly the given photos, in order, on the given device."""

import pytest
import torch

from regraft.core.config import TuneConfig
from regraft.core.errors import ConfigError, UnusablePhoto
from regraft.model import embed as room
from regraft.model.embed import NO_STORE, embedding
from regraft.model.pixels import Photo, normalise, photo_batches, photos_of, stacked

pytestmark = pytest.mark.usefixtures("prepared_once")
FP32 = room.Compute(torch.device("cpu"), torch.float32)
BF16 = room.Compute(torch.device("cpu"), torch.bfloat16)


@pytest.fixture
def photos(splits):
    return photos_of(splits.frame)[:7]


@pytest.fixture
def batches_of(monkeypatch):
    """Return a function that sets the batch size of the network."""
    return lambda size: monkeypatch.setattr(embedding, "BATCH_SIZE", size)


@pytest.fixture(scope="module")
def trained_like(start):
    """The tiny classifier with a head that is not zero."""
    generator = torch.Generator().manual_seed(0)
    head = {
        "head.weight": torch.randn(3, 256, generator=generator),
        "head.bias": torch.randn(3, generator=generator),
    }
    return type(start)(start.card, start.weights | head)


def test_a_pass_is_over_exactly_the_photos_and_in_order(start, photos, batches_of):
    batches_of(3)
    together = room.embed(start, photos, FP32, NO_STORE).all()
    assert together.shape == (7, 256)
    backwards = room.embed(start, photos[::-1], FP32, NO_STORE).all()
    torch.testing.assert_close(together.flip(0), backwards, atol=1e-5, rtol=1e-5)
    assert torch.cdist(together, together).fill_diagonal_(9).min() > 1e-3  # all seven differ


def test_a_photo_that_is_named_twice_has_a_row_each_time(start, photos):
    rows = room.embed(start, [photos[0], photos[1], photos[0]], FP32, NO_STORE).all()
    assert torch.equal(rows[0], rows[2])
    assert not torch.equal(rows[0], rows[1])


def test_the_batch_size_changes_no_logit(trained_like, photos, batches_of):
    whole = room.logits(trained_like, photos, NO_STORE)
    batches_of(2)
    again = room.logits(trained_like, photos, NO_STORE)
    torch.testing.assert_close(again, whole, atol=1e-5, rtol=1e-5)


def test_logits_are_those_of_the_whole_network(trained_like, photos):
    load_spec = room.spec_for(trained_like, FP32).load_spec
    [loaded] = photo_batches(photos, [list(range(7))], load_spec)
    with torch.inference_mode():
        expected = trained_like.build()(normalise(stacked(loaded), load_spec.preprocessing))
    found = room.logits(trained_like, photos, NO_STORE)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_no_photo_gives_no_row(trained_like):
    assert room.embed(trained_like, [], FP32, NO_STORE).all().shape == (0, 0)
    assert room.logits(trained_like, [], NO_STORE).shape == (0, 3)


def test_judging_is_done_in_fp32(start, photos):
    assert room.judging_compute().dtype == torch.float32
    assert room.logits(start, photos, NO_STORE).dtype == torch.float32


def test_bf16_is_near_fp32_and_stays_bf16(start, photos):
    exact, rough = (room.embed(start, photos, one, NO_STORE).all() for one in (FP32, BF16))
    assert rough.dtype == torch.bfloat16
    rough = rough.float()
    assert not torch.equal(exact, rough)
    assert ((exact - rough).norm(dim=1) / exact.norm(dim=1)).max() < 0.05


def test_an_unreadable_photo_raises_or_is_returned_as_an_error(start, photos, tmp_path):
    broken = Photo(str(tmp_path / "gone.png"), "0" * 64)
    with pytest.raises(UnusablePhoto, match=r"^missing: .*/gone\.png"):
        room.embed(start, [*photos, broken], FP32, NO_STORE)
    found = room.try_embeddings_for(
        room.spec_for(start, FP32), [photos[0], broken, photos[1]], NO_STORE
    )
    assert torch.equal(found.rows.all(), room.embed(start, photos[:2], FP32, NO_STORE).all())
    assert list(found.refused) == [broken.sha256]


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


def test_a_configured_precision_is_used(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert room.choose_compute(TuneConfig(precision="bf16")).dtype == torch.bfloat16
    assert room.choose_compute(TuneConfig(precision="fp32")).dtype == torch.float32


def test_cuda_without_a_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"\btune\.device\b.*\bcuda\b.*\bauto\b.*\bcpu\b"):
        room.choose_compute(TuneConfig(device="cuda"))


def test_probabilities_are_softmax_of_the_cooled_scores():
    scores = torch.tensor([[0.0, 2.0], [1.0, 1.0]])
    probs = room.probabilities(scores, 2.0)
    assert probs[0].tolist() == pytest.approx([0.268941, 0.731059], abs=1e-6)
    assert probs.sum(1).tolist() == [1, 1]

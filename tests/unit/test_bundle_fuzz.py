"""A damaged or hostile bundle loads, or is refused by an error of Regraft; nothing in it runs."""

import json
import os
import resource
import struct

import numpy as np
import pytest
import torch
from tiny import CLASSES

from regraft.core.errors import WeightsError
from regraft.model.card import CARD_FILE
from regraft.model.classifier import WEIGHTS_FILE, load_classifier

SEED, N_BUNDLES = 25, 100
MORE_MEMORY = 2**30  # bytes that all loads together may need; a bundle has less than 2 MB
HOSTILE = (
    *(0, -1, 1e308, -0.0, 10**30, float("nan"), float("inf"), True, None, "", "x", "\u0000"),
    *([], {}, [[]], ["a", "a"], [""], {"a": {}}, "timm:nothing", "torchvision:resnet18"),
)


class MakesAFolder:
    """A pickle with a call in it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def places(value, path=()):
    """Paths of all keys of nested JSON."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in list(items):
        yield (*path, key)
        if isinstance(item, dict | list):
            yield from places(item, (*path, key))


def change_json(value, random):
    """Replace, remove or add one value at a random place."""
    *path, last = random.choice(np.array([*places(value), None], object)[:-1])
    for key in path:
        value = value[key]
    match random.integers(4):
        case 0:
            del value[last]
        case 1 if isinstance(value, dict):
            value[f"{last}x"] = value[last]
        case _:
            value[last] = HOSTILE[random.integers(len(HOSTILE))]


def mutated_card(data, random, mark):
    card = json.loads(data)
    change_json(card, random)
    return json.dumps(card).encode()


def mutated_header(data, random, mark):
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    name = random.choice(sorted(header))
    entry = header[name]
    match random.integers(6):
        case 0:
            kinds = ("F16", "BF16", "I32", "U8", "F8_E4M3", "F8_E8M0", "F4", "C64", "BOOL", "X")
            entry["dtype"] = random.choice(kinds)
        case 1:
            shapes = ([], [0], [2**62, 4], [-1], [1.5], "x", entry["shape"][::-1])
            entry["shape"] = shapes[random.integers(len(shapes))]
        case 2:
            offsets = ([0, 2**63], [8, 0], [0, len(data)], [-4, 0], header[min(header)])
            entry["data_offsets"] = offsets[random.integers(len(offsets))]
        case 3:
            header[f"{name}.x"] = header.pop(name)
        case 4:
            header["__metadata__"] = HOSTILE[random.integers(len(HOSTILE))]
        case _:
            change_json(header, random)
    new = json.dumps(header).encode()
    return struct.pack("<Q", len(new)) + new + data[8 + size :]


def flipped(data, random, mark):
    """Bits of the first bytes flipped: of the card, or of the weights' header."""
    bytes_ = bytearray(data)
    for at in random.integers(min(len(data), 4000), size=random.integers(1, 4)):
        bytes_[at] ^= 1 << random.integers(8)
    return bytes(bytes_)


def cut_off(data, random, mark):
    return data[: random.integers(len(data)) if random.integers(3) else 0]


def another_length(data, random, mark):
    length = (0, 1, 2**31, 2**63, 2**64 - 1, len(data))[random.integers(6)]
    return struct.pack("<Q", length) + data[8:]


def nested(data, random, mark):
    return b'{"classes":' + b"[" * 100_000


def pickled(data, random, mark):
    path = mark.with_name("pickle")
    torch.save({"head.weight": MakesAFolder(mark)}, path)
    return path.read_bytes()


MUTATIONS = (
    *((CARD_FILE, change) for change in (mutated_card, mutated_card, flipped, cut_off, nested)),
    *((WEIGHTS_FILE, change) for change in (mutated_header, mutated_header, mutated_header)),
    *((WEIGHTS_FILE, change) for change in (flipped, cut_off, another_length, pickled)),
)


@pytest.fixture
def bounded_memory():
    """The process can get no more than MORE_MEMORY; more is another exception."""
    with open("/proc/self/status") as status:
        [line] = [line for line in status if line.startswith("VmData")]
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    used = int(line.split()[1]) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (used + MORE_MEMORY, hard))
    yield
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


@pytest.mark.slow
@pytest.mark.usefixtures("bounded_memory")
def test_a_mutated_bundle_predicts_or_is_refused_and_nothing_in_it_runs(start, tmp_path):
    random = np.random.default_rng(SEED)
    folder, mark = tmp_path / "bundle", tmp_path / "it ran"
    start.save(folder)
    whole = {name: (folder / name).read_bytes() for name in (CARD_FILE, WEIGHTS_FILE)}
    refused = []
    for number in range(N_BUNDLES):
        file, mutate = MUTATIONS[number % len(MUTATIONS)]
        for name, data in whole.items():
            data = mutate(data, random, mark) if name == file else data
            (folder / name).write_bytes(data)
        try:
            loaded = load_classifier(folder)
        except WeightsError as error:
            refused.append(str(error))
            continue
        with torch.inference_mode():
            logits = loaded.build()(torch.zeros(1, 3, 32, 32)) / loaded.card.temperature
        assert logits.shape == (1, len(loaded.card.classes))
        assert len(loaded.card.classes) == len(CLASSES)
        assert bool(logits.isfinite().all()), (number, mutate.__name__)
    assert N_BUNDLES / 2 < len(refused) < N_BUNDLES
    assert all(str(folder) in text for text in refused)
    assert not mark.exists()
    torch.load(mark.with_name("pickle"), weights_only=False)  # proof that the file is malicious
    assert mark.exists()

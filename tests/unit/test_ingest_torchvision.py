"""Promises about torchvision's data sets, which are written as PNG files."""

import gzip
from urllib.error import URLError

import numpy as np
import pytest
import torchvision

from regraft.core.config import IngestConfig
from regraft.core.errors import ConfigError, NoPhotos
from regraft.data.ingest import arrays, fingerprint, ingest, read_photo

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torchvision")


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.tobytes()


def fashion_files(n_train=12, n_test=4):
    rng = np.random.default_rng(0)
    files = {}
    for name, count in (("train", n_train), ("t10k", n_test)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        files[f"{name}-images-idx3-ubyte"] = idx(images)
        files[f"{name}-labels-idx1-ubyte"] = idx(np.arange(count, dtype=np.uint8) % 2)
    return files


@pytest.fixture
def no_system_copy(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "_SYSTEM", tmp_path / "no-system")


@pytest.fixture
def own_copy(tmp_path, no_system_copy):
    raw = tmp_path / "own/FashionMNIST/raw"
    raw.mkdir(parents=True)
    for name, data in fashion_files().items():
        (raw / name).write_bytes(data)
    return tmp_path / "own"


def config_of(tmp_path, **options):
    options = {"photos": "torchvision:FashionMNIST", "images_url": f"{tmp_path}/images"} | options
    return IngestConfig(**options)


def test_arrays_are_written_as_png_with_the_data_sets_own_splits_and_names(tmp_path, own_copy):
    table = ingest(config_of(tmp_path, torchvision_root=str(own_copy)))
    assert table.classes == ("T-shirt/top", "Trouser")
    assert table.frame["given_split"].value_counts().to_dict() == {"train": 12, "test": 4}
    shapes = {read_photo(path).size for path in table.frame["path"]}
    assert shapes == {(28, 28)}


def test_a_second_run_writes_nothing_and_gives_the_same_table(tmp_path, own_copy):
    config = config_of(tmp_path, torchvision_root=str(own_copy))
    first = ingest(config)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "images").rglob("*.png")}
    again = ingest(config)
    assert again.digest == first.digest
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "images").rglob("*.png")}


def test_the_photos_may_be_written_to_a_remote_store(tmp_path, own_copy):
    local = ingest(config_of(tmp_path, torchvision_root=str(own_copy)))
    remote = ingest(
        config_of(tmp_path, torchvision_root=str(own_copy), images_url="memory://arrays")
    )
    assert remote.digest == local.digest
    assert remote.frame["path"].str.startswith("memory://arrays/FashionMNIST/").all()


def test_the_systems_packed_copy_is_used(tmp_path, monkeypatch):
    packed = tmp_path / "system/fashion-mnist"
    packed.mkdir(parents=True)
    for name, data in fashion_files().items():
        (packed / f"{name}.gz").write_bytes(gzip.compress(data))
    monkeypatch.setattr(arrays, "_SYSTEM", tmp_path / "system")
    assert len(ingest(config_of(tmp_path)).frame) == 16


def test_the_fingerprint_sees_the_own_copy_change(tmp_path, own_copy):
    config = config_of(tmp_path, torchvision_root=str(own_copy))
    before = fingerprint(config)
    (own_copy / "FashionMNIST/raw/t10k-labels-idx1-ubyte").write_bytes(b"other")
    assert fingerprint(config) != before


def test_without_copy_and_network_the_error_says_which_file_goes_where(
    tmp_path, no_system_copy, monkeypatch
):
    def no_network(*arguments, **options):
        raise URLError("no network")

    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "download", no_network)
    with pytest.raises(NoPhotos) as caught:
        ingest(config_of(tmp_path))
    message = str(caught.value)
    assert "(<urlopen error no network>)" in message
    assert "train-images-idx3-ubyte, train-labels-idx1-ubyte" in message
    assert f"in {tmp_path}/images/torchvision/FashionMNIST/raw" in message


def test_a_data_set_with_named_splits_gives_those(tmp_path):
    class Named:
        def __init__(self, root, split="trainval"):
            if split not in ("trainval", "test"):
                raise ValueError(split)
            self.split = split

    parts = arrays._parts(Named, tmp_path, download=False)
    assert {side: part.split for side, part in parts.items()} == {
        "train": "trainval",
        "test": "test",
    }


def test_a_data_set_without_splits_is_one_part(tmp_path):
    assert list(arrays._parts(lambda root: [], tmp_path, download=False)) == [""]


def test_a_data_set_without_a_train_split_is_not_read(tmp_path):
    class Odd:
        def __init__(self, root, split="10fold", download=False):
            if split != "10fold":
                raise ValueError(split)

    with pytest.raises(NoPhotos, match=r"\btrain or trainval\b"):
        arrays._open_parts(Odd, [tmp_path])


def test_invalid_names_and_locations_are_refused(tmp_path, own_copy):
    with pytest.raises(ConfigError, match=r"torchvision:FashionMNIST\b.*\bingest\.images_url\b"):
        ingest(config_of(tmp_path, images_url=""))
    with pytest.raises(ConfigError, match=r"'FashionMist'.* FashionMNIST\b"):
        ingest(config_of(tmp_path, photos="torchvision:FashionMist"))
    with pytest.raises(ConfigError, match=r"\blist\b"):
        list(arrays._write_photos([("text", 1)], "train", str(tmp_path), set()))

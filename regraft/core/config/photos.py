"""Sections about the photos: what to read, and how to split it."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from regraft.core.config.section import Fraction, Section, Url

# Each scheme reads a single object and no other location (unlike reference://, zip:// or ::).
RemoteScheme = Literal["s3", "gs", "gcs", "abfs", "abfss", "az", "http", "https"]


class IngestConfig(Section):
    """Which photos to read, and when to stop the run.

    photos: folder, CSV/Parquet manifest, or torchvision:NAME; local path or fsspec URL.
    label_from: name of a class in a folder of photos: top = the first folder (below a split);
        leaf = the folder that holds the photo; path = all folders, joined by "/". A manifest names
        its labels itself. A note says if deeper folders become one class.
    inbox: a second folder or manifest, where photos and labels arrive later. Its label overrides
        the label in photos. A photo without a label (no class folder, an empty cell) is not used
        until it has a label. The inbox may be empty, but must exist. "" = none.
    max_pixels: pixels per photo, >= 1. Source: Pillow's own decompression-bomb limit.
    max_quarantine_fraction: share of the photos that may be unusable, in [0, 1]. Guess.
    n_workers: decoding threads, in [0, 256]; 0 = the number of cores.
    images_url: folder for the PNG files of photos that are arrays (torchvision).
    memory_url: folder that caches the facts of each photo, so that only new photos are decoded.
    torchvision_root: local folder, the `root` of torchvision's data sets; "" = the system's folder,
        then download.
    schemes: kinds of URLs that the rows of a manifest may name anywhere. A row may always name
        photos in the folder of its manifest, and below it.
    roots: further folders, or beginnings of URLs, whose photos the rows of a manifest may name.
    """

    photos: Url = ""
    label_from: Literal["top", "leaf", "path"] = "top"
    inbox: Url = ""
    max_pixels: Annotated[int, Field(ge=1)] = 89_478_485
    max_quarantine_fraction: Fraction = 0.1
    n_workers: Annotated[int, Field(ge=0, le=256)] = 0
    images_url: Url = ""
    memory_url: Url = ""
    torchvision_root: str = ""
    schemes: tuple[RemoteScheme, ...] = ("s3", "gs", "gcs", "abfs", "abfss", "az")
    roots: tuple[Url, ...] = ()


class SplitConfig(Section):
    """How the photos are divided into train, validation and test.

    test_fraction, validation_fraction: shares of each class, in (0, 1), used for photos without a
        given split. Guess.
    validation_as_test: whether given validation photos are the test split, and validation is taken
        from train, if the photos have no given test split. Otherwise a missing test split is taken
        from train, and the given validation photos select the model. A note says which.
    salt: a different salt gives a different split of the same photos. Do not change the salt while
        a memory is in use.
    on_leak: what to do with a photo whose copy is in another split: drop = remove it from the
        lower-ranked split (train before validation before test), error = stop, keep = keep both.
    near_duplicate_bits: photos whose perceptual hashes (64 bits) differ in at most this many bits
        are candidates for near copies, in [0, 16]; the thumbnails decide. 0 = exact copies only.
        Guess.
    freeze_test: whether the test split stays as it is when photos are added, so that accuracies of
        different months refer to the same photos. Copies of test photos still join the test split.
        Needs memory_url, and takes effect once the memory contains a test photo.
    widen_test_below: a frozen test split takes new photos of a class while its share of that class
        is below this value, and the usual share of a class that is new to it; in
        [0, test_fraction]. Guess: a third of the usual share.
    memory_url: folder that records the split of each photo, so that a photo never changes split.
    """

    test_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.15
    validation_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.15
    validation_as_test: bool = False
    salt: str = ""
    on_leak: Literal["drop", "error", "keep"] = "drop"
    near_duplicate_bits: Annotated[int, Field(ge=0, le=16)] = 4
    freeze_test: bool = False
    widen_test_below: Fraction = 0.05
    memory_url: Url = ""

    @model_validator(mode="after")
    def _check_train_share(self) -> Self:
        if self.test_fraction + self.validation_fraction >= 1.0:
            raise ValueError("test_fraction + validation_fraction must be below 1")
        return self

    @model_validator(mode="after")
    def _check_widen_test_below(self) -> Self:
        if self.freeze_test and self.widen_test_below > self.test_fraction:
            raise ValueError("widen_test_below must be at most test_fraction if freeze_test is on")
        return self

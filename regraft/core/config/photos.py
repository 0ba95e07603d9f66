"""The sections about the photos: what is read, and which side each is on."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from regraft.core.config.section import Fraction, Section, Url


class IngestConfig(Section):
    """What is read, and when the reading gives up.

    photos: folder, CSV/Parquet manifest, or torchvision:NAME; local path or fsspec URL.
    inbox: a second folder or manifest, where photos and labels arrive later; its label wins over
        the one in photos, and what has no label yet (no class folder, an empty cell) waits there.
        It may be empty, but it must be there. "" = none.
    max_pixels: pixels a photo, >= 1. Source: Pillow's own decompression-bomb limit.
    max_quarantine_fraction: share of the photos that may be unusable, in [0, 1]. Guess.
    n_workers: threads that decode, 0 = one a core.
    images_url: where photos that are no files (torchvision arrays) are written as PNG.
    memory_url: folder that remembers what each photo was found to be: only new ones are decoded.
    torchvision_root: local folder, the `root` of its data sets; "" = the system's, then download.
    """

    photos: Url = ""
    inbox: Url = ""
    max_pixels: Annotated[int, Field(ge=1)] = 89_478_485
    max_quarantine_fraction: Fraction = 0.1
    n_workers: Annotated[int, Field(ge=0, le=256)] = 0
    images_url: Url = ""
    memory_url: Url = ""
    torchvision_root: str = ""


class SplitConfig(Section):
    """Which photo is trained on, which chooses, which judges.

    test_fraction, validation_fraction: shares of each class, used where no split is given. Guess.
    salt: another salt, another split of the same photos; leave it alone where a memory is kept.
    on_leak: what becomes of a photo whose copy stands on another side: dropped from the side that
        judges less (train before validation before test), an error, or kept.
    near_duplicate_bits: perceptual hashes (64 bits) at most this far apart are candidates for
        "nearly the same photo", in [0, 16]; the thumbnails decide. 0: exact copies only. Guess.
    freeze_test: whether new photos leave the test side as it is, so that accuracies of different
        months are of the same photos. Copies of test photos join them all the same. Needs the
        memory, and begins when that knows a test photo.
    widen_test_below: a frozen test side takes new photos of a class after all while it has a
        smaller share of that class's photos than this, and its usual share of the new photos of a
        class that it does not have; in [0, test_fraction]. Guess: a third of the usual share.
    memory_url: folder that remembers which side a photo was given, so that it never moves.
    """

    test_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.15
    validation_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.15
    salt: str = ""
    on_leak: Literal["drop", "error", "keep"] = "drop"
    near_duplicate_bits: Annotated[int, Field(ge=0, le=16)] = 4
    freeze_test: bool = False
    widen_test_below: Fraction = 0.05
    memory_url: Url = ""

    @model_validator(mode="after")
    def _leaves_something_to_train_on(self) -> Self:
        if self.test_fraction + self.validation_fraction >= 1.0:
            raise ValueError("test_fraction + validation_fraction must stay below 1")
        return self

    @model_validator(mode="after")
    def _widens_to_no_more_than_the_usual_share(self) -> Self:
        if self.freeze_test and self.widen_test_below > self.test_fraction:
            raise ValueError("widen_test_below must not pass test_fraction where freeze_test is on")
        return self

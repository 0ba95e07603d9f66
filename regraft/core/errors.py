"""Every error that Regraft raises on purpose, in one tree.

RegraftError                     exit code
├── ConfigError                  2   a key, a value or a command line that cannot be meant
├── DataError                    3   the photos
│   ├── NoPhotos                     nothing to read at that place
│   ├── UnusablePhoto                one file that cannot be read as a photo
│   ├── ManifestError                a CSV / Parquet manifest that cannot be read as one
│   ├── TooManyQuarantined           the quarantined share passed ingest.max_quarantine_fraction
│   ├── ClassVanished                a class has no usable photo left
│   ├── SplitLeak                    the same photo on two sides, and split.on_leak is "error"
│   └── EmptySplit                   a side of the split has no photo
├── WeightsError                 4   the pretrained weights
│   ├── UnknownBackbone              a name that no source knows
│   ├── WeightsNotFound              the file is not here and cannot be fetched
│   ├── WeightsMismatch              the file does not fit the architecture or its checksum
│   └── UnsafeWeights                the file wants to run code
├── TrainingError                5   the fine-tuning
│   ├── FreezeError                  a rule that matches nothing, a parameter that no rule matches
│   ├── FreezeDrift                  a frozen tensor moved
│   ├── NotReproduced                trained again, the model is another one
│   └── TrainingDiverged             the loss is not a number any more
├── RegistryError                6   the registry
│   ├── ModelNotFound                no such model, version or alias
│   ├── ReloadMismatch               the reloaded model does not answer as the trained one
│   ├── ChampionMoved                another champion serves than the one that was judged
│   ├── NoWayBack                    no earlier champion to go back to
│   ├── NothingWaits                 no verdict waits for somebody to approve it
│   └── LedgerBroken                 the record of promotions is not what was written
├── StateError                   7   the state folder
│   └── JournalBroken                a record of retrainings that cannot be read
├── NothingToDo                  8   nothing has changed since the last time; no fault
├── ScheduleError                9   a schedule that cannot be meant, or carried out
├── DriftFound                  10   the new photos are of another kind; only if it was asked for
└── AlreadyRuns                 11   another process does this very thing now; no fault

Exit code 0 is success, whatever the verdict; 1 is a fault of ours (run again with --debug).
"""


class RegraftError(Exception):
    """An error with one sentence for the person at 3 a.m.: expected, got, where, what to do."""

    exit_code = 1


class ConfigError(RegraftError):
    """A key, a value or a command line that cannot be meant."""

    exit_code = 2


class DataError(RegraftError):
    """Something about the photos."""

    exit_code = 3


class NoPhotos(DataError):
    """There is nothing to read at that place."""


class UnusablePhoto(DataError):
    """One file that cannot be read as a photo.

    Args:
        reason: the word the quarantine table uses, such as "truncated".
        detail: what was found, for a reader who wants to know more.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["UnusablePhoto"], tuple[str, str]]:
        return UnusablePhoto, (self.reason, self.detail)


class ManifestError(DataError):
    """A CSV or Parquet manifest that cannot be read as one."""


class TooManyQuarantined(DataError):
    """The quarantined share passed ingest.max_quarantine_fraction."""


class ClassVanished(DataError):
    """A class has no usable photo left."""


class SplitLeak(DataError):
    """The same photo stands on two sides, and split.on_leak is "error"."""


class EmptySplit(DataError):
    """A side of the split has no photo."""


class WeightsError(RegraftError):
    """Something about the pretrained weights."""

    exit_code = 4


class UnknownBackbone(WeightsError):
    """A name that no source of backbones knows."""


class WeightsNotFound(WeightsError):
    """The weights are not on this machine and cannot be fetched."""


class WeightsMismatch(WeightsError):
    """The weights do not fit the architecture, or not their checksum."""


class UnsafeWeights(WeightsError):
    """The file holds more than tensors: loading it could run code."""


class TrainingError(RegraftError):
    """Something about the fine-tuning."""

    exit_code = 5


class FreezeError(TrainingError):
    """A rule matches nothing, or a parameter is matched by no rule."""


class FreezeDrift(TrainingError):
    """A frozen tensor is not what it was before training."""


class NotReproduced(TrainingError):
    """Trained again from its own record, the model is another one."""


class TrainingDiverged(TrainingError):
    """The loss is not a number any more."""


class RegistryError(RegraftError):
    """Something about the model registry."""

    exit_code = 6


class ModelNotFound(RegistryError):
    """No such model, version or alias."""


class ReloadMismatch(RegistryError):
    """The model reloaded from the registry does not answer as the trained one does."""


class ChampionMoved(RegistryError):
    """Another champion serves than the one that the challenger was judged against."""


class NoWayBack(RegistryError):
    """There is no earlier champion to go back to."""


class NothingWaits(RegistryError):
    """No verdict waits for somebody to approve it."""


class LedgerBroken(RegistryError):
    """The record of promotions is not what was written."""


class StateError(RegraftError):
    """Something about the state folder."""

    exit_code = 7


class JournalBroken(StateError):
    """A record of retrainings that cannot be read."""


class NothingToDo(RegraftError):
    """Nothing has changed since the last time; no fault."""

    exit_code = 8


class ScheduleError(RegraftError):
    """A schedule that cannot be meant, or cannot be carried out."""

    exit_code = 9


class DriftFound(RegraftError):
    """The new photos are of another kind; raised only where that was asked for."""

    exit_code = 10


class AlreadyRuns(RegraftError):
    """Another process does this very thing now; no fault."""

    exit_code = 11

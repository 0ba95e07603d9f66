"""Every error that Regraft raises on purpose, in one tree.

RegraftError                     exit code
├── ConfigError                  2   an invalid key, value or command line
│   └── MissingDriver                the package for a kind of URL is not installed
├── DataError                    3   the photos
│   ├── NoPhotos                     the given location has no photos
│   ├── UnusablePhoto                a file that cannot be read as a photo
│   ├── ManifestError                an invalid CSV or Parquet manifest
│   ├── TooManyQuarantined           the quarantined share exceeds ingest.max_quarantine_fraction
│   ├── ClassVanished                a class has no usable photo left
│   ├── SplitLeak                    the same photo is in two splits, and split.on_leak is "error"
│   └── EmptySplit                   a split has no photos
├── WeightsError                 4   the pretrained weights
│   ├── UnknownBackbone              no backbone source has this name
│   ├── WeightsNotFound              the file is not on this machine and cannot be downloaded
│   ├── WeightsMismatch              the file does not match the architecture or its checksum
│   └── UnsafeWeights                loading the file could run code
├── TrainingError                5   the fine-tuning
│   ├── FreezeError                  a rule without a match, or a parameter without a rule
│   ├── FreezeDrift                  a frozen tensor has changed
│   ├── NotReproduced                training again gave a different model
│   └── TrainingDiverged             the loss is not a finite number
├── RegistryError                6   the model registry
│   ├── ModelNotFound                no such model, version or alias
│   ├── ReloadMismatch               the reloaded model predicts differently from the trained model
│   ├── ChampionMoved                the champion is not the version used in the verdict
│   ├── NoRollbackTarget             no earlier champion to roll back to
│   ├── NothingPendingApproval       no verdict is pending approval
│   └── LedgerBroken                 the ledger of promotions was changed after it was written
├── StateError                   7   the state folder
│   ├── JournalBroken                a record of a retraining that cannot be read
│   ├── DatabaseDamaged              the database of MLflow or ZenML is damaged or gone
│   └── DiskFull                     a disk is full, or a quota is used up
├── NothingToDo                  8   nothing has changed since the last run; not a failure
├── ScheduleError                9   a schedule that is invalid or cannot be run
├── DriftFound                  10   the new photos show a distribution shift; on request only
└── AlreadyRunning              11   another process is doing the same work now; not a failure

Exit code 0 is success, whatever the verdict. Exit code 1 is a bug in Regraft (run again with
--debug).
"""


class RegraftError(Exception):
    """Base class. The message is one sentence: expected, got, where, what to do."""

    exit_code = 1


class ConfigError(RegraftError):
    """A configuration key, a value or a command line is invalid."""

    exit_code = 2


class MissingDriver(ConfigError):
    """The package for a kind of URL is not installed."""


class DataError(RegraftError):
    """Base class of the errors about photos."""

    exit_code = 3


class NoPhotos(DataError):
    """The given location has no photos."""


class UnusablePhoto(DataError):
    """A file cannot be read as a photo.

    Args:
        reason: the value of the quarantine table's column reason, such as "truncated".
        detail: more information for the reader of the table.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["UnusablePhoto"], tuple[str, str]]:
        return UnusablePhoto, (self.reason, self.detail)


class ManifestError(DataError):
    """A CSV or Parquet manifest is invalid."""


class TooManyQuarantined(DataError):
    """The quarantined share exceeds ingest.max_quarantine_fraction."""


class ClassVanished(DataError):
    """A class has no usable photo left."""


class SplitLeak(DataError):
    """The same photo is in two splits, and split.on_leak is "error"."""


class EmptySplit(DataError):
    """A split has no photos, or a class has no training photo."""


class WeightsError(RegraftError):
    """Base class of the errors about pretrained weights."""

    exit_code = 4


class UnknownBackbone(WeightsError):
    """No backbone source has this name."""


class WeightsNotFound(WeightsError):
    """The weights are not on this machine and cannot be downloaded."""


class WeightsMismatch(WeightsError):
    """The weights do not match the architecture, or the file does not match its checksum."""


class UnsafeWeights(WeightsError):
    """The file contains more than tensors, so loading it could run code."""


class TrainingError(RegraftError):
    """Base class of the errors about fine-tuning."""

    exit_code = 5


class FreezeError(TrainingError):
    """A freeze rule matches no parameter, or a parameter matches no rule."""


class FreezeDrift(TrainingError):
    """A frozen tensor has changed during training."""


class NotReproduced(TrainingError):
    """Training a version again from its record gave a different model."""


class TrainingDiverged(TrainingError):
    """The loss is not a finite number."""


class RegistryError(RegraftError):
    """Base class of the errors about the model registry."""

    exit_code = 6


class ModelNotFound(RegistryError):
    """The registry has no such model, version or alias."""


class ReloadMismatch(RegistryError):
    """The model reloaded from the registry predicts differently from the trained model."""


class ChampionMoved(RegistryError):
    """The champion is not the version that the challenger was compared with."""


class NoRollbackTarget(RegistryError):
    """There is no earlier champion to roll back to."""


class NothingPendingApproval(RegistryError):
    """No verdict is pending approval."""


class LedgerBroken(RegistryError):
    """The ledger of promotions was changed after it was written."""


class StateError(RegraftError):
    """The state folder cannot be used."""

    exit_code = 7


class JournalBroken(StateError):
    """A record of a retraining cannot be read."""


class DatabaseDamaged(StateError):
    """The database of MLflow or ZenML is damaged or gone."""


class DiskFull(StateError, OSError):
    """A disk is full, or a quota is used up.

    It is an OSError too: code that continues without a file that cannot be written does so here.
    """


class NothingToDo(RegraftError):
    """Nothing has changed since the last run; not a failure."""

    exit_code = 8


class ScheduleError(RegraftError):
    """A schedule is invalid or cannot be run."""

    exit_code = 9


class DriftFound(RegraftError):
    """The new photos show a distribution shift; raised only if the caller requests it."""

    exit_code = 10


class AlreadyRunning(RegraftError):
    """Another process is doing the same work now; not a failure."""

    exit_code = 11

"""A year of retraining in a few minutes: a fake clock, real photos, real weights, a real registry.

Every Monday at three in Berlin a retraining is due; every other week the photos have changed. What
has to come of it is worked out here a second time, from the folder alone.
"""

import hashlib
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import time_machine
from PIL import Image, ImageEnhance, ImageFilter
from scipy.stats import binomtest

from regraft import journal, registry
from regraft.config import TrackingConfig, load_config
from regraft.promote.kept import kept_of
from regraft.registry.champion import champion_at, roll_back
from regraft.registry.ledger import read
from regraft.schedule import Declaration, upcoming
from regraft.split.memory import recall
from regraft.state import State, activate
from regraft.status import rebuild, timeline

CLOTHES = Path(__file__).resolve().parents[3] / "shared" / "datasets" / "clothes"
NAME = "clothes"
BEGIN = datetime(2026, 1, 4, tzinfo=UTC)
LEAST = 0.05
SETTINGS = (
    *("promote.smoke_test=false", "behaviour.n_photos=0", "evaluate.n_gallery=0"),
    *("promote.min_photos=20", "split.test_fraction=0.3", f"retrain.min_changed_fraction={LEAST}"),
)
QUIET = {*range(1, 52, 2), 26}  # nothing arrives, and for three weeks in summer
DELIVERIES = {10: 220, 32: 280}  # weeks in which a whole archive arrives
HAT, BROKEN, RELABELLED, REMOVED = 20, 22, 30, 34
NEW_CAMERA, ROLLED_BACK = range(38, 43, 2), 48

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not CLOTHES.exists(), reason="needs the photos of clothes"),
]


@dataclass
class Year:
    """A folder of photos that changes week by week, and what was done about it."""

    folder: Path
    state: State
    pool: dict[str, list[Path]] = field(default_factory=dict)
    learned: dict[str, str] = field(default_factory=dict)  # sha256 -> label, of the last training
    dice: np.random.Generator = field(default_factory=lambda: np.random.default_rng(3))

    @property
    def photos(self) -> Path:
        return self.folder / NAME

    @property
    def tracking(self) -> TrackingConfig:
        return TrackingConfig(uri=self.state.tracking_uri, name=NAME)

    def grow(self, n: int, labels=None, change=None):
        """n more photos, of labels in turn; change: what the camera does to them."""
        labels = labels or sorted(label for label in self.pool if label != "hat")
        for number in range(n):
            left = [label for label in labels if self.pool[label]]
            label = left[number % len(left)]
            source = self.pool[label].pop()
            place = self.photos / label / f"{source.parts[-3]}-{source.name}"
            place.parent.mkdir(parents=True, exist_ok=True)
            if change is None:
                shutil.copyfile(source, place)
            else:
                with Image.open(source) as photo:
                    change(photo.convert("RGB")).save(place, quality=60)

    def some(self, n: int) -> list[Path]:
        """n of the photos in the folder, of classes that can spare them."""
        there = sorted(path for path in self.photos.rglob("*") if path.is_file())
        return [there[at] for at in self.dice.choice(len(there), n, replace=False)]

    def relabel(self, n: int):
        """n photos are found to be something else."""
        labels = sorted(path.name for path in self.photos.iterdir())
        for path in self.some(n):
            other = labels[(labels.index(path.parent.name) + 1) % len(labels)]
            shutil.move(path, self.photos / other / path.name)

    def remove(self, n: int):
        for path in self.some(n):
            path.unlink()

    def litter(self):
        """A photo that cannot be read, and one that is there already under another name."""
        (self.photos / "dress" / "broken.jpg").write_bytes(b"no photo at all")
        first = self.some(1)[0]
        shutil.copyfile(first, first.with_name(f"again-{first.name}"))

    def change(self, week: int):
        """What happens to the photos in the week."""
        if week == 0:
            self.grow(100)
        elif week in QUIET:
            return
        elif week in DELIVERIES:
            self.grow(DELIVERIES[week])
        elif week == HAT:
            self.grow(20, ["hat"])
        elif week == BROKEN:
            self.litter()
        elif week == RELABELLED:
            self.relabel(36)
        elif week == REMOVED:
            self.remove(60)
        elif week in NEW_CAMERA:
            self.grow(40, change=new_camera)
        elif week > 44:
            self.grow(2)
        else:
            self.grow(10)

    def retrain(self):
        from commands.retrain import attempt
        from commands.train import completed

        config = completed(load_config(None, SETTINGS), str(self.photos), NAME, self.state)
        return attempt(config, self.state)

    def events(self):
        entries = read(self.tracking, NAME).entries
        attempts = journal.attempts(str(self.state.journal), NAME)
        return timeline(entries, tuple(attempts), ())

    def changes(self, today: dict[str, str]) -> tuple[int, int, int]:
        """Photos that are new, removed and relabelled since the last training."""
        both = today.keys() & self.learned.keys()
        n_relabelled = sum(today[sha256] != self.learned[sha256] for sha256 in both)
        return len(today) - len(both), len(self.learned) - len(both), n_relabelled

    def expected(self, week: int, today: dict[str, str]) -> str:
        """Whether there is a reason to train, from the photos alone."""
        if not self.learned or week in NEW_CAMERA:
            return "retrain"
        has_new_class = set(today.values()) != set(self.learned.values())
        is_much = sum(self.changes(today)) >= LEAST * len(self.learned)
        return "retrain" if has_new_class or is_much else "skip"

    def learnable(self) -> dict[str, str]:
        """{sha256: label} of the photos that are not on the test side, by the split's memory.

        The same photo under two labels is nobody's.
        """
        sides = recall(str(self.state.splits / NAME))
        usable = set(sides.sha256[sides.side != "test"])
        labels: dict[str, set[str]] = {}
        for path in self.photos.rglob("*"):
            if path.is_file():
                sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
                labels.setdefault(sha256, set()).add(path.parent.name)
        return {
            sha256: next(iter(found))
            for sha256, found in labels.items()
            if len(found) == 1 and sha256 in usable
        }


def new_camera(photo: Image.Image) -> Image.Image:
    """Darker, softer and bluish."""
    dark = ImageEnhance.Brightness(photo.filter(ImageFilter.GaussianBlur(3))).enhance(0.45)
    red, green, blue = dark.split()
    return Image.merge("RGB", (red, green, blue.point(lambda value: min(255, int(value * 1.5)))))


@pytest.fixture
def year(state, tmp_path):
    activate(state)
    year = Year(tmp_path / "stream", state)
    for path in sorted(CLOTHES.glob("*/*/*.jpg")):
        year.pool.setdefault(path.parent.name, []).append(path)
    for paths in year.pool.values():
        year.dice.shuffle(paths)
    return year


def test_a_year_of_mondays(year):
    mondays = Declaration(
        name="weekly",
        cron="0 3 * * 1",
        timezone="Europe/Berlin",
        command="retrain clothes",
        folder=str(year.folder),
        added=BEGIN.isoformat(),
    )
    due = upcoming(mondays, BEGIN, 52)
    assert [
        (one - other) // timedelta(hours=1) for one, other in zip(due[1:], due, strict=False)
    ].count(168) == 49  # all but the two in which the clocks change
    served: list[tuple[datetime, int | None]] = []
    for week, moment in enumerate(due):
        year.change(week)
        with time_machine.travel(moment, tick=True):
            attempt = year.retrain()
            if week == ROLLED_BACK:
                roll_back(year.tracking, NAME, "somebody@here", "by hand", datetime.now(UTC))
        check_week(year, week, attempt)
        serving = registry.serving_version(year.tracking, NAME)
        served.append((moment + timedelta(hours=1), serving))
    check_year(year, due, served)


def check_week(year: Year, week: int, attempt: journal.Attempt):
    """The advice is the one that the folder asks for, and the outcome is the duel's."""
    if week in QUIET:
        # Somebody moved the champion the week before: nothing new, and yet it was looked again.
        is_looked_at = week == ROLLED_BACK + 1
        assert attempt.outcome == "skipped", (week, attempt)
        assert (attempt.advice is not None) == is_looked_at, (week, attempt)
        return
    today = year.learnable()
    wanted = year.expected(week, today)
    advice = attempt.advice
    assert advice.decision == wanted, (week, advice.told())
    delta = advice.delta
    assert (delta.n_added, delta.n_removed, delta.n_relabelled) == year.changes(today), week
    if week != HAT:  # photos of a class that nobody knows may well look like no others
        assert advice.has_drifted == (week in NEW_CAMERA), (week, advice.told())
    if week in (RELABELLED, REMOVED):  # each is a reason of its own
        assert wanted == "retrain"
        assert max(year.changes(today)) == year.changes(today)[2 if week == RELABELLED else 1]
    if week == BROKEN:
        assert wanted == "skip"
    assert (attempt.outcome == "skipped") == (wanted == "skip")
    if wanted == "retrain":
        year.learned = today
        check_verdict(year, attempt)
    if week == HAT:
        assert delta.appeared == ("hat",)
        assert advice.reason == "appeared: hat"


def check_verdict(year: Year, attempt: journal.Attempt):
    """Promoted if and only if scipy's own binomial test shows the lead, and nothing else fails."""
    version = registry.find(year.tracking, NAME, str(attempt.version))
    kept = kept_of(version, year.tracking)
    failed = [line.name for line in kept.verdict.guards if line.outcome in ("failed", "open")]
    assert (attempt.outcome == "promoted") == (not failed), attempt
    if kept.verdict.champion is None or kept.duel.compared.empty:
        return
    compared = kept.duel.compared
    new, old = compared.challenger == compared.label, compared.champion == compared.label
    wins, losses = int((new & ~old).sum()), int((old & ~new).sum())
    p_value = binomtest(wins, wins + losses, alternative="greater").pvalue if wins + losses else 1.0
    assert ("accuracy" in failed) == (p_value > 0.05), (attempt, p_value)
    assert attempt.flips == losses


def check_year(year: Year, due: list[datetime], served: list[tuple[datetime, int | None]]):
    """Journal, ledger and registry tell one story."""
    attempts = journal.attempts(str(year.state.journal), NAME)
    assert len(attempts) == len(due) == 52
    begun = [datetime.fromisoformat(attempt.began) for attempt in attempts]
    assert all(
        timedelta(0) <= at - moment < timedelta(minutes=5)
        for at, moment in zip(begun, due, strict=True)
    )
    ledger = read(year.tracking, NAME)
    assert not ledger.faults
    for moment, version in served:
        assert champion_at(ledger.entries, moment) == version
    promoted = [attempt.verdict for attempt in attempts if attempt.outcome == "promoted"]
    assert [entry.verdict for entry in ledger.entries if entry.action == "promote"] == promoted
    judged = [attempt.verdict for attempt in attempts if attempt.was_trained]
    assert [e.verdict for e in ledger.entries if e.action != "rollback"] == judged
    assert [entry.action for entry in ledger.entries].count("rollback") == 1
    outcomes = [attempt.outcome for attempt in attempts]
    assert outcomes.count("promoted") >= 2
    assert outcomes.count("kept") + outcomes.count("held") >= 3
    assert outcomes.count("skipped") >= 15
    assert len(year.events()) == 52 + 1  # each Monday is one event, the rollback another
    with time_machine.travel(due[-1] + timedelta(hours=2), tick=True):
        built = rebuild(year.state, datetime.now(UTC))
    (view,) = built.views
    assert view.champion == served[-1][1]
    assert f"v{view.champion}" in built.path.read_text(encoding="utf-8")

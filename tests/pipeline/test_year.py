"""A year of retraining in a few minutes, and a month in seconds: a fake clock, a real registry.

Every Monday at three in Berlin a retraining is due; in some weeks the photos have changed. What has
to come of it is worked out here a second time, from the folder alone. The month has drawn photos
and a tiny network, the year has real photos and real weights.
"""

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import time_machine
from PIL import Image, ImageEnhance, ImageFilter
from scipy.stats import binomtest
from tiny_challenger import ARCHITECTURE, draw_photos, weights_file
from tiny_train import stages

from regraft import registry
from regraft.core.config import TrackingConfig, load_config
from regraft.core.state import State, activate, places
from regraft.data.split.memory import load_assignments
from regraft.operations import journal
from regraft.operations.journal import Attempt
from regraft.operations.schedule import ScheduleEntry, next_fire_times
from regraft.operations.status import rebuild, timeline
from regraft.promotion.stored_verdict import load_stored_verdict
from regraft.registry.champion import roll_back
from regraft.registry.champion_history import champion_at
from regraft.registry.ledger import read_ledger
from tests.pipeline.conftest import copy_of, one_thread, reset_zenml

CLOTHES = Path(__file__).resolve().parents[3] / "shared" / "datasets" / "clothes"
LEAST = 0.05
SETTINGS = (
    "promote.smoke_test=false",
    "behaviour.n_photos=0",
    "evaluate.n_gallery=0",
    "split.test_fraction=0.3",
    f"retrain.min_changed_fraction={LEAST}",
)
WITHOUT_TRAINING = ["begin", "ingest", "split", "advise", "conclude"]

pytestmark = pytest.mark.pipeline


@dataclass(frozen=True)
class Plan:
    """Which weeks are not like the others; weeks are counted from 0.

    new_label: of the class that is new in week new_class. quiet: nothing arrives.
    deliveries: {week: photos that arrive}, n_usual in a week that is none of these.
    broken: a copy and a file that is no photo arrive, and n_beside photos.
    rolled_back: afterwards somebody takes the champion back. named: somebody gives it an alias.
    relabelled, removed: what happens to photos that are there; -1 = in no week.
    new_camera: what arrives looks different.
    """

    name: str
    new_label: str
    quiet: frozenset[int]
    deliveries: dict[int, int]
    n_usual: int
    new_class: int
    broken: int
    n_beside: int = 0
    rolled_back: int = -1
    named: int = -1
    relabelled: int = -1
    removed: int = -1
    new_camera: frozenset[int] = frozenset()


YEAR = Plan(
    name="clothes",
    new_label="hat",
    quiet=frozenset({*range(1, 52, 2), 26}),  # every other week, and three weeks in summer
    deliveries={0: 100, 10: 220, 32: 280, **{week: 2 for week in range(46, 52, 2)}},
    n_usual=10,
    new_class=20,
    rolled_back=48,
    broken=22,
    relabelled=30,
    removed=34,
    new_camera=frozenset(range(38, 43, 2)),
)
MONTH = Plan(
    name="colours",
    new_label="pink",
    quiet=frozenset({1, 4}),
    deliveries={0: 90},
    n_usual=0,
    new_class=3,
    named=3,
    broken=2,
    n_beside=3,
)


@dataclass(frozen=True)
class Monday:
    """The state of a Monday, and the attempt of that day.

    learned, today: {sha256: label} of the photos to learn from, at the last training and now.
    serving: the champion afterwards.
    """

    week: int
    due: datetime
    attempt: Attempt
    learned: dict[str, str]
    today: dict[str, str]
    serving: int | None

    @property
    def changes(self) -> tuple[int, int, int]:
        """Photos that are new, removed and relabelled since the last training."""
        both = self.today.keys() & self.learned.keys()
        n_relabelled = sum(self.today[sha256] != self.learned[sha256] for sha256 in both)
        return len(self.today) - len(both), len(self.learned) - len(both), n_relabelled

    def expected(self, plan: Plan) -> str:
        """Whether there is a reason to train, from the photos alone."""
        if not self.learned or self.week in plan.new_camera:
            return "retrain"
        has_new_class = set(self.today.values()) != set(self.learned.values())
        is_much = sum(self.changes) >= LEAST * len(self.learned)
        return "retrain" if has_new_class or is_much else "skip"


@dataclass
class Stream:
    """A folder of photos that changes week by week, and its retrainings."""

    folder: Path
    state: State
    plan: Plan
    settings: tuple[str, ...]
    pool: dict[str, list[Path]] = field(default_factory=dict)
    learned: dict[str, str] = field(default_factory=dict)  # sha256 -> label, of the last training
    dice: np.random.Generator = field(default_factory=lambda: np.random.default_rng(3))

    @property
    def photos(self) -> Path:
        return self.folder / self.plan.name

    @property
    def tracking(self) -> TrackingConfig:
        return TrackingConfig(uri=places(self.state).tracking.uri, name=self.plan.name)

    def fill(self, photos: Path):
        """The pool that new photos are taken from: photos/ANY/LABEL/*."""
        for path in sorted(photos.glob("*/*/*")):
            self.pool.setdefault(path.parent.name, []).append(path)
        for paths in self.pool.values():
            self.dice.shuffle(paths)

    def grow(self, n: int, labels=None, change=None):
        """n more photos, of labels in turn; change: what the camera does to them."""
        labels = labels or sorted(label for label in self.pool if label != self.plan.new_label)
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
        """Relabel n photos."""
        labels = sorted(path.name for path in self.photos.iterdir())
        for path in self.some(n):
            other = labels[(labels.index(path.parent.name) + 1) % len(labels)]
            shutil.move(path, self.photos / other / path.name)

    def remove(self, n: int):
        for path in self.some(n):
            path.unlink()

    def litter(self):
        """Add an unreadable photo, and a copy of an existing photo."""
        first = self.some(1)[0]
        (first.parent / "broken.jpg").write_bytes(b"no photo at all")
        shutil.copyfile(first, first.with_name(f"again-{first.name}"))

    def change(self, week: int):
        """What happens to the photos in the week."""
        plan = self.plan
        if week in plan.quiet:
            return
        elif week in plan.deliveries:
            self.grow(plan.deliveries[week])
        elif week == plan.new_class:
            self.grow(20, [plan.new_label])
        elif week == plan.broken:
            self.litter()
            self.grow(plan.n_beside)
        elif week == plan.relabelled:
            self.relabel(36)
        elif week == plan.removed:
            self.remove(60)
        elif week in plan.new_camera:
            self.grow(40, change=new_camera)
        else:
            self.grow(plan.n_usual)

    def retrain(self) -> Attempt:
        from regraft.cli.session import runner_for
        from regraft.operations.workflows.retrain import attempt
        from regraft.operations.workflows.settings import complete_config

        wanted = load_config(None, (*SETTINGS, *self.settings))
        config = complete_config(wanted, str(self.photos), self.plan.name, self.state)
        return attempt(config, self.state, runner_for(self.state)).attempt

    def attempts(self) -> list[Attempt]:
        return journal.read_attempts(str(self.state.journal), self.plan.name)

    def events(self):
        return timeline(
            read_ledger(self.tracking, self.plan.name).entries, tuple(self.attempts()), ()
        )

    def learnable(self) -> dict[str, str]:
        """{sha256: label} of the photos that are not on the test split, by the split's memory.

        The same photo under two labels is nobody's.
        """
        sides = load_assignments(str(self.state.splits / self.plan.name))
        usable = set(sides.sha256[sides.split != "test"])
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

    def mondays(self, due: list[datetime]) -> Iterator[Monday]:
        """One after the other, each after its retraining."""
        for week, moment in enumerate(due):
            self.change(week)
            with time_machine.travel(moment, tick=True):
                attempt = self.retrain()
                if week == self.plan.rolled_back:
                    now = datetime.now(UTC)
                    roll_back(self.tracking, self.plan.name, "somebody@here", "by hand", now)
                if week == self.plan.named:
                    champion = registry.find(self.tracking, self.plan.name)
                    registry.set_alias(self.tracking, champion, "shown")
            learned, today = self.learned, self.learnable()
            if attempt.was_trained:
                self.learned = today
            serving = registry.serving_version(self.tracking, self.plan.name)
            yield Monday(week, moment, attempt, learned, today, serving)


def new_camera(photo: Image.Image) -> Image.Image:
    """Darker, softer and bluish."""
    dark = ImageEnhance.Brightness(photo.filter(ImageFilter.GaussianBlur(3))).enhance(0.45)
    red, green, blue = dark.split()
    return Image.merge("RGB", (red, green, blue.point(lambda value: min(255, int(value * 1.5)))))


def mondays_from(begin: datetime, n: int) -> list[datetime]:
    """When a weekly retraining is due, n times, in UTC."""
    weekly = ScheduleEntry(
        name="weekly",
        cron="0 3 * * 1",
        timezone="Europe/Berlin",
        command="retrain photos",
        folder="/photos",
        added=begin.isoformat(),
    )
    return next_fire_times(weekly, begin, n)


def hours_between(due: list[datetime]) -> list[int]:
    return [(one - other) // timedelta(hours=1) for one, other in zip(due[1:], due, strict=False)]


# a month: drawn photos, a tiny network


@dataclass(frozen=True)
class Month:
    """Five Mondays, in the last week of which the clocks change."""

    stream: Stream
    mondays: list[Monday]

    def stages(self, week: int) -> list[str]:
        """The stages of the pipeline run of that week, in the order in which they began."""
        from zenml.client import Client

        return list(stages(Client().get_pipeline_run(self.mondays[week].attempt.run)))


@pytest.fixture(scope="module")
def month(template, tmp_path_factory):
    """All five Mondays; the tests only read the results."""
    folder = tmp_path_factory.mktemp("month")
    weights = weights_file(folder / "weights.safetensors")
    settings = (
        *(f"backbone.source=file:{weights}", f"backbone.architecture={ARCHITECTURE}"),
        "split.near_duplicate_bits=0",
        "promote.min_photos=10",
        "registry.n_parity=1",
    )
    with pytest.MonkeyPatch.context() as patched, one_thread():
        state = copy_of(template, folder / "state", patched)
        patched.chdir(folder)
        activate(state)
        stream = Stream(folder / "stream", state, MONTH, settings)
        draw_photos(folder / "pool" / "drawn", 35)
        draw_photos(folder / "turned", 20, seed=1)
        (folder / "pool" / "drawn" / "pink").mkdir()
        for path in (folder / "turned" / "amber").iterdir():
            red, green, blue = Image.open(path).split()
            turned = Image.merge("RGB", (red, blue, green))
            turned.save(folder / "pool" / "drawn" / "pink" / path.name)
        stream.fill(folder / "pool")
        yield Month(stream, list(stream.mondays(mondays_from(datetime(2026, 3, 1, tzinfo=UTC), 5))))
        reset_zenml()


def test_a_month_of_mondays(month):
    due = [monday.due for monday in month.mondays]
    assert hours_between(due) == [168, 168, 168, 167]
    for monday in month.mondays:
        check_monday(month.stream, monday)
    check_story(month.stream, month.mondays)
    outcomes = [monday.attempt.outcome for monday in month.mondays]
    # Photos of a class that the champion does not know compare nothing: it serves on.
    assert outcomes.pop(3) in ("keep", "hold")
    assert outcomes == ["promote", "skip", "skip", "skip"]


def test_the_second_time_nothing_runs_at_all(month):
    from zenml.client import Client

    first, again = month.mondays[0].attempt, month.mondays[1].attempt
    assert (again.outcome, again.advice, again.run) == ("skip", None, "")
    assert first.ended[:16] in again.reason
    assert again.n_photos == first.n_photos == 90
    runs = {run.name for run in Client().list_pipeline_runs(size=100).items}
    assert runs == {monday.attempt.run for monday in month.mondays} - {""}


def test_too_few_new_photos_wait_for_more(month):
    attempt = month.mondays[2].attempt
    assert (attempt.outcome, attempt.version) == ("skip", None)
    assert 0 < attempt.advice.delta.n_changed <= 3
    assert f"retrain.min_changed_fraction={LEAST:.1%}" in attempt.reason
    assert month.stages(2) == WITHOUT_TRAINING


def test_new_photos_are_trained_on_and_the_model_is_judged(month):
    attempt = month.mondays[3].attempt
    assert attempt.was_trained
    assert (attempt.version, attempt.champion) == (2, 1)
    assert (attempt.advice.decision, attempt.advice.delta.since) == ("retrain", 1)
    assert attempt.n_photos - month.mondays[2].attempt.n_photos == 20
    assert attempt.accuracy_low <= attempt.accuracy <= attempt.accuracy_high
    assert 0 < attempt.n_test < attempt.n_photos
    assert {"fine_tune", "evaluate", "register", "promote"} < set(month.stages(3))
    assert month.stream.attempts()[3] == attempt


def test_photos_that_a_training_has_seen_are_no_reason(month):
    """The champion has not learned from all of them, but the newest version has."""
    last = month.mondays[4]
    assert (last.serving, last.attempt.advice.delta.since) == (1, 2)
    assert (last.attempt.outcome, last.attempt.version) == ("skip", None)
    assert last.attempt.advice.delta.n_changed == 0
    assert month.stages(4) == WITHOUT_TRAINING


# a year: real photos, real weights


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not CLOTHES.exists(), reason="needs the photos of clothes")
def test_a_year_of_mondays(state, tmp_path):
    activate(state)
    year = Stream(tmp_path / "stream", state, YEAR, ("promote.min_photos=20",))
    year.fill(CLOTHES)
    due = mondays_from(datetime(2026, 1, 4, tzinfo=UTC), 52)
    assert hours_between(due).count(168) == 49  # all but the two in which the clocks change
    mondays = []
    for monday in year.mondays(due):
        check_monday(year, monday)
        mondays.append(monday)
    check_story(year, mondays)
    outcomes = [monday.attempt.outcome for monday in mondays]
    assert outcomes.count("promote") >= 2
    assert outcomes.count("keep") + outcomes.count("hold") >= 3
    assert outcomes.count("skip") >= 15


# expected results


def check_monday(stream: Stream, monday: Monday):
    """The advice follows from the folder, and the outcome from the paired evaluation."""
    plan, week, attempt, advice = stream.plan, monday.week, monday.attempt, monday.attempt.advice
    if week in plan.quiet:
        # The registry was changed the week before, so the advice is made anew without new photos.
        is_looked_at = week - 1 in (plan.rolled_back, plan.named)
        assert attempt.outcome == "skip", (week, attempt)
        assert (advice is not None) == is_looked_at, (week, attempt)
        return
    wanted = monday.expected(plan)
    assert advice.decision == wanted, (week, advice.format_text())
    delta, changes = advice.delta, monday.changes
    assert (delta.n_added, delta.n_removed, delta.n_relabelled) == changes, week
    if week != plan.new_class:  # photos of a class that nobody knows may well look like no others
        assert advice.has_drifted == (week in plan.new_camera), (week, advice.format_text())
    if week in (plan.relabelled, plan.removed):  # each is a reason of its own
        assert wanted == "retrain"
        assert max(changes) == changes[2 if week == plan.relabelled else 1]
    if week == plan.broken:
        assert wanted == "skip"
    assert (attempt.outcome == "skip") == (wanted == "skip")
    if wanted == "retrain":
        check_verdict(stream, attempt)
    if week == plan.new_class:
        assert delta.appeared == (plan.new_label,)
        assert plan.new_label in advice.reason


def check_verdict(stream: Stream, attempt: Attempt):
    """Promoted if and only if scipy's own binomial test shows the lead, and nothing else fails."""
    version = registry.find(stream.tracking, stream.plan.name, str(attempt.version))
    stored = load_stored_verdict(version, stream.tracking)
    failed = [
        guard.name for guard in stored.verdict.guards if guard.outcome in ("failed", "inconclusive")
    ]
    assert (attempt.outcome == "promote") == (not failed), attempt
    if stored.verdict.champion is None or stored.evaluation.compared.empty:
        return
    compared = stored.evaluation.compared
    new, old = compared.challenger == compared.label, compared.champion == compared.label
    wins, losses = int((new & ~old).sum()), int((old & ~new).sum())
    p_value = binomtest(wins, wins + losses, alternative="greater").pvalue if wins + losses else 1.0
    assert ("accuracy" in failed) == (p_value > 0.05), (attempt, p_value)
    assert attempt.flips == losses


def check_story(stream: Stream, mondays: list[Monday]):
    """Journal, ledger and registry agree."""
    attempts = stream.attempts()
    assert attempts == [monday.attempt for monday in mondays]
    for monday in mondays:
        begun = datetime.fromisoformat(monday.attempt.started)
        assert timedelta(0) <= begun - monday.due < timedelta(minutes=5)
    ledger = read_ledger(stream.tracking, stream.plan.name)
    assert not ledger.faults
    for monday in mondays:
        assert champion_at(ledger.entries, monday.due + timedelta(hours=1)) == monday.serving
    promoted = [attempt.verdict for attempt in attempts if attempt.outcome == "promote"]
    assert [entry.verdict for entry in ledger.entries if entry.action == "promote"] == promoted
    judged = [attempt.verdict for attempt in attempts if attempt.was_trained]
    assert [entry.verdict for entry in ledger.entries if entry.action != "rollback"] == judged
    n_rollbacks = int(stream.plan.rolled_back >= 0)
    assert [entry.action for entry in ledger.entries].count("rollback") == n_rollbacks
    # Each Monday is one event, the rollback another.
    assert len(stream.events()) == len(mondays) + n_rollbacks
    with time_machine.travel(mondays[-1].due + timedelta(hours=2), tick=True):
        built = rebuild(stream.state, datetime.now(UTC))
    (view,) = built.views
    assert view.champion == mondays[-1].serving
    assert f"v{view.champion}" in built.path.read_text(encoding="utf-8")

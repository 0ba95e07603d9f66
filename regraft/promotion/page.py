"""The verdict on paper: on the report's page, or on a page of its own."""

from collections.abc import Iterator

from regraft.core.config import Config, PromoteConfig
from regraft.core.errors import UnusablePhoto
from regraft.core.files import write_whole
from regraft.evaluation.evaluate import EvaluationReport, wilson
from regraft.evaluation.evaluate.gallery import thumbnail
from regraft.evaluation.report import (
    FlipView,
    GuardView,
    ScoreView,
    VerdictView,
    render,
    render_verdict,
)
from regraft.promotion.duel import Duel
from regraft.promotion.verdict import Flip, Verdict
from regraft.registry import RegisteredVersion
from regraft.registry.model_card import card_of, html, markdown
from regraft.registry.tracking import REPORT_FILE, Run, attach
from regraft.stats import CONFIDENCE


def publish(
    verdict: Verdict,
    duel: Duel,
    version: RegisteredVersion,
    config: Config,
    report: EvaluationReport | None,
) -> None:
    """Writes page and model card among the run's files, and into the folder of reports, if any.

    Args:
        report: of the same challenger; None: the verdict gets a page of its own, and an older
            report stays as it is.
    """
    view = view_of(verdict, duel, config)
    title = f"{version.name}, version {version.version}"
    page = render(report, title, view) if report else render_verdict(view, title)
    card = card_of(version, config.tracking)
    written = {
        REPORT_FILE if report else "verdict.html": page,
        "card.html": html(card),
        "card.md": markdown(card),
    }
    attach(Run(version.run_id, config.tracking.uri), "", _encoded(written))
    if folder := config.promote.reports_url.rstrip("/"):
        stem = f"{folder}/{version.name}-v{version.version}"
        for name, content in _encoded(written).items():
            kind = "" if name == REPORT_FILE else f"-{name.partition('.')[0]}"
            write_whole(f"{stem}{kind}.{name.rpartition('.')[2]}", content)


def _encoded(pages: dict[str, str]) -> dict[str, bytes]:
    return {name: page.encode() for name, page in pages.items()}


def view_of(verdict: Verdict, duel: Duel, config: Config) -> VerdictView:
    """The verdict as its page shows it; at most config.evaluate.n_gallery flips have a picture."""
    flips = verdict.flips[: config.evaluate.n_gallery]
    return VerdictView(
        standing=verdict.standing,
        reason=verdict.reason,
        scores=tuple(_scores(duel)),
        counts=tuple(_counts(verdict)),
        guards=tuple(GuardView(one.name, one.outcome, one.said) for one in verdict.guards),
        flips=tuple(_shown(flip) for flip in flips),
        n_flips=len(verdict.flips),
        footnote=_footnote(verdict, config.promote),
    )


def _scores(duel: Duel) -> Iterator[ScoreView]:
    contenders, compared = duel.contenders, duel.compared
    if contenders.champion is None or contenders.are_one or not len(compared):
        return
    n = len(compared)
    for who, number in (
        ("challenger", contenders.challenger),
        ("champion", contenders.champion),
    ):
        n_right = int((compared[who] == compared.label).sum())
        yield ScoreView(f"{who}, version {number}", wilson(n_right, n, CONFIDENCE))


def _counts(verdict: Verdict) -> Iterator[tuple[str, int]]:
    words = {
        "both_right": "both right",
        "only_challenger": "only the challenger right",
        "only_champion": "only the champion right",
        "both_wrong": "both wrong",
    }
    if verdict.standing != "serves":
        for name, said in words.items():
            if name in verdict.evidence:
                yield said, int(verdict.evidence[name])


def _shown(flip: Flip) -> FlipView:
    try:
        jpeg = thumbnail(flip.path)
    except UnusablePhoto:  # gone since it was judged: its name still says which it was
        jpeg = b""
    return FlipView(flip.path, flip.label, flip.challenger, flip.confidence, jpeg)


def _footnote(verdict: Verdict, config: PromoteConfig) -> str:
    told = f"Verdict {verdict.id}"
    if verdict.champion is None:
        return f"{told}; there was no champion to compare with."
    return (
        f"{told}, rule {config.rule}: a model that is not so would be promoted with a chance of at "
        f"most {config.level:.0%}."
    )

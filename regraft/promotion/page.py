"""The verdict as HTML: a section of the evaluation report, or a page of its own."""

from collections.abc import Iterator

from regraft.core.config import Config, PromoteConfig
from regraft.core.errors import UnusablePhoto
from regraft.core.files import write_atomic
from regraft.core.intervals import wilson_interval
from regraft.evaluation.evaluate import EvaluationReport
from regraft.evaluation.evaluate.gallery import thumbnail
from regraft.evaluation.report import (
    FlipView,
    GuardView,
    ScoreView,
    VerdictView,
    render,
    render_verdict,
)
from regraft.promotion.pair import PairedEvaluation
from regraft.promotion.verdict import Flip, Verdict
from regraft.registry import RegisteredVersion
from regraft.registry.model_card import html, load_model_card, markdown
from regraft.registry.tracking import REPORT_FILE, Run, attach_files
from regraft.stats import CONFIDENCE


def publish(
    verdict: Verdict,
    evaluation: PairedEvaluation,
    version: RegisteredVersion,
    config: Config,
    report: EvaluationReport | None,
) -> None:
    """Write the verdict's page and the model card to the run, and to promote.reports_url if set.

    Args:
        verdict: about the version.
        evaluation: what the verdict is based on.
        version: the challenger.
        config: promote.reports_url is the folder of reports, "" for none.
        report: of the same challenger. None: the verdict gets a page of its own, and an older
            report stays unchanged.
    """
    view = verdict_view(verdict, evaluation, config)
    title = f"{version.name}, version {version.version}"
    page = render(report, title, view) if report else render_verdict(view, title)
    card = load_model_card(version, config.tracking)
    pages = {
        REPORT_FILE if report else "verdict.html": page.encode(),
        "card.html": html(card).encode(),
        "card.md": markdown(card).encode(),
    }
    attach_files(Run(version.run_id, config.tracking.uri), "", pages)
    if folder := config.promote.reports_url.rstrip("/"):
        stem = f"{folder}/{version.name}-v{version.version}"
        for name, content in pages.items():
            kind = "" if name == REPORT_FILE else f"-{name.partition('.')[0]}"
            write_atomic(f"{stem}{kind}.{name.rpartition('.')[2]}", content)


def verdict_view(verdict: Verdict, evaluation: PairedEvaluation, config: Config) -> VerdictView:
    """Return the verdict for the template; at most config.evaluate.n_gallery flips have a photo."""
    flips = verdict.flips[: config.evaluate.n_gallery]
    return VerdictView(
        status=verdict.status,
        reason=verdict.reason,
        scores=tuple(_scores(evaluation)),
        counts=tuple(_counts(verdict)),
        guards=tuple(
            GuardView(guard.name, guard.outcome, guard.message) for guard in verdict.guards
        ),
        flips=tuple(_flip_view(flip) for flip in flips),
        n_flips=len(verdict.flips),
        footnote=_footnote(verdict, config.promote),
    )


def _scores(evaluation: PairedEvaluation) -> Iterator[ScoreView]:
    pair, compared = evaluation.pair, evaluation.compared
    if pair.champion is None or pair.is_same_model or not len(compared):
        return
    n = len(compared)
    for who, number in (("challenger", pair.challenger), ("champion", pair.champion)):
        n_correct = int((compared[who] == compared.label).sum())
        yield ScoreView(f"{who}, version {number}", wilson_interval(n_correct, n, CONFIDENCE))


def _counts(verdict: Verdict) -> Iterator[tuple[str, int]]:
    captions = {
        "both_right": "both correct",
        "only_challenger": "only the challenger correct",
        "only_champion": "only the champion correct",
        "both_wrong": "both wrong",
    }
    if verdict.status != "serving":
        for name, caption in captions.items():
            if name in verdict.evidence:
                yield caption, int(verdict.evidence[name])


def _flip_view(flip: Flip) -> FlipView:
    try:
        jpeg = thumbnail(flip.path)
    except UnusablePhoto:  # the file is gone; the page still shows its path
        jpeg = b""
    return FlipView(flip.path, flip.label, flip.challenger, flip.confidence, jpeg)


def _footnote(verdict: Verdict, config: PromoteConfig) -> str:
    verdict_id = f"Verdict {verdict.id}"
    if verdict.champion is None:
        return f"{verdict_id}; there was no champion to compare with."
    if any(guard.name == "weights" for guard in verdict.guards):
        return f"{verdict_id}; the two models have the same weights, so no rule compared them."
    claim = (
        "not better than the champion"
        if config.rule == "superior"
        else f"worse than the champion by more than {config.max_loss:.1%}"
    )
    return (
        f"{verdict_id}, rule {config.rule}: the chance of promoting a model that is {claim} is at "
        f"most {config.level:.0%}."
    )

"""The text that a training ends with on the screen."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from regraft.core.text import format_count

if TYPE_CHECKING:
    from regraft.core.intervals import Interval
    from regraft.operations.workflows.train import TrainedModel
    from regraft.promotion import Verdict
    from regraft.stats import TransferGain


def summarize(model: "TrainedModel", root: Path) -> str:
    """Return the result in a dozen lines: accuracy, baseline, gain, model, report, time, next.

    Args:
        root: of the state folder.
    """
    report, version, verdict = model.report, model.version, model.verdict
    command = shlex.quote(str(Path(sys.executable).parent / "regraft"))
    option = f"--state {shlex.quote(str(root))}"
    photo = shlex.quote(report.predictions.path.iloc[-1])
    suffix = "@champion" if verdict.is_serving else f"/{version.version}"
    reference = shlex.quote(f"{version.name}{suffix}")
    alias = "@champion" if verdict.is_serving else "@challenger"
    lines = [
        "",
        f"  test accuracy    {_interval(report.accuracy)}   ({format_count(report.n, 'photo')})",
        f"  majority class   {_interval(report.baseline)}   (always {report.baseline_label!r})",
        f"  transfer         {_gain(report.transfer)} over random weights",
        f"  model            {version.name} v{version.version} {alias}",
        f"  verdict          {_verdict(verdict)}",
        *([f"  guards           {model.weakened}"] if model.weakened else []),
        f"  report           {model.page}",
        f"  time             {_times(model)}",
        *(f"  note             {note}" for note in model.notes),
        "",
        "Next:",
    ]
    if verdict.is_pending:
        pending = shlex.quote(f"{verdict.name}/{verdict.challenger}")
        lines.append(f"  {command} approve {pending} {option}")
    lines += [
        f"  {command} predict {photo} --model {reference} {option}",
        f"  {command} models {option}",
        f"  {command} doctor {option}",
    ]
    return "\n".join(lines)


def _interval(interval: "Interval") -> str:
    return f"{interval.value:6.1%}  [{interval.low:.1%}, {interval.high:.1%}]"


def _gain(transfer: "TransferGain") -> str:
    gain, low, high = (
        100 * value for value in (transfer.gain, transfer.gain_low, transfer.gain_high)
    )
    return f"{gain:+.1f} points [{low:.1f}, {high:.1f}]"


def _verdict(verdict: "Verdict") -> str:
    return f"waits for approval; {verdict.reason}" if verdict.is_pending else verdict.reason


def _times(model: "TrainedModel") -> str:
    return ", ".join(
        f"{stage.name} {'cached' if stage.is_cached else f'{stage.seconds:.1f} s'}"
        for stage in model.stages
    )

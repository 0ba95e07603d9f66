"""What a training run ends with on the screen."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zenml.models import PipelineRunResponse

    from regraft.core.config import Config
    from regraft.core.state import State
    from regraft.evaluation.evaluate import EvaluationReport, Interval
    from regraft.promotion import Verdict
    from regraft.registry import RegisteredVersion
    from regraft.training.transfer import TransferGain


def summarise(run: "PipelineRunResponse", config: "Config", state: "State") -> str:
    """The result in a dozen lines: accuracy, baseline, gain, model, report, seconds, next."""
    report: EvaluationReport = run.steps["evaluate"].output.load()
    version: RegisteredVersion = run.steps["register"].output.load()
    verdict: Verdict = run.steps["promote"].output.load()
    page = f"{config.promote.reports_url}/{version.name}-v{version.version}.html"
    command = shlex.quote(str(Path(sys.executable).parent / "regraft"))
    option = f"--state {shlex.quote(str(state.root))}"
    photo = shlex.quote(report.predictions.path.iloc[-1])
    serving = "@champion" if verdict.serves else f"/{version.version}"
    model = shlex.quote(f"{version.name}{serving}")
    asked = f"{verdict.name}/{verdict.challenger}"
    lines = [
        "",
        f"  test accuracy    {_interval(report.accuracy)}   ({report.n} photos)",
        f"  majority class   {_interval(report.baseline)}   (always {report.baseline_label!r})",
        f"  transfer         {_gain(report.transfer)} over random weights",
        f"  model            {version.name} v{version.version} {_alias(verdict)}",
        f"  verdict          {_said(verdict)}",
        f"  report           {page}",
        f"  time             {_times(run)}",
        "",
        "Next:",
        *([f"  {command} approve {shlex.quote(asked)} {option}"] if verdict.waits else []),
        f"  {command} predict {photo} --model {model} {option}",
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


def _alias(verdict: "Verdict") -> str:
    return "@champion" if verdict.serves else "@challenger"


def _said(verdict: "Verdict") -> str:
    return f"waits for approval; {verdict.reason}" if verdict.waits else verdict.reason


def _times(run: "PipelineRunResponse") -> str:
    parts = []
    timed = [step for step in run.steps.values() if step.start_time and step.end_time]
    for step in sorted(timed, key=lambda step: step.start_time):
        cached = step.status.value == "cached"
        seconds = (step.end_time - step.start_time).total_seconds()
        parts.append(f"{step.name} {'cached' if cached else f'{seconds:.1f} s'}")
    return ", ".join(parts)

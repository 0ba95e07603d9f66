"""A command in a process of its own: its seconds, its memory, and what it printed."""

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

Row = dict[str, str | float]

ACCURACY = re.compile(r"test accuracy\s+([\d.]+)%")
STAGES = re.compile(r"(\w+) ([\d.]+) s")
EMBEDDED = re.compile(r"embed: (\d+) photos.*: (\d+) stored, (\d+) new")


@dataclass(frozen=True)
class Measured:
    """wall_s: from start to end. cpu_s: of all its processes. peak_mb: of the largest of them."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    text: str

    def figures(self) -> dict[str, float]:
        return {"whole_s": self.wall_s, "cpu_s": self.cpu_s, "peak_mb": self.peak_mb}


def measured(command: list[str], log: Path, expected: int = 0) -> Measured:
    """Runs the command to its end.

    Raises:
        SystemExit: it ended otherwise than expected; with what it printed.
    """
    began = time.monotonic()
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    wall_s, text = time.monotonic() - began, log.read_text()
    if os.waitstatus_to_exitcode(status) != expected:
        sys.exit(f"{' '.join(command)} failed:\n{text}")
    return Measured(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, text)


def regraft_train(photos: Path | str, state: Path, *settings: str) -> Measured:
    """`regraft train` as a user calls it, with ZenML and MLflow."""
    return _called("train", photos, state, settings, 0)


def regraft_retrain(photos: Path | str, state: Path, expected: int) -> Measured:
    """`regraft retrain` as a user calls it. expected: its exit code."""
    return _called("retrain", photos, state, (), expected)


def _called(
    name: str, photos: Path | str, state: Path, settings: tuple[str, ...], expected: int
) -> Measured:
    command = [sys.executable, "-m", "regraft.cli", name, str(photos), "--state", str(state)]
    for setting in settings:
        command += ["--set", setting]
    state.parent.mkdir(parents=True, exist_ok=True)
    return measured(command, state.parent / "log", expected)


def told(run: Measured) -> dict[str, float]:
    """What a training says of itself: accuracy, seconds a stage, photos known and new."""
    figures = {"test_accuracy": float(ACCURACY.search(run.text)[1]) / 100}
    times = next(line for line in run.text.splitlines() if line.strip().startswith("time "))
    figures |= {f"{stage}_s": float(seconds) for stage, seconds in STAGES.findall(times)}
    counted = [tuple(map(int, found)) for found in EMBEDDED.findall(run.text)]
    figures["known"] = sum(known for _, known, _ in counted)
    figures["new"] = sum(new for _, _, new in counted)
    return figures | run.figures()

"""make bench: accuracy with its spread over splits, seconds a stage, peak memory.

Runs `regraft train` as a user does, each time on a fresh state folder. Where the photos come with a
split the seed of the training changes, else the salt of the split too. Prints a table.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ACCURACY = re.compile(r"test accuracy\s+([\d.]+)%")
STAGES = re.compile(r"(\w+) ([\d.]+) s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos")
    parser.add_argument("--config", default="configs/probe.yaml")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    runs = [measure(arguments.photos, arguments.config, seed) for seed in range(arguments.runs)]
    print(f"{arguments.photos} with {arguments.config}, {len(runs)} runs")
    for name in runs[0]:
        values = [run[name] for run in runs if name in run]
        middle = statistics.median(values)
        print(f"  {name:16} median {middle:8.3f}   min {min(values):8.3f}   max {max(values):8.3f}")


def measure(photos: str, config: str, seed: int) -> dict[str, float]:
    """One training in a process of its own: its figures by name."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "commands", "train", photos, "--config", config]
        command += ["--state", f"{folder}/state", "--set", f"tune.seed={seed}"]
        command += ["--set", f"split.salt=split-{seed}"]
        log = Path(folder) / "log"
        with log.open("w") as file:
            process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
            _, status, usage = os.wait4(process.pid, 0)
        text = log.read_text()
        if status:
            sys.exit(text)
    figures = {"test_accuracy": float(ACCURACY.search(text)[1]) / 100}
    times = next(line for line in text.splitlines() if line.strip().startswith("time "))
    figures |= {f"{stage} s": float(seconds) for stage, seconds in STAGES.findall(times)}
    return figures | {"cpu s": usage.ru_utime + usage.ru_stime, "peak MB": usage.ru_maxrss / 1024}


if __name__ == "__main__":
    main()

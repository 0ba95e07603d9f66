"""Two checkouts of Regraft on the same photos: the same accuracy, verdicts and exit codes?

    python -m tests.bench.checkouts OLD NEW PHOTOS [PHOTOS ...]

OLD and NEW are the roots of two checkouts; both run with this environment's Python. Each trains on
each folder of photos in a new state folder, promotes nothing by hand, retrains without a change,
and lists its models. Prints a line a fact; exit code 1 if a fact differs. The words of a verdict's
reason may differ between versions: they are printed for the reader.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ACCURACY = re.compile(r"test accuracy +([\d.]+%) +(\[.*?\]) +\((\d+) photos\)")
REASON = "reason of the verdict"
VERDICT = re.compile(r"^ +verdict +(.*)$", re.MULTILINE)


def facts_of(checkout: Path, photos: Path, folder: Path) -> dict[str, str]:
    """What a checkout makes of the photos, as texts."""
    state = folder / "state"
    trained = run(checkout, folder, "train", str(photos), "--state", str(state))
    accuracy = ACCURACY.search(trained.stdout)
    verdict = VERDICT.search(trained.stdout)
    unchanged = run(checkout, folder, "retrain", str(photos), "--state", str(state))
    again = run(checkout, folder, "retrain", str(photos), "--state", str(state))
    listed = run(checkout, folder, "models", "--json", "--state", str(state))
    [model] = json.loads(listed.stdout)
    return {
        "exit codes": " ".join(
            str(each.returncode) for each in (trained, unchanged, again, listed)
        ),
        "test accuracy": " ".join(accuracy.groups()) if accuracy else trained.stderr[-500:],
        "exact test accuracy": repr(model["test_accuracy"]),
        REASON: verdict[1] if verdict else "",
        "aliases": str(model["aliases"]),
    }


def run(checkout: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    module = "regraft.cli" if (checkout / "regraft" / "cli").is_dir() else "commands"
    command = [sys.executable, "-P", "-m", module, *arguments]
    variables = {**os.environ, "PYTHONPATH": str(checkout)}
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("photos", type=Path, nargs="+")
    given = parser.parse_args()
    n_different = 0
    for photos in given.photos:
        facts = []
        for checkout in (given.old, given.new):
            with tempfile.TemporaryDirectory() as folder:
                facts.append(facts_of(checkout.absolute(), photos.absolute(), Path(folder)))
        for name, old in facts[0].items():
            new = facts[1][name]
            is_worded = name == REASON
            n_different += old != new and not is_worded
            mark = "same     " if old == new else "worded   " if is_worded else "DIFFERENT"
            print(f"{photos.name}: {mark} {name}: {old}" + ("" if old == new else f" -> {new}"))
    sys.exit(bool(n_different))


if __name__ == "__main__":
    main()

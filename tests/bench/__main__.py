"""make bench: Regraft beside its peers, and what its own parts cost. Prints a table, writes JSON.

    python -m tests.bench accuracy PHOTOS --config configs/probe.yaml --seeds 0 1 2 3 4
    python -m tests.bench race PHOTOS --policy probe --epochs 10
    python -m tests.bench retrain|throughput|overhead|views PHOTOS
    python -m tests.bench interpolate PHOTOS --policy last_block --epochs 4
    python -m tests.bench volume torchvision:FashionMNIST --sizes 500 5000 20000 70000
    python -m tests.bench copies --sizes 6000 70000 --seeds 0
    python -m tests.bench records --sizes 10000 2000
    python -m tests.bench alarms letters --seeds 0 1 2

Each row of the JSON is one run; a later run adds its rows to the file. `race` makes an environment
of its own for each peer first (about 15 GB in all). Leave the machine alone meanwhile: two cores
shared with anything else measure nothing.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.bench import scale
from tests.bench.alarms import alarms
from tests.bench.blends import blends
from tests.bench.copies import copies
from tests.bench.measure import Row
from tests.bench.peers.environments import PEERS
from tests.bench.plot import draw
from tests.bench.race import Rules, race
from tests.bench.records import records

FIGURES = (
    *("training_s", "whole_s", "fine_tune_s", "evaluate_s", "ingest_s", "cpu_s", "peak_mb"),
    *("shown", "expected", "precision", "recall"),
    *("search_s", "chains", "journal_s", "ledger_s", "timeline_s", "models_s"),
    *(
        "validation_loss",
        "validation_accuracy",
        "test_accuracy",
        "negative_flips",
        "alpha",
        "known",
        "new",
        "plain",
        "kept",
        "bare",
        "from_files",
        "share",
        "share_of_plain",
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    benches = ("accuracy", "race", "retrain", "volume", "throughput", "overhead", "views")
    benches += ("interpolate", "copies", "records", "alarms")
    parser.add_argument("bench", choices=benches)
    parser.add_argument("photos", nargs="?", default="", help="not for copies, records")
    parser.add_argument("--config", default="configs/probe.yaml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--peers", nargs="*", default=PEERS)
    parser.add_argument("--policy", default="probe")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--sizes", type=int, nargs="+", default=[500, 5000, 20_000, 70_000])
    parser.add_argument("--work", type=Path, help="folder to keep; left out: a temporary one")
    parser.add_argument("--out", type=Path, default=Path("bench.json"))
    arguments = parser.parse_args()
    rows: list[Row] = json.loads(arguments.out.read_text()) if arguments.out.exists() else []
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for row in _measure(arguments, folder.resolve()):
            print(row, flush=True)
            rows.append(row)
            arguments.out.write_text(json.dumps(rows, indent=1))
    print(table(rows))
    draw(rows, arguments.out.with_suffix(".svg"))
    print(f"\n{arguments.out} {arguments.out.with_suffix('.svg')}")


def _measure(arguments: argparse.Namespace, folder: Path) -> Iterator[Row]:
    photos = Path(arguments.photos).resolve()
    match arguments.bench:
        case "accuracy":
            return scale.accuracy(photos, arguments.config, arguments.seeds, folder)
        case "race":
            told = (arguments.policy, arguments.epochs, tuple(arguments.seeds))
            return race(photos, Rules(tuple(arguments.peers), *told), folder)
        case "retrain":
            return scale.retrain(photos, folder)
        case "volume":
            return scale.volume(arguments.photos, arguments.sizes, folder)
        case "alarms":
            return alarms(photos, arguments.seeds, folder)
        case "copies":
            return copies(arguments.sizes, arguments.seeds)
        case "records":
            return records(arguments.sizes[0], arguments.sizes[1], folder)
        case "interpolate":
            return blends(photos, arguments.policy, arguments.epochs, arguments.seeds, folder)
        case "views":
            return scale.views(photos, arguments.seeds, folder)
        case "throughput":
            return scale.throughput(photos, folder)
        case _:
            return scale.overhead(photos, folder)


def table(rows: list[Row]) -> str:
    """Markdown: a line a competitor, each figure as median (lowest to highest)."""
    shown = [name for name in FIGURES if any(name in row for row in rows)]
    lines = ["| " + " | ".join(["", *shown]) + " |", "|---" * (len(shown) + 1) + "|"]
    for who in dict.fromkeys((row["bench"], row.get("policy", ""), row["who"]) for row in rows):
        mine = [row for row in rows if (row["bench"], row.get("policy", ""), row["who"]) == who]
        cells = [_cell([float(row[name]) for row in mine if name in row]) for name in shown]
        lines.append("| " + " | ".join([" ".join(filter(None, who)), *cells]) + " |")
    return "\n".join(lines)


def _cell(values: list[float]) -> str:
    if not values:
        return ""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.3g}" if low == high else f"{middle:.3g} ({low:.3g} to {high:.3g})"


if __name__ == "__main__":
    main()

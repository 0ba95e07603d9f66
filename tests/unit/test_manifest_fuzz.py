"""Any table ends as rows that are all accounted for, or as one of our errors."""

import csv
import io
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny import photo_file, write_files

from regraft.core.config import IngestConfig
from regraft.core.errors import ConfigError, DataError
from regraft.data.ingest import fingerprint, ingest
from regraft.data.ingest.manifest_rows import open_rows
from regraft.drift.photos import gather
from regraft.evaluation.predict import list_photos
from regraft.operations.batch.walk import refusals, walk

N_TABLES = 200
NAMES = [
    "image",
    " image ",
    "Image",
    "label",
    "label",
    "split",
    "group",
    "labelled_at",
    "camera",
    "",
    "x",
]
IMAGES = [f"im/{i}.png" for i in range(8)] * 3
IMAGES += [
    "im/9.png",
    "",
    "../im/0.png",
    "/etc/passwd",
    "http://127.0.0.1:99999/x",
    "http://[::1/x",
]
IMAGES += [
    "s3://b/x",
    "reference://x::data:",
    "zip://x::/etc/passwd",
    "a::b",
    "im/\0",
    "é.png",
    "x" * 300,
]
CELLS = [
    "a",
    "b",
    "A",
    " a ",
    "",
    "café",
    "train",
    "val",
    "dev",
    "2026-01-01",
    "9999-12-31",
    "1.2.26",
]
CELLS += ['"', '"q"', "a,b", "a;b", "a\nb", "\ufeff", "$x^{$", "\u202e", "NA", "nan", "3.0", "\x07"]
ENCODINGS = ["utf-8", "utf-8", "utf-8", "utf-8-sig", "latin-1", "utf-16", "cp1252"]


def columns_of(rng):
    names = ["image", "label", *rng.choice(NAMES, rng.integers(0, 4)).tolist()]
    if rng.random() < 0.1:
        names = names[rng.integers(1, 3) :]
    return rng.permutation(names).tolist()


def cells_of(rng, name, n):
    odd = rng.random() < 0.7
    if name.strip().lower() == "image":
        return rng.choice(IMAGES if odd else IMAGES[:24], n).tolist()
    return rng.choice(CELLS if odd else ["a", "b"], n).tolist()


def write_csv(rng, place):
    names, n = columns_of(rng), int(rng.integers(0, 30))
    rows = [names, *zip(*(cells_of(rng, name, n) for name in names), strict=True)]
    delimiter = str(rng.choice([",", ",", ",", ",", ";", "\t"]))
    quoting = int(rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    buffer = io.StringIO()
    end = str(rng.choice(["\n", "\r\n", "\r"]))
    csv.writer(buffer, delimiter=delimiter, quoting=quoting, lineterminator=end).writerows(rows)
    text = buffer.getvalue()
    for _ in range(rng.integers(0, 3) if rng.random() < 0.5 else 0):  # somebody has edited it
        at = int(rng.integers(0, len(text) + 1))
        text = text[:at] + str(rng.choice(['"', ",", "\n", " ", ",,", "'"])) + text[at:]
    data = text.encode(str(rng.choice(ENCODINGS)), "replace")
    if rng.random() < 0.1:
        data = data[: int(rng.integers(0, len(data) + 1))]
    place.write_bytes(data)


def column_of(rng, name, n):
    """The column as Arrow has it: text, numbers, times, bytes or lists, with nulls."""
    is_known = name.strip().lower() in ("image", "label")
    kind = str(
        rng.choice(["text", "text", "int", "float", "time", "bytes", "list", "word", "null"])
    )
    if is_known and rng.random() < 0.8:
        kind = "text"
    if kind in ("text", "word", "bytes", "list"):
        values = cells_of(rng, name, n)
    else:
        values = rng.integers(-(2**62), 2**62, n).tolist()
    if rng.random() < 0.5:
        values = [None if rng.random() < 0.2 else value for value in values]
    match kind:
        case "text":
            return pa.array(values, pa.string() if rng.random() < 0.5 else pa.large_string())
        case "word":
            return pa.array(values, pa.string()).dictionary_encode()
        case "int":
            return pa.array(values, pa.int64())
        case "float":
            return pa.array([None if v is None else float(v) for v in values], pa.float64())
        case "time":
            unit = str(rng.choice(["ms", "us", "ns"]))
            zone = rng.choice([None, "UTC", "Nowhere/City"])
            return pa.array(values, pa.timestamp(unit, zone))
        case "bytes":
            return pa.array([None if v is None else v.encode("latin-1", "replace") for v in values])
        case "list":
            return pa.array([None if v is None else [v] for v in values], pa.list_(pa.string()))
        case _:
            return pa.nulls(n)


def write_parquet(rng, place):
    names, n = columns_of(rng), int(rng.integers(0, 30))
    table = pa.Table.from_arrays([column_of(rng, name, n) for name in names], names=names)
    pq.write_table(table, place)
    if rng.random() < 0.1:
        data = bytearray(place.read_bytes())
        data[int(rng.integers(0, len(data)))] ^= 255
        place.write_bytes(data)


def count_rows(place, **options):
    with open_rows(str(place), **options) as rows:
        return sum(1 for _ in rows)


@pytest.mark.slow
def test_any_table_ends_with_each_row_accounted_for_or_with_an_error_of_ours(tmp_path):
    write_files(tmp_path, {f"im/{i}.png": photo_file(i) for i in range(8)})
    write_files(tmp_path, {f"early/{i % 2}/{i}.png": photo_file(i + 20) for i in range(4)})
    counts = {"table": 0, "refused": 0}
    for seed in range(N_TABLES):
        rng = np.random.default_rng(seed)
        place = tmp_path / f"m{seed}.{'parquet' if seed % 2 else 'csv'}"
        (write_parquet if seed % 2 else write_csv)(rng, place)
        config = IngestConfig(photos=str(place), max_quarantine_fraction=1.0, n_workers=1)
        late = config.model_copy(update={"photos": f"{tmp_path}/early", "inbox": str(place)})
        for options in (config, late):
            try:
                fingerprint(options)
                table = ingest(options)
            except (DataError, ConfigError):
                counts["refused"] += 1
                continue
            counts["table"] += 1
            n_early = 4 if options is late else 0
            n = len(table.frame) + len(table.quarantine)
            n += table.n_ignored + table.n_repeated + table.n_waiting
            n -= int((table.quarantine.reason == "unfinished line").sum())
            assert n - n_early == count_rows(place, may_wait=options is late), seed
            table.quarantine.to_parquet(tmp_path / "quarantine.parquet")  # it can be stored
        with suppress(DataError, ConfigError):
            listed = list_photos([str(place)], config)
            assert len(listed) == count_rows(place, columns=["image"]), seed
            entries = list(walk(str(place), config))
            assert len(entries) == len(listed), seed
            assert len(refusals(entries)) == sum(1 for photo in listed if photo.error), seed
            seen = gather(str(place), config)
            assert len(seen.photos) + len(seen.unusable) == len(listed), seed
    assert min(counts.values()) > N_TABLES // 5, counts  # neither is rare

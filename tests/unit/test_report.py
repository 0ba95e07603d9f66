"""The report page: complete, escaped, without requests and scripts."""

import io
import math
import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from regraft.core.intervals import Interval, wilson_interval
from regraft.evaluation.evaluate import (
    EvaluationReport,
    class_table,
    confusion_table,
    coverage_table,
    reliability_table,
)
from regraft.evaluation.report import GuardView, ScoreView, VerdictView, render
from regraft.evaluation.report.environment import short_path
from regraft.evaluation.report.findings import confused_pairs, findings
from regraft.evaluation.report.matrix import MAX_CLASSES, matrix, short_names
from regraft.model.freeze import FreezeAudit
from regraft.stats import TransferGain

PHOTO = ("path", "label", "split")
DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
VOID = {"meta", "img", "line", "rect", "circle", "polyline"}


def jpeg(side=160):
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def report_of(classes=("ant", "bee", "cat"), truth=(0, 0, 1, 1, 2), said=(0, 1, 1, 1, 2)):
    truth, said = np.array(truth), np.array(said)
    n, names = len(truth), np.array(classes, dtype=object)
    right = truth == said
    n_train = pd.Series(10, index=list(classes))
    return EvaluationReport(
        classes=classes,
        interval_level=0.95,
        n=n,
        accuracy=wilson_interval(int(right.sum()), n, 0.95),
        baseline=wilson_interval(0, n, 0.95),
        baseline_label=classes[0],
        top_k=0,
        top_k_accuracy=Interval(math.nan, math.nan, math.nan),
        macro_f1=0.5,
        transfer=TransferGain(150, 120, 0.842, 0.41, 0.175, 0.432, 0.351, 0.51),
        temperature=1.25,
        ece_before=0.2,
        ece_after=0.1,
        nll_before=0.7,
        nll_after=0.6,
        per_class=class_table(truth, said, classes, n_train, 0.95),
        confusion=confusion_table(truth, said, classes),
        reliability=reliability_table(np.full(n, 0.9), right, 10),
        coverage=coverage_table(np.linspace(0.95, 0.5, n), right),
        slices=pd.DataFrame(columns=["column", "value", "n", "accuracy", "low", "high"]),
        predictions=pd.DataFrame(
            {"label": names[truth], "predicted": names[said], "split": "test"},
        ),
        label_errors=pd.DataFrame(
            columns=[
                *(*PHOTO, "suggested", "self_confidence", "suggested_confidence"),
                "expected_precision",
            ]
        ),
        gallery=pd.DataFrame(
            [
                ("mistake", f"/photos/{names[t]}/{at}.jpg", names[t], names[s], 0.9, "x", jpeg())
                for at, (t, s) in enumerate(zip(truth, said, strict=True))
                if t != s
            ],
            columns=["kind", "path", "label", "predicted", "confidence", "note", "jpeg"],
        ),
        facts={"source": "/photos", "MLflow run": "run7"},
        config={"tune.epochs": "8"},
        class_counts=pd.DataFrame({"label": classes, "train": 1200, "validation": 3, "test": 2}),
        plan=pd.DataFrame(
            {
                "block": ["stem", "head"],
                "n_values": [1000, 50],
                "n_frozen": [1000, 0],
                "lr_factor": [0.0, 1.0],
            }
        ),
        audit=FreezeAudit(151, 102, 0, "cd" * 32),
        history=pd.DataFrame(
            {
                "phase": ["head"],
                "epoch": 1,
                "train_loss": 0.2,
                "train_accuracy": 0.9,
                "validation_loss": 0.5,
                "validation_accuracy": 0.8,
                "l2": 0.1,
            }
        ),
        selected_phase="head",
        stopped="the head is solved",
        quarantine=pd.DataFrame(columns=["path", "label", "reason", "detail"]),
        leaks=pd.DataFrame(
            columns=[*PHOTO, *(f"other_{name}" for name in PHOTO), "kind", "distance", "action"]
        ),
    )


class Outline(HTMLParser):
    """The tags in order, the open ones, and the addresses that would be asked for."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.addresses, self.without_alt = [], [], [], 0

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        self.addresses += [attributes[name] for name in ("src", "href") if name in attributes]
        self.without_alt += tag == "img" and not attributes.get("alt")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def outline(html):
    parser = Outline()
    parser.feed(html)
    assert parser.open == []
    return parser


def text(html):
    return " ".join(re.sub(r"<[^>]+>", " ", html.split("</style>")[1]).split())


def test_the_headline_is_the_accuracy_with_its_interval_against_the_baseline():
    page = text(usual_page())
    interval = rf"80\.0 % 95 % .*37\.6{DASH}96\.4 %,.* 5 test photos .*3 classes"
    assert re.search(interval, page)
    assert "“ant” 0.0 %" in page


def test_the_page_asks_for_nothing_and_runs_nothing():
    parsed = outline(usual_page())
    assert "script" not in parsed.tags
    assert "link" not in parsed.tags
    assert all(address.startswith(("data:image/jpeg", "#")) for address in parsed.addresses)
    assert parsed.without_alt == 0


def test_every_link_of_the_page_leads_to_a_section_of_it():
    html = usual_page()
    anchors = {address[1:] for address in outline(html).addresses if address.startswith("#")}
    assert anchors <= set(re.findall(r'id="([^"]+)"', html))


def test_a_class_named_like_a_script_is_text():
    evil = "<script>alert('x')</script>"
    report = report_of(classes=(evil, '"><img src=x onerror=y>', "cat"))
    verdict = VerdictView("keep", evil, guards=(GuardView(evil, "failed", evil),), footnote=evil)
    parsed = outline(render(report, evil, verdict))
    assert "script" not in parsed.tags
    assert "x" not in parsed.addresses


def test_undefined_shares_are_a_dash_and_never_nan():
    html = render(report_of(truth=(0, 0, 2), said=(0, 2, 2)), "insects")
    assert "nan" not in text(html).lower()
    assert f"bee {DASH} {DASH} {DASH} 0 10" in text(html)


def test_a_verdict_stands_first_with_its_reason_and_its_numbers():
    scores = (ScoreView("champion", Interval(0.8, 0.7, 0.9)),)
    verdict = VerdictView("keep", "A tie.", scores)
    page = text(render(report_of(), "insects", verdict))
    assert page.index("Not promoted A tie. champion 80.0 %") < page.index("Test")
    assert "Promoted to champion" in render(report_of(), "t", replace(verdict, status="promote"))
    assert 'id="verdict"' not in usual_page()


@cache
def usual_page():
    """The page of report_of(), which many ask; a string, so nobody can change it."""
    return render(report_of(), "insects")


def findings_about(report, section):
    """The tone and the text of each finding about a section."""
    return [(one.tone, one.text.striptags()) for one in findings(report) if one.section == section]


def test_findings_name_the_weakest_class_and_the_most_confused_pair():
    [(_, weakest)] = findings_about(report_of(), "classes")
    assert re.search(rf"\bant, 1 of 2 .*\(9{DASH}91\s%\), 10 training photos", weakest)
    [(_, pair)] = findings_about(report_of(), "confusion")
    assert re.search(r"\bant\b.* bee once,.* never", pair)


def test_findings_say_when_the_model_is_not_better_than_the_baseline():
    report = replace(report_of(), baseline=Interval(0.5, 0.3, 0.7))
    first = findings(report)[0]
    assert (first.tone, first.section) == ("bad", "headline")
    interval = rf"\bant\b.* 37\.6{DASH}96\.4\s% .* 30\.0{DASH}70\.0\s%"
    assert re.search(interval, first.text.striptags())
    better = replace(report_of(), baseline=Interval(0.0, 0.0, 0.3))
    assert not findings_about(better, "headline")


def test_the_transfer_gain_stands_by_the_headline_with_its_three_accuracies():
    page = text(usual_page())
    gain = r"\+43\.2 points \(\+35\.1 to \+51\.0\): 84\.2 % .*41\.0 % .*17\.5 % "
    assert re.search(gain + r".*\b150 training .*\b120 test photos", page)
    assert not findings_about(replace(report_of(), baseline=Interval(0.0, 0.0, 0.3)), "headline")


def test_negative_transfer_is_an_alarm_that_stands_first():
    gain = TransferGain(150, 120, 0.3, 0.5, 0.2, -0.2, -0.3, -0.1)
    report = replace(report_of(), transfer=gain, baseline=Interval(0.0, 0.0, 0.1))
    assert (findings(report)[0].tone, findings(report)[0].section) == ("bad", "headline")
    gain = rf"Negative transfer.*{MINUS}20\.0 points.*{MINUS}30\.0 to {MINUS}10\.0.* 120 test"
    assert re.search(gain, findings(report)[0].text.striptags())
    assert "Negative transfer" in render(report, "insects")


def test_unproven_transfer_is_a_note():
    gain = TransferGain(150, 120, 0.5, 0.5, 0.2, 0.0, -0.1, 0.1)
    report = replace(report_of(), transfer=gain, baseline=Interval(0.0, 0.0, 0.3))
    [(tone, note)] = findings_about(report, "headline")
    assert tone == "warn"
    assert re.search(rf"{MINUS}10\.0 to \+10\.0.* 120 test", note)


def test_findings_name_a_class_that_is_never_predicted():
    sentences = [f.text.striptags() for f in findings(report_of(truth=(0, 1), said=(0, 0)))]
    assert "Never predicted: bee." in sentences


def test_findings_name_a_slice_that_is_clearly_worse():
    slices = pd.DataFrame(
        [("light", "night", 9, 0.2, 0.1, 0.4), ("light", "day", 9, 0.9, 0.7, 1.0)],
        columns=["column", "value", "n", "accuracy", "low", "high"],
    )
    [(tone, worst)] = findings_about(replace(report_of(), slices=slices), "slices")
    assert tone == "bad"
    assert re.search(r"\blight .*night: 20\.0\s% .*\b9 photos", worst)
    assert 'href="#slices"' in render(replace(report_of(), slices=slices), "insects")


def test_a_flawless_model_has_a_page_too():
    report = report_of(truth=(0, 1, 2), said=(0, 1, 2))
    assert confused_pairs(report).empty
    assert [tone for tone, _ in findings_about(report, "confusion")] == ["good"]
    parsed = outline(render(report, "insects"))
    assert "img" not in parsed.tags


def test_a_long_quarantine_is_counted_whole_and_listed_in_part():
    rows = [(f"/photos/ant/{at}.jpg", "ant", "truncated", "12 bytes") for at in range(63)]
    quarantine = pd.DataFrame(rows, columns=["path", "label", "reason", "detail"])
    page = text(render(replace(report_of(), quarantine=quarantine), "insects"))
    assert "63 files" in page
    assert "ant/49.jpg" in page
    assert "ant/50.jpg" not in page


def test_a_leak_shows_both_of_its_photos():
    pair = ("/photos/ant/1.jpg", "ant", "train", "/photos/ant/2.jpg", "ant", "test")
    report = report_of()
    pictures = [("leak", path, "ant", "", math.nan, "", jpeg(8)) for path in (pair[0], pair[3])]
    report = replace(
        report,
        leaks=pd.DataFrame([(*pair, "near copy", 3, "dropped")], columns=report.leaks.columns),
        gallery=pd.DataFrame(pictures, columns=report.gallery.columns),
    )
    html = render(report, "insects")
    assert "near copy , 3 of 64 bits apart; dropped" in text(html)
    assert outline(html).tags.count("img") == 2


def test_a_leak_without_pictures_is_a_row_of_a_table_and_no_empty_card():
    report = report_of()
    rows = [
        (f"/photos/ant/{at}.jpg", "ant", "train", f"/photos/bee/{at}.jpg", "bee", "test")
        for at in range(3)
    ]
    pictures = [
        ("leak", path, "ant", "", math.nan, "", jpeg(8)) for path in (rows[0][0], rows[0][3])
    ]
    report = replace(
        report,
        leaks=pd.DataFrame(
            [(*row, "copy", 0, "kept") for row in rows], columns=report.leaks.columns
        ),
        gallery=pd.DataFrame(pictures, columns=report.gallery.columns),
    )
    html = render(report, "insects")
    assert html.count('<li class="pair">') == 1
    assert "ant/1.jpg ant train bee/1.jpg bee test copy kept" in text(html)
    assert text(html).count("ant/0.jpg") == 1


def test_labels_to_check_come_with_the_share_of_them_that_is_expected_to_be_wrong():
    report = report_of()
    row = ("/photos/ant/1.jpg", "ant", "test", "bee", 0.1, 0.9, 0.734)
    page = text(
        render(
            replace(report, label_errors=pd.DataFrame([row], columns=report.label_errors.columns)),
            "x",
        )
    )
    assert page.count("About 73 % of them are wrong if 3.3 % of all labels are") == 2
    assert "1 label to check" in page


def test_long_class_names_of_the_matrix_stay_different():
    classes = tuple(f"Anthus pratensis, bird {at:02d} in winter" for at in range(30))
    rows = matrix(report_of(classes, truth=range(30), said=range(30))).rows
    assert [row.short for row in rows] == [f"…{at:02d}…" for at in range(30)]
    mixed = short_names(
        ("bee", "Bombus terrestris, adult worker", "Bombus terrestris, adult queen")
    )
    assert mixed == ("bee", "Bombus terre…dult worker", "Bombus terre…adult queen")


def test_the_freeze_plan_and_its_audit_are_shown():
    page = text(usual_page())
    assert f"stem frozen 1 000 {DASH} head trained 50 1" in page
    assert re.search(r"\b151 frozen parameters .*\b102 buffers", page)


@pytest.mark.parametrize(
    "n_classes", [2, pytest.param(60, marks=pytest.mark.slow), MAX_CLASSES + 1]
)
def test_any_number_of_classes_has_a_page(n_classes):
    classes = tuple(f"class {at}" for at in range(n_classes))
    report = report_of(classes, truth=range(n_classes), said=[1, *range(1, n_classes)])
    html = render(report, "many")
    outline(html)
    shown = n_classes <= MAX_CLASSES
    assert len(matrix(report).rows) == (n_classes if shown else 0)
    assert ('<table class="matrix' in html) == shown
    assert (f"{n_classes} classes are too many" in html) == (not shown)


def test_a_page_of_ten_classes_with_full_galleries_stays_below_a_megabyte():
    report = report_of(tuple("abcdefghij"), truth=range(10), said=[1, *range(1, 10)])
    kinds = ["mistake"] * 12 + ["label_error"] * 12 + ["leak"] * 24
    rows = [(kind, f"{at}.jpg", "a", "b", 0.9, "", jpeg()) for at, kind in enumerate(kinds)]
    gallery = pd.DataFrame(rows, columns=report.gallery.columns)
    assert len(render(replace(report, gallery=gallery), "ten").encode()) < 1_000_000


def test_the_matrix_holds_counts_and_shares_of_the_row():
    first = matrix(report_of()).rows[0]
    assert (first.label, first.n) == ("ant", 2)
    assert [(cell.n, cell.share) for cell in first.cells] == [(1, 0.5), (1, 0.5), (0, 0.0)]


def test_a_single_record_of_training_is_a_table_in_sight():
    assert "<details open><summary>The values" in usual_page()


def test_the_page_says_how_much_can_be_answered_at_each_risk():
    report = report_of(truth=[0] * 40, said=[0] * 39 + [1])  # the least sure photo is the wrong one
    page = text(render(report, "insects"))
    assert "test photos 2.5 %" in page
    assert "≤&nbsp;1 % 98 % 51.2 % 0.0 %" in page  # 39 of 40, all right
    assert "≤&nbsp;5 % 100 % 50.0 % 2.5 %" in page


def test_a_risk_that_no_answer_keeps_is_none_and_a_dash():
    page = text(render(report_of(truth=[0, 0], said=[1, 1]), "insects"))
    assert f"≤&nbsp;1 % none {DASH} {DASH}" in page


def test_curves_of_training_are_drawn():
    report = report_of()
    history = pd.concat([report.history, report.history.assign(epoch=2, l2=0.01)])
    assert outline(render(replace(report, history=history), "insects")).tags.count("polyline") == 5


def test_paths_are_shown_from_the_source_on():
    assert short_path("/photos/cat/1.jpg", "/photos") == "cat/1.jpg"
    assert short_path("/a/b/c/d.jpg", "list.csv") == "b/c/d.jpg"

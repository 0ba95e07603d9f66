"""Model cards contain recorded facts only, are equal in both formats and contain no active code."""

import base64
import json
import re
import shlex
import subprocess
from datetime import UTC, datetime
from html.parser import HTMLParser

import pandas as pd
import pytest
from markdown_it import MarkdownIt

from regraft.model.backbone import BackboneInfo, Preprocessing, SourceTask
from regraft.model.card import Card, ClassContract
from regraft.registry.model_card import ModelCard, html, markdown
from regraft.registry.model_card.render import escape
from regraft.registry.model_card.sections import sections

NASTY = ("<b>|x", "**loud** `code`", "[a](javascript:alert(1))", "&lt; \\| $x$ http://a.b", "~~a~~")
METRICS = {
    "n_test": 50.0,
    "baseline": 0.3,
    "baseline_low": 0.19,
    "baseline_high": 0.44,
    "macro_f1": 0.88,
    "top_3_accuracy": 0.98,
    "transfer_gain": 0.4,
    "random_accuracy": 0.5,
    "ece_before": 0.09,
    "ece_after": 0.03,
}


def model_card(classes: tuple[str, ...] = ("cat", "dog"), **changes) -> ModelCard:
    """Return the card of a model that predicted 45 of 50 test photos correctly."""
    info = BackboneInfo(
        source="bundled:efficientnet_lite0",
        architecture="timm:tf_efficientnet_lite0",
        embedding_dim=1280,
        preprocessing=Preprocessing(
            size=224, resize=256, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic"
        ),
        source_task=SourceTask(data="ImageNet-1k", n_classes=1000, licence="Apache-2.0"),
        sha256="5" * 64,
    )
    card = Card(
        classes=classes,
        backbone=info,
        contract=ClassContract(added=classes),
        dataset_digest="d" * 64,
        config={"ingest.photos": "/photos", "freeze.policy": "probe", "tune.seed": "0"},
        versions={"torch": "2.15.0"},
    )
    counts = pd.DataFrame({"label": classes, "train": 30, "validation": 5})
    facts = {
        "name": "my cats",
        "version": 3,
        "registered": datetime(2026, 11, 24, 9, 30, tzinfo=UTC),
        "content_hash": "c" * 64,
        "aliases": {"champion": 3, "previous": 2},
        "card": card.model_copy(update=changes.pop("card", {})),
        "counts": counts,
        "tags": {"test_accuracy": "0.900000", "n_test": "50", "verdict": "promote", "why": "Won."},
        "run_id": "r1",
        "run_tags": {"trained_as": "float32 steps"},
        "metrics": METRICS,
        "tracking_uri": "sqlite:////home/me/secret project/.regraft/mlflow.db",
    }
    return ModelCard(**facts | changes)


class Text(HTMLParser):
    """The visible text and the elements of an HTML page."""

    def __init__(self, page: str):
        super().__init__()
        self.seen, self.elements = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)

    def handle_data(self, data):
        self.seen.append(" ".join(data.split()))


def shown(text: str) -> Text:
    """Return the rendered Markdown."""
    return Text(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text))


def rows(card: ModelCard) -> dict[str, str]:
    return {name: value for section in sections(card) for name, value in section.rows}


def notes(card: ModelCard, title: str) -> str:
    return " ".join(note for s in sections(card) if s.title == title for note in s.notes)


def limits(card: ModelCard) -> list[str]:
    found = [section.notes for section in sections(card) if section.title == "Limits"]
    return [note.replace("\N{NO-BREAK SPACE}", " ") for note in found[0]]


def code(card: ModelCard) -> list[str]:
    return [command for section in sections(card) for _, command in section.code]


@pytest.mark.parametrize("name", NASTY)
def test_names_are_shown_literally_in_both_formats(name):
    card = model_card((name, "dog"), tags={"why": f"Because of {name}."})
    read = shown(markdown(card))
    assert name in read.seen
    assert f"Because of {name}." in read.seen
    assert not {"b", "strong", "em", "s", "a", "script"} & set(read.elements)
    page = html(card)
    assert name in Text(page).seen
    assert f"Because of {name}." in Text(page).seen
    assert not {"a", "script", "img", "link"} & set(Text(page).elements)


def test_a_name_with_line_breaks_stays_in_its_cell():
    assert escape("a\n\n# b") == "a \\# b"


def test_page_is_one_file_without_requests():
    page = html(model_card())
    [policy] = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)
    assert dict(rule.split() for rule in policy.split(";")) == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": "'unsafe-inline'",
    }
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page
    assert "url(" not in page


def test_both_formats_have_the_same_content():
    card = model_card()
    read, page = shown(markdown(card)), Text(html(card))
    said = [" ".join(text.split()) for pair in rows(card).items() for text in pair]
    said += [" ".join(command.split()) for command in code(card)]
    assert len(said) > 50
    assert not [text for text in said if text not in read.seen]
    assert not [text for text in said if text not in page.seen]
    titles = [section.title for section in sections(card)]
    assert titles[:3] == ["Overview", "Usage", "Results"]


def test_numbers_have_intervals():
    found = rows(model_card())
    assert found["Test accuracy"] == "90.0_% (78.6-95.7_%)".translate(
        {ord("_"): 0xA0, ord("-"): 0x2013}
    )
    assert found["Always the largest class"].startswith("30.0")
    assert found["Top-3 accuracy"].startswith("98.0")
    assert found["Gain from the pretrained weights"].startswith("+40.0 points over random weights")
    assert found["Calibration error"].startswith("3.0")
    assert found["Photos"] == "not stated"
    assert found["Pretrained weights"] == "Apache-2.0"


def test_missing_facts_are_shown_as_not_recorded():
    card = model_card(tags={}, metrics={}, run_tags={}, run_id="", aliases={})
    found = rows(card)
    assert found["Test accuracy"] == found["Macro-F1"] == found["MLflow run"] == "not recorded"
    assert found["Decision"] == "no verdict yet"
    assert found["Serves"] == "no, there is no champion"
    assert "nan" not in markdown(card).lower().split()
    assert "Test accuracy</h2>" not in html(card)


def test_the_serving_version_is_named():
    assert rows(model_card())["Serves"] == "yes"
    assert rows(model_card(aliases={"champion": 7}))["Serves"] == "no, the champion is version 7"


def test_limits_contain_numbers():
    every_photo, uncertain = limits(model_card())
    assert "classes" in every_photo
    assert re.search(r"\b50\b.* 95 % .*\b17\.0 points", uncertain)
    assert rows(model_card())["Intended use"] == "not stated"


def test_small_classes_weak_results_and_negative_transfer_are_limits():
    counts = pd.DataFrame({"label": ["cat", "dog"], "train": [19, 20], "validation": [1, 1]})
    changes = (
        ({"counts": counts}, r"\b20 photos\b.*\bcat \(19\)"),
        ({"metrics": METRICS | {"baseline_high": 0.8}}, "largest class"),
        ({"metrics": METRICS | {"transfer_gain": -0.1}}, "random"),
    )
    usual = limits(model_card())
    for change, pattern in changes:
        [added] = [note for note in limits(model_card(**change)) if note not in usual]
        assert re.search(pattern, added)
        assert "dog" not in added


def test_a_model_that_abstains_states_its_threshold():
    card = model_card(card={"abstain_below": 0.65})
    assert rows(card)["Label is unsure below"].startswith("65.0")
    assert (
        limits(card) == limits(model_card())[1:]
    )  # without the limit that every photo gets a class


def test_numbers_of_two_evaluations_are_distinguished():
    usual, card = model_card(), model_card(metrics=METRICS | {"n_test": 40.0})
    assert "40 test photos" in notes(card, "Results").removeprefix(notes(usual, "Results"))
    assert rows(card)["Test photos"] == "50"


def test_changes_to_the_classes_of_the_parent_are_listed():
    contract = ClassContract(retained=("cat",), added=("dog",))
    card = model_card(card={"parent": "p" * 64, "contract": contract})
    assert "added dog" in notes(card, "Classes")
    assert notes(model_card(), "Classes") == ""
    assert rows(card)["Started from"] == f"the model {'p' * 64}"


def test_commands_can_be_pasted_and_contain_no_private_path():
    card = model_card()
    predict, serve, _, reproduce = code(card)
    model, state = ["--model", "my cats/3"], ["--state", ".regraft"]
    assert shlex.split(predict) == ["regraft", "predict", "PHOTO", *model, *state]
    assert shlex.split(serve)[:4] == [
        "MLFLOW_TRACKING_URI=sqlite:///.regraft/mlflow.db",
        *("mlflow", "models", "serve"),
    ]
    assert shlex.split(reproduce) == ["regraft", "reproduce", "my cats/3", *state]
    assert "secret" not in markdown(card) + html(card)
    away = code(model_card(tracking_uri="https://mlflow.example.org"))
    assert shlex.split(away[0]) == ["regraft", "predict", "PHOTO", *model]
    assert shlex.split(away[1])[:2] == ["MLFLOW_TRACKING_URI=https://mlflow.example.org", "mlflow"]


def test_the_http_request_contains_a_photo_of_any_size(tmp_path):
    photo = bytes(range(256)) * 4000
    (tmp_path / "a photo.jpg").write_bytes(photo)
    command = code(model_card())[2].replace("PHOTO", "'a photo.jpg'")
    body, _, call = command.partition("| curl ")
    assert "/invocations --data-binary @-" in call
    sent = subprocess.run(["sh", "-c", body.rstrip("\\\n ")], cwd=tmp_path, capture_output=True)
    request = json.loads(sent.stdout)["dataframe_split"]
    assert request["columns"] == ["image"]
    assert base64.b64decode(request["data"][0][0]) == photo

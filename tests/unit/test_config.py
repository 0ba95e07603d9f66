"""The configuration is strict, frozen and complete, and its errors contain no secret."""

import re
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from regraft.core.config import (
    INSTALLED,
    Config,
    Section,
    apply_overrides,
    config_from_flat,
    fill_empty,
    load_config,
    weaker_guards,
)
from regraft.core.config.strength import _STRENGTHS
from regraft.core.errors import ConfigError

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
SECTIONS = sorted(Config.model_fields)


def said(*overrides, path=None):
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value)


def written(folder, text):
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_yaml_in_configs_loads(path):
    assert load_config(path) == load_config(path)


def test_configs_are_found():
    assert CONFIGS


@pytest.mark.parametrize("section", SECTIONS)
def test_every_field_has_a_default_and_a_line_in_the_docstring(section):
    fields = type(getattr(Config(), section)).model_fields
    documentation = type(getattr(Config(), section)).__doc__
    assert all(not field.is_required() for field in fields.values())
    assert [name for name in fields if name not in documentation] == []


def test_no_value_can_be_changed_afterwards():
    config = Config()
    with pytest.raises(ValidationError, match="frozen"):
        config.tune.epochs = 3
    with pytest.raises(ValidationError, match="frozen"):
        config.tune = config.tune


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("tune.epoch=3", "tune.epochs"),
        ("tune.learning_rat=1", ""),
        ("tunes.epochs=3", "tune"),
        ("freeze.polcy=all", "freeze.policy"),
        ("split.validation_fractoin=0.1", "split.validation_fraction"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(override, nearest):
    key = override.partition("=")[0]
    section = key.partition(".")[0]
    is_known = section in SECTIONS
    unknown = key if is_known else section
    known = type(getattr(Config(), section)).model_fields if is_known else Config.model_fields
    pattern = rf"^--set: .*\b{unknown}\b.*\b{nearest}\b.*\b{', '.join(known)}\b"
    assert re.search(pattern, said(override))


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("tune.epochs=many", "valid integer"),
        ("tune.epochs=-1", "equal to 0"),  # here and below pydantic's own words
        ("tune.batch_size=1", "equal to 2"),
        ("tune.lr=0", "greater than 0"),
        ("tune.lr=.inf", "finite number"),
        ("tune.lr=.nan", "finite number"),
        ("tune.label_smoothing=1", "less than 1"),
        ("tune.head_l2=[0.1, 0]", "greater than 0"),
        ("tune.head_l2=[]", "at least 1 item"),
        ("tune.device=gpu", "'auto', 'cpu'"),
        ("split.test_fraction=15", "less than 1"),
        ("freeze.policy=last block", "'last_block', 'last_n', 'all'"),
        ("freeze.layer_decay=0", "greater than 0"),
        ("freeze.rules=[[head.*, 1, 2]]", "at most 2 items"),
        ("backbone.sha256=ABC", "match pattern"),
        ("tracking.name=../x", "match pattern"),
    ],
)
def test_a_bad_value_is_refused_with_what_would_be_good(override, complaint):
    text = said(override)
    assert override.partition("=")[0] in text
    assert complaint in text
    assert "(got " in text


def test_swapped_fractions_that_leave_nothing_to_train_on_are_refused():
    text = said("split.test_fraction=0.7", "split.validation_fraction=0.3")
    assert re.search(r"^--set: split: .*\btest_fraction\b.*\bvalidation_fraction\b.*\b1\b", text)


@pytest.mark.parametrize("overrides", [("freeze.policy=rules",), ("freeze.rules=[['head.*', 1]]",)])
def test_rules_and_the_policy_rules_come_together(overrides):
    text = said(*overrides)
    assert re.search(r"^--set: freeze: .*\bpolicy\b.*\bfreeze\.rules\b.*\[\['head\.\*', 1\]", text)


@pytest.mark.parametrize("source", ["resnet18", "hub:resnet18", "timm:"])
def test_a_backbone_names_a_known_source(source):
    text = said(f"backbone.source='{source}'")
    for form in ("bundled:NAME", "torchvision:NAME[/WEIGHTS]", "timm:NAME", "file:PATH"):
        assert form in text
    assert repr(source) in text


def test_a_weights_file_needs_its_architecture():
    text = said("backbone.source=file:a.safetensors")
    assert re.search(r"\bbackbone\.architecture\b.*\btimm:NAME\b.*\btorchvision:NAME\b", text)


def test_all_mistakes_are_reported_at_once():
    assert len(said("tune.epoch=3", "tune.lr=0", "ingest.n_workers=-1").splitlines()) == 3


@pytest.mark.parametrize("override", ["tune.epochs", "epochs=3", "=", ""])
def test_an_override_of_another_form_is_refused(override):
    given = repr(override.partition("=")[0])
    assert re.search(rf"--set section\.field=value\b.*{given}", said(override))


def test_an_override_that_is_no_yaml_is_refused():
    text = said("tune.head_l2=[0.1")
    assert "--set tune.head_l2=" in text
    assert "YAML" in text
    assert "0.1" not in text  # the value may be a secret


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("ingest.inbox", "/inbox"),
        ("behaviour.must_pass", "/must"),
        ("classes.renamed", "{cat: kitty}"),
        ("retrain.interpolations", "[0.5]"),
    ],
)
def test_an_override_without_a_value_clears_a_text_a_list_or_a_table(setting, value):
    section, _, field = setting.partition(".")
    set_before = load_config(None, (f"{setting}={value}",))
    cleared = apply_overrides(set_before, (f"{setting}=",))
    assert getattr(getattr(set_before, section), field)
    assert not getattr(getattr(cleared, section), field)


@pytest.mark.parametrize(
    ("override", "way"),
    [
        ("tune.epochs=", r"a number .*--set tune\.epochs=8\."),
        ("promote.smoke_test= ", r"true or false .*--set promote\.smoke_test=True\."),
        ("retrain.start=", "'champion'"),
        ("tune.head_l2=", "at least 1 item"),
        ("tune.epoch=", r"tune\.epochs"),
    ],
)
def test_what_cannot_be_cleared_is_refused_with_what_to_write(override, way):
    assert re.search(way, said(override))


def test_every_guard_that_may_be_weakened_is_compared():
    sections = {name: getattr(Config(), name) for name in ("promote", "behaviour", "registry")}
    settings = {f"{name}.{key}" for name, each in sections.items() for key in each.model_dump()}
    neutral = {"promote.power", "promote.reports_url"}
    assert settings - set(_STRENGTHS) == neutral
    assert set(_STRENGTHS) <= set(Config().flat())


@pytest.mark.parametrize(
    ("strict", "weak"),
    [
        ("promote.approval=human", "promote.approval=automatic"),
        ("promote.rule=superior", "promote.rule=not_inferior"),
        ("promote.level=0.01", "promote.level=0.05"),
        ("promote.max_ms=10.0", "promote.max_ms=0"),  # 0 is no limit
        ("promote.smoke_test=true", "promote.smoke_test=false"),
        ("behaviour.must_pass=/must", "behaviour.must_pass="),
        ("behaviour.min_flip=0.8", "behaviour.min_flip=0.7"),
        ("classes.allow_removal=false", "classes.allow_removal=true"),
        ("split.on_leak=error", "split.on_leak=keep"),
    ],
)
def test_a_guard_that_became_weaker_is_named_with_its_value_before(strict, weak):
    setting, _, value = strict.partition("=")
    before, after = load_config(None, (strict,)), load_config(None, (weak,))
    assert list(weaker_guards(before, after)) == [setting]
    assert weaker_guards(before, after)[setting].lower() == value
    assert weaker_guards(after, before) == weaker_guards(before, before) == {}


def test_overrides_win_over_the_file_and_leave_its_rest(tmp_path):
    path = written(tmp_path, "tune:\n  epochs: 2\n  lr: 1e-2\n")
    config = load_config(path, ("tune.epochs=5",))
    assert (config.tune.epochs, config.tune.lr) == (5, 0.01)


def test_an_empty_file_means_the_defaults(tmp_path):
    assert load_config(written(tmp_path, "# nothing yet\n")) == Config()


@pytest.mark.parametrize("text", ["- tune\n- freeze\n", "tune\n", "3\n"])
def test_yaml_that_is_no_mapping_is_refused(tmp_path, text):
    path = written(tmp_path, text)
    found = type(yaml.safe_load(text)).__name__
    assert re.search(rf"'tune:' .*{path}\b.*\b{found}\b", said(path=path))


def test_a_section_that_is_no_mapping_is_refused(tmp_path):
    path = written(tmp_path, "tune: 3\n")
    assert f"{path}: tune: " in said(path=path)


def test_a_key_that_stands_twice_is_refused(tmp_path):
    path = written(tmp_path, "tune:\n  epochs: 2\nfreeze:\n  policy: all\ntune:\n  lr: 0.1\n")
    assert re.search(rf"{path}\b.*'tune'", said(path=path))


def test_broken_yaml_is_refused_with_its_line(tmp_path):
    path = written(tmp_path, "tune:\n  epochs: [2\n")
    assert re.search(rf"{path}\b.*\bline 3\b", said(path=path))


def test_a_binary_file_is_refused(tmp_path):
    path = tmp_path / "run.yaml"
    for content in (b"\xff\xfe\x00tune", b"tune: \x00"):
        path.write_bytes(content)
        assert re.search(rf"{path}\b.*\bUTF-8\b", said(path=path))


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.yaml", tmp_path):
        assert re.search(rf"{path}\b.*\(.+\)", said(path=path))


@pytest.mark.parametrize(
    "override",
    [
        "tracking.uri=postgresql://user:hunter2@db/mlflow",
        "split.memory_url=s3://key:hunter2@bucket/memory",
        "backbone.source=file:https://user:hunter2@host/weights.safetensors",
        "tracking.uri=[postgresql://user:hunter2@db",
        "tracking.uris=postgresql://user:hunter2@db",
    ],
)
def test_no_error_repeats_a_password(override):
    assert "hunter2" not in said(override)


def test_no_error_about_broken_yaml_quotes_the_line(tmp_path):
    path = written(tmp_path, 'tracking:\n  uri: "postgresql://user:hunter2@db\n  name: x\n')
    assert "hunter2" not in said(path=path)


def test_a_password_is_refused_with_what_to_do_instead():
    text = said("promote.reports_url=s3://key:hunter2@bucket/reports")
    assert "promote.reports_url" in text
    assert "password" in text


def test_an_address_without_a_password_is_unchanged():
    for url in ("s3://bucket/a:b@c", "/a folder/photos", "postgresql://user@db/mlflow", ""):
        assert load_config(None, (f"tracking.uri={url!r}",)).tracking.uri == url


def test_override_all_fills_only_what_is_empty():
    config = load_config(None, ("tracking.uri=sqlite:///mine.db",))
    filled = fill_empty(config, {"tracking.uri": "sqlite:///x.db", "tracking.name": "cells"})
    assert (filled.tracking.uri, filled.tracking.name) == ("sqlite:///mine.db", "cells")


def test_override_all_refuses_in_our_own_words():
    with pytest.raises(ConfigError, match=r"^command line: tracking\.name: .*\bpattern\b"):
        fill_empty(Config(), {"tracking.name": "../../etc"})


def test_every_section_is_strict():
    assert all(issubclass(type(getattr(Config(), name)), Section) for name in SECTIONS)


def test_a_stored_configuration_cannot_name_a_notification_target():
    """A card comes from a file, and a target may be a command that is run."""
    target = '[{"kind": "command", "to": "touch x"}]'
    config = config_from_flat({"tune.epochs": "3", "notify.targets": target})
    assert config.tune.epochs == 3
    assert config.notify.targets == ()


def test_weights_that_no_package_has_are_refused_at_once_with_those_that_one_has():
    text = said("backbone.source=bundled:resnet50")
    assert "bundled:resnet50" in text
    assert all(source in text for source in INSTALLED)


@pytest.mark.parametrize(
    "url",
    [
        "https://h/list.csv?token=T0ken",
        "s3://b/a?versionId=1&X-Amz-Signature=T0ken",
        "abfs://c/a?sv=1&sig=T0ken",
        "https://h/a?access_token=T0ken",
    ],
)
@pytest.mark.parametrize("field", ["ingest.photos", "behaviour.must_pass", "tracking.uri"])
def test_a_url_that_carries_a_token_is_refused_because_it_would_be_stored(url, field):
    text = said(f"{field}={url}")
    assert "contains a token" in text
    assert "T0ken" not in text
    assert load_config(None, ("ingest.photos=s3://b/what?versionId=1",)).ingest.photos

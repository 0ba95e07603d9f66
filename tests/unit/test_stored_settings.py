"""What a run stores of its settings, and who sends the notifications instead."""

import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from types import ModuleType, SimpleNamespace

import pytest

from regraft.core.config import TrackingConfig, load_config
from regraft.core.errors import ScheduleError
from regraft.core.state import open_state
from regraft.operations.retrain import conclude as conclude_module
from regraft.operations.retrain.conclude import RunSnapshot, attempt_without_training
from regraft.operations.schedule import refuse_addresses
from regraft.operations.workflows import retrain as workflow
from regraft.orchestration import runner as runner_module

ADDRESS = "https://hooks.example.org/T0ken"
CONFIG = load_config(
    None, (f"notify.targets=[{{kind: webhook, to: '{ADDRESS}', of: [skip]}}]", "tracking.name=m")
)


@pytest.fixture
def stored(monkeypatch):
    """The arguments that reach ZenML, which is replaced by empty modules."""

    @contextmanager
    def prepared(tracking, state):
        yield "run"

    client = SimpleNamespace(get_pipeline_run=lambda name: SimpleNamespace(name=name))
    contents = {
        "zenml": {},
        "zenml.client": {"Client": lambda: client},
        "zenml.exceptions": {"StepExecutionException": OSError},
    }
    for name, content in contents.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(runner_module, "prepared_run", prepared)
    return []


def test_no_argument_of_a_run_contains_the_address_of_a_target(stored, tmp_path):
    class Pipeline:
        def with_options(self, run_name):
            return lambda *arguments: stored.extend(arguments)

    runner = runner_module.ZenRunner(open_state(tmp_path), lambda dag: Pipeline())
    runner.run("retrain", TrackingConfig(name="m"), CONFIG, "fingerprint")
    config, fingerprint = stored
    assert fingerprint == "fingerprint"
    assert ADDRESS not in config.model_dump_json()
    assert config == CONFIG.model_copy(update={"notify": type(CONFIG.notify)()})


def test_the_process_that_started_a_run_sends_its_messages(monkeypatch, tmp_path):
    sent = []
    monkeypatch.setattr(conclude_module, "send", lambda notify, message: sent.append(notify))
    now = datetime(2026, 11, 30, tzinfo=UTC)
    snapshot = RunSnapshot(now.isoformat(), "", "")
    attempt = attempt_without_training(CONFIG, snapshot, "skip", "nothing new", now)
    run = SimpleNamespace(load=lambda stage: attempt)
    result = workflow._result(run, CONFIG, open_state(tmp_path), None)
    assert result.attempt == attempt
    assert sent == [CONFIG.notify]


def test_a_schedule_that_is_stored_takes_only_targets_that_name_where_the_address_is():
    with pytest.raises(ScheduleError) as refused:
        refuse_addresses(CONFIG.notify)
    assert ADDRESS not in str(refused.value)
    refuse_addresses(load_config(None, ("notify.targets=[{kind: webhook, to: env:HOOK}]",)).notify)

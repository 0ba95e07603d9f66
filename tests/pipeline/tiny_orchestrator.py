"""An orchestrator that can schedule: it runs pipelines here, and writes down the scheduled ones.

A module of its own: ZenML loads flavors by their import path.
"""

import json
import os
from pathlib import Path

from zenml.orchestrators.local.local_orchestrator import (
    LocalOrchestrator,
    LocalOrchestratorConfig,
    LocalOrchestratorFlavor,
)


class SchedulingConfig(LocalOrchestratorConfig):
    folder: str

    @property
    def is_schedulable(self) -> bool:
        return True


class SchedulingOrchestrator(LocalOrchestrator):
    """What a scheduled pipeline would be run by lies in `folder`, a file a schedule."""

    def submit_pipeline(self, snapshot, *arguments, **named):
        if snapshot.schedule is None:
            return super().submit_pipeline(snapshot, *arguments, **named)
        return self._keep(snapshot)

    def submit_dynamic_pipeline(self, snapshot, *arguments, **named):
        if snapshot.schedule is None:
            return super().submit_dynamic_pipeline(snapshot, *arguments, **named)
        return self._keep(snapshot)

    def _keep(self, snapshot):
        kept = {
            "cron": snapshot.schedule.cron_expression,
            "pipeline": snapshot.pipeline_configuration.name,
            "parameters": snapshot.pipeline_configuration.parameters,
        }
        self._path(snapshot.schedule.name).write_text(json.dumps(kept, default=str))

    def delete_schedule(self, schedule):
        self._path(schedule.name).unlink()

    def get_orchestrator_run_id(self):
        return self._orchestrator_run_id or os.environ["TINY_RUN_ID"]

    def _path(self, name):
        return Path(self.config.folder) / f"{name}.json"


class SchedulingFlavor(LocalOrchestratorFlavor):
    @property
    def name(self) -> str:
        return "tiny_scheduling"

    @property
    def config_class(self):
        return SchedulingConfig

    @property
    def implementation_class(self):
        return SchedulingOrchestrator

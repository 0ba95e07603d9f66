"""A training run in MLflow: parameters, live metrics, plots, the report."""

from regraft.registry.tracking.runs import (
    REPORT_FILE,
    Run,
    attach,
    attached,
    connect,
    end_dead_runs,
    end_run,
    log_config,
    log_epoch,
    log_report,
    log_training,
    open_experiment,
    running,
    start_run,
)

__all__ = [
    "REPORT_FILE",
    "Run",
    "attach",
    "attached",
    "connect",
    "end_dead_runs",
    "end_run",
    "log_config",
    "log_epoch",
    "log_report",
    "log_training",
    "open_experiment",
    "running",
    "start_run",
]

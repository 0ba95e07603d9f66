"""Log training runs to MLflow: parameters, live metrics, plots, the report."""

from regraft.registry.tracking.runs import (
    REPORT_FILE,
    Run,
    attach_files,
    connect,
    end_dead_runs,
    end_run,
    has_other_settings,
    load_attachments,
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
    "attach_files",
    "connect",
    "end_dead_runs",
    "end_run",
    "has_other_settings",
    "load_attachments",
    "log_config",
    "log_epoch",
    "log_report",
    "log_training",
    "open_experiment",
    "running",
    "start_run",
]

"""One step a stage: call one core function, log, return."""

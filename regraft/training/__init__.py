"""Fine-tuning, and the measurement of what the transfer gained."""

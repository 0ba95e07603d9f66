"""Fine-tuning, and the measurement of the transfer gain."""

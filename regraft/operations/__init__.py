"""What runs for months: retraining, batches, schedules, notifications, status."""

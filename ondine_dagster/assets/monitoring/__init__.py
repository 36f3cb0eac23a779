"""What a step tells while it works: log lines, events, progress, metrics, traces."""

"""One training loop for every architecture: settings, optimisers, schedules, logs, resumption."""

"""What was decided on cell labels: an append-only log, and the labels that it replays to."""

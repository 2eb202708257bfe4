"""Uses of a finished run: evaluation, prediction for new samples, export for other programs."""

"""One run: fit, callbacks, checkpoints, resume."""

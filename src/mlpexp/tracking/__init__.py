"""TensorBoard events and figures from plain numbers, without Lightning, Hydra and torch."""

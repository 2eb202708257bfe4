"""TensorBoard events and figures, from plain numbers: with no word of Lightning, Hydra or torch."""

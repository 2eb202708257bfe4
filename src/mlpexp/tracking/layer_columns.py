"""The numbers recorded for each layer: columns of `layers.csv` after epoch and layer, and tags in TensorBoard."""

START = -1  # the epoch of the state before training
COLUMNS = ("gradient_norm", "weight_norm", "saturated", "activation_mean", "activation_std", "gradient_std")

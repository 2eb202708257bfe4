"""What is recorded of each layer: the columns of `layers.csv` behind epoch and layer, the tags in TensorBoard."""

START = -1  # the epoch of the state before the first step
COLUMNS = ("gradient_norm", "weight_norm", "saturated", "activation_mean", "activation_std", "gradient_std")

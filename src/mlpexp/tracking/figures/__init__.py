"""Numbers -> matplotlib `Figure`s, without files, runs or pyplot; `png` gives their bytes."""

from mlpexp.tracking.figures.image_grids import first_layer_weights, mistakes, sample_gallery
from mlpexp.tracking.figures.line_plots import layer_lines, learning_curves
from mlpexp.tracking.figures.plot_style import png
from mlpexp.tracking.figures.prediction_plots import boundary, confusion_matrix, predicted_values

__all__ = [
    "boundary",
    "confusion_matrix",
    "first_layer_weights",
    "layer_lines",
    "learning_curves",
    "mistakes",
    "png",
    "predicted_values",
    "sample_gallery",
]

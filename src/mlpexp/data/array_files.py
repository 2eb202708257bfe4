"""Arrays in a file, `data=npz`: `inputs` (N, J) numbers, and `labels` (N,) whole numbers or texts.

With `data.task=regression` labels are numbers (N,), or (N, T) for several targets.

Exact and fast where a table of text is neither. The arrays that a program gives are kept in such files, named by their
content, so that workers, evaluation and later starts find them.
"""

import io
import logging
import math
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlpexp.data import tabular_files
from mlpexp.data.cell_values import EXACT
from mlpexp.data.data_config import DataConfig
from mlpexp.data.table import Table
from mlpexp.runtime.errors import UserError

INPUTS, LABELS = "inputs", "labels"
MANY = 20  # different numbers with fractions among the labels: they are no classes

log = logging.getLogger(__name__)


def load(cfg: DataConfig) -> Table:
    """The arrays of the file that `cfg` names.

    Raises:
        UserError: it is no such file, or its arrays do not fit together.
    """
    (key, path), *_ = tabular_files.own_files(cfg).items()
    label = tabular_files.file_label(key, path)
    content = tabular_files.read_bytes(key, path)
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in (INPUTS, LABELS) if name in file.files}
            names = file.files
    except (ValueError, zipfile.BadZipFile, OSError, EOFError, TypeError, AttributeError):
        raise UserError(
            f"{label} is no file of arrays; write one with numpy.savez(file, {INPUTS}=X, {LABELS}=y)"
        ) from None
    if missing := [name for name in (INPUTS, LABELS) if name not in arrays]:
        raise UserError(
            f"{label} has no array {missing[0]!r}, it has {', '.join(names) or 'none'}; "
            f"write it with numpy.savez(file, {INPUTS}=X, {LABELS}=y)"
        )
    inputs = checked_inputs(arrays[INPUTS], label)
    labels: NDArray[Any]
    classes: list[str] = []
    targets: list[str] = []
    if cfg.learns == "regression":
        labels = _values(arrays[LABELS], label)
        targets = ["y"] if arrays[LABELS].ndim == 1 else [f"y{column}" for column in range(labels.shape[1])]
    else:
        labels, classes = _classes(arrays[LABELS], label)
    if len(inputs) != len(labels):
        raise UserError(f"{label}: {len(inputs):,} samples and {len(labels):,} labels; there must be one for each")
    digest = tabular_files.digest_of({key: content})
    names = [f"x{column}" for column in range(inputs.shape[1])]
    return Table(inputs, labels, classes, names, digest, target_names=targets)


def to_bytes(inputs: Any, labels: Any) -> bytes:
    """The file of these arrays; equal arrays give equal bytes.

    Args:
        inputs: (N, J), anything that numpy makes an array of numbers of, such as a tensor.
        labels: classes or values (N,), or several values of each sample (N, T).

    Raises:
        UserError: they are no such arrays.
    """
    values = checked_inputs(plain_array(inputs, "data=(X, y): X"), "data=(X, y): X")
    classes = plain_array(labels, "data=(X, y): y")
    if classes.dtype == object:
        if any(item is None or (isinstance(item, float) and math.isnan(item)) for item in classes.ravel()):
            raise UserError("data=(X, y): y has a missing value; leave that sample out")
        classes = np.array([str(item) for item in classes.ravel()]).reshape(classes.shape)
    if classes.dtype.kind == "f":  # classes or values: that is checked when it is known which
        _values(classes, "data=(X, y): y")
    else:
        _classes(classes, "data=(X, y): y")
    if len(values) != len(classes):
        raise UserError(
            f"data=(X, y): X has {len(values):,} samples and y {len(classes):,}; there must be one for each"
        )
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {INPUTS: np.ascontiguousarray(values), LABELS: np.ascontiguousarray(classes)}
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def plain_array(given: Any, label: str) -> NDArray[Any]:
    """An array, a tensor or lists as an array.

    Args:
        label: in messages; its last word is the name of the argument.

    Raises:
        UserError: it is a sparse matrix, some of its numbers are masked, or lists are not equally long.
    """
    name = label.rsplit(maxsplit=1)[-1]
    if hasattr(given, "toarray"):
        raise UserError(f"{label} is sparse ({type(given).__name__}); give {name}.toarray()")
    if isinstance(given, np.ma.MaskedArray) and np.ma.is_masked(given):
        raise UserError(f"{label} has masked values; replace them, e.g. by {name}.filled(0)")
    if hasattr(given, "detach"):  # a tensor, which may have a gradient, lie on a GPU, or be bfloat16
        given = given.detach().cpu()
        given = given.float() if given.is_floating_point() and given.element_size() < 4 else given
    try:
        return np.asarray(given)
    except ValueError:
        raise UserError(f"{label} has rows of different lengths; give an array (samples, features)") from None


def checked_inputs(values: NDArray[Any], label: str) -> NDArray[np.floating[Any]]:
    """(N, J) finite floats.

    Raises:
        UserError: another shape or type, or a number that is not finite.
    """
    if values.dtype.kind not in "fiub":
        raise UserError(f"{label} holds {values.dtype}, not numbers; give a DataFrame where some columns are texts")
    if values.ndim != 2:
        ways = {1: "X.reshape(-1, 1)", 0: "an array"}
        raise UserError(
            f"{label} has the shape {values.shape}; it must be (samples, features): give "
            f"{ways.get(values.ndim, 'X.reshape(len(X), -1)')}"
        )
    if 0 in values.shape:
        raise UserError(f"{label} is empty: its shape is {values.shape}; a network needs samples and features")
    inputs = values if values.dtype in (np.float32, np.float64) else values.astype(np.float64)
    if values.dtype.kind in "iu":
        for column in np.flatnonzero((np.abs(inputs) >= EXACT).any(0)):
            if merged := len(np.unique(values[:, column])) - len(np.unique(inputs[:, column])):
                log.warning(
                    "%s: column %d has whole numbers with so many digits that %s different ones are equal to others in "
                    "double precision; subtract a constant from them",
                    label,
                    column,
                    f"{merged:,}",
                )
    if not np.isfinite(inputs).all():
        row, column = np.argwhere(~np.isfinite(inputs))[0]
        raise UserError(
            f"{label}: row {row}, column {column} is {inputs[row, column]}, not finite; replace it, or give a "
            "DataFrame and data.missing=median"
        )
    return inputs


def _values(labels: NDArray[Any], label: str) -> NDArray[np.float64]:
    """The values to predict, (N, T)."""
    if labels.ndim not in (1, 2) or 0 in labels.shape[1:]:
        raise UserError(f"{label} has labels of the shape {labels.shape}; values to predict are (N,) or (N, targets)")
    if labels.dtype.kind not in "fiub":
        raise UserError(f"{label} has labels of the type {labels.dtype}, and data.task=regression predicts numbers")
    values: NDArray[np.float64] = labels.astype(np.float64).reshape(len(labels), -1)
    if not np.isfinite(values).all():
        raise UserError(f"{label} has labels that are not finite; leave those samples out")
    return values


def _classes(labels: NDArray[Any], label: str) -> tuple[NDArray[np.int64], list[str]]:
    """The class of each sample (N,) and the names of the classes, in the order of numbers or of texts."""
    if labels.ndim != 1:
        raise UserError(f"{label} has labels of the shape {labels.shape}; there must be one for each sample: (N,)")
    if labels.dtype.kind not in "fiubU":
        raise UserError(f"{label} has labels of the type {labels.dtype}; give whole numbers or texts")
    if labels.dtype.kind == "f":
        if not np.isfinite(labels).all():
            raise UserError(f"{label} has labels that are not finite; leave those samples out")
        if (labels == labels.round()).all() and np.abs(labels).max(initial=0) <= EXACT:
            labels = labels.astype(np.int64)
    values, codes = np.unique(labels, return_inverse=True)
    if labels.dtype.kind == "f" and len(values) > MANY:
        raise UserError(
            f"{label} has {len(values)} different numbers as labels, which looks like regression: set "
            "data.task=regression, or give classes"
        )
    return codes.astype(np.int64), [str(value) for value in values.tolist()]

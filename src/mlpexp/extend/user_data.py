"""User-defined data sets."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mlpexp.data import clear_cache
from mlpexp.data.data_config import DataConfig
from mlpexp.data.data_sets import DATA_SETS, DataSet
from mlpexp.data.table import Table
from mlpexp.extend.guard import Bind, Guard, decorator
from mlpexp.nn.losses import Task


@decorator
def data_set(
    function: Callable[..., tuple[Any, Any]],
    /,
    *,
    name: str | None = None,
    task: Task = "classification",
    keys: Sequence[str] = (),
    features: Sequence[str] = (),
    classes: Sequence[str] = (),
    targets: Sequence[str] = (),
    image_shape: tuple[int, int] | None = None,
) -> None:
    """Register a data set, `data.name=NAME`; its identity is that of the arrays.

    Args:
        function: `DataConfig` -> inputs (N, J), and classes (N,) from 0 or values (N,) or (N, C).
        keys: of the `data` group that it reads, e.g. ["samples", "noise", "seed"]; others have their defaults there.
        features, classes, targets: names, for tables and figures.
        image_shape: (height, width) where a sample is an image.

    Raises:
        UserError: there is no such key.
    """
    guard = Guard("data set", name, function)
    config_keys = [key for key in DataConfig.__pydantic_fields__ if key != "name"]  # type: ignore[attr-defined]
    if unknown := [key for key in keys if key not in config_keys]:
        raise guard.error(f"reads data.{unknown[0]}, which does not exist; choose of {', '.join(config_keys)}")

    def make(bind: Bind) -> DataSet:
        bound_function = bind(function)

        def load(cfg: DataConfig) -> Table:
            result = guard.call(bound_function, cfg)
            if not isinstance(result, tuple) or len(result) != 2:
                raise guard.error(f"returned a {type(result).__name__}, not the tuple (inputs, targets)")
            inputs = _inputs(guard, result[0])
            names = list(features) or [f"x{k}" for k in range(inputs.shape[1])]
            if len(names) != inputs.shape[1]:
                raise guard.error(f"names {len(names)} features and returned {inputs.shape[1]}")
            if task == "regression":
                values = _values(guard, result[1], len(inputs))
                names_of_targets = list(targets) or [f"y{k}" for k in range(values.shape[1])]
                if len(names_of_targets) != values.shape[1]:
                    raise guard.error(f"names {len(names_of_targets)} targets and returned {values.shape[1]}")
                return Table(inputs, values, [], names, target_names=names_of_targets, image_shape=image_shape)
            labels = _classes(guard, result[1], len(inputs))
            count = max(int(labels.max()) + 1, len(classes))
            if classes and count > len(classes):
                raise guard.error(f"names {len(classes)} classes and returned the class {count - 1}")
            return Table(
                inputs, labels, list(classes) or [str(k) for k in range(count)], names, image_shape=image_shape
            )

        return DataSet(
            load=load,
            task=task,
            keys=tuple(key for key in keys if key != "seed"),
            image_shape=image_shape,
            generated="seed" in keys,
        )

    clear_cache()  # what an earlier version of the function returned
    guard.register(DATA_SETS, make)


def _inputs(guard: Guard, returned: Any) -> Any:
    inputs = np.asarray(returned)
    if inputs.ndim != 2 or not inputs.size or inputs.dtype.kind not in "fiub":
        raise guard.error(f"returned inputs of shape {inputs.shape} and type {inputs.dtype}, not numbers (N, J)")
    if inputs.dtype.kind != "f":
        inputs = inputs.astype(np.float32)
    if not np.isfinite(inputs).all():
        raise guard.error("returned inputs that are not finite")
    return inputs


def _classes(guard: Guard, returned: Any, samples: int) -> Any:
    labels = np.asarray(returned)
    if labels.shape != (samples,) or labels.dtype.kind not in "iub":
        raise guard.error(
            f"returned targets of shape {labels.shape} and type {labels.dtype}, not classes ({samples},) as whole "
            "numbers; for values say task='regression'"
        )
    if labels.min() < 0 or labels.max() == 0:
        raise guard.error(f"returned classes from {labels.min()} to {labels.max()}; they count from 0, at least two")
    return labels.astype(np.int64)


def _values(guard: Guard, returned: Any, samples: int) -> Any:
    values = np.asarray(returned)
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2 or len(values) != samples or values.dtype.kind not in "fiub":
        raise guard.error(
            f"returned targets of shape {values.shape} and type {values.dtype}, not values ({samples},) or "
            f"({samples}, C)"
        )
    if not np.isfinite(values).all():
        raise guard.error("returned targets that are not finite")
    return values.astype(np.float64)

"""Compares a network that was rebuilt from a checkpoint with the metrics that its run recorded.

A network is rebuilt from its configuration and its weights. Where something else changed it in training, such as a
callback of the user's that replaced a layer, the rebuilt network is another one, and its outputs cannot be used.
"""

import math
from collections.abc import Mapping
from typing import Literal

from mlpexp.config.schema import Config
from mlpexp.evaluation import evaluation_data, trained_run
from mlpexp.evaluation.network_outputs import measure_network
from mlpexp.evaluation.trained_run import FULL_PRECISION, TrainedRun
from mlpexp.runtime.errors import UserError

ROUNDING = 1e-5  # relative, in losses, between the engines
TOLERANCE = 1e-3  # relative; other versions, threads and processors differ by less
REDUCED = 0.1  # the same where the run was trained in reduced precision


def compare(run: TrainedRun, part: str, measured: Mapping[str, float]) -> tuple[bool | None, str | None]:
    """Whether result.json has the same metrics of a part to the last bit, and a remark where it has not.

    Args:
        measured: metric -> value, of the weights of `run`.

    Returns:
        (None, None) where nothing is recorded of these weights.

    Raises:
        UserError: they differ by more than rounding.
    """
    # train/* is measured while the weights still change
    if run.result is None or run.result.epoch != run.epoch or part not in ("val", "test"):
        return None, None
    recorded = {name: run.result.metrics.get(f"{part}/{name}") for name in measured}
    pairs = {name: (measured[name], value) for name, value in recorded.items() if value is not None}
    if "loss" not in pairs:
        return None, None
    for name, (rebuilt, recorded_value) in pairs.items():
        if not are_near(rebuilt, recorded_value, run.cfg):
            callbacks = " (it had callbacks of your own, which may change the network)" if run.cfg.callbacks else ""
            raise UserError(
                f"{run.title}: the network rebuilt from its configuration is not the one that was trained{callbacks}: "
                f"{part}/{name} is {rebuilt:.4g}, and {recorded_value:.4g} in result.json; use it in the "
                "program that trained it"
            )
    if all(
        rebuilt == recorded_value or (math.isnan(rebuilt) and math.isnan(recorded_value))
        for rebuilt, recorded_value in pairs.values()
    ):
        return True, None
    rebuilt, recorded_value = pairs["loss"]
    difference = abs(rebuilt - recorded_value) / max(abs(recorded_value), 1e-30)
    is_acc_equal = all(a == b for name, (a, b) in pairs.items() if name == "acc")
    engine = run.result.environment.get("engine")
    if engine in ("compiled", "vmap") and is_acc_equal and difference <= ROUNDING:
        return False, (
            f"result.json has the same accuracy, and a loss that differs by {difference:.0e} (relative): the run was "
            f"trained by the {engine} engine and is evaluated by torch"
        )
    recorded_text = ", ".join(f"{name} {recorded_value}" for name, (_, recorded_value) in pairs.items())
    return False, f"result.json says {recorded_text}: other versions, threads or Trainer flags"


def check(run: TrainedRun) -> None:
    """Compare a network with its run's recorded metrics, where the run's data is still there.

    Raises:
        UserError: it is not the network that was trained.
    """
    if run.result is None or run.result.status not in ("ok", "chance", "stopped"):
        return
    if run.result.epoch != run.epoch:  # nothing is recorded of these weights: those that were tested are compared
        if run.location.directory is None:
            return
        run = trained_run.load(run.location.directory)
    part: Literal["test", "val"] = "test" if run.result and "test/loss" in run.result.metrics else "val"
    try:
        samples = evaluation_data.load_samples(run, part)
    except (UserError, OSError):  # the data has gone, or is another one
        return
    compare(run, part, measure_network(run.module, samples.inputs, samples.labels))


def are_near(value: float, recorded: float, cfg: Config) -> bool:
    """Whether two values of a metric differ by rounding only; `cfg` is of the run that recorded one of them."""
    if math.isnan(recorded) or math.isnan(value):
        return math.isnan(recorded) and math.isnan(value)
    exact = cfg.trainer.flags.get("precision") in FULL_PRECISION
    tolerance = TOLERANCE if exact else REDUCED
    return math.isclose(value, recorded, rel_tol=tolerance, abs_tol=5 * tolerance)

"""Compares a network that was rebuilt from a checkpoint with the metrics that its run recorded.

A network is rebuilt from its configuration and its weights. Where something else changed it in training, such as a
callback of the user's that replaced a layer, the rebuilt network is another one, and its answers mean nothing.
"""

import math
from collections.abc import Mapping
from typing import Literal

from mlpexp.config.schema import Config
from mlpexp.evaluation import evaluation_data, trained_run
from mlpexp.evaluation.network_outputs import measure_network
from mlpexp.evaluation.trained_run import FULL_PRECISION, Trained
from mlpexp.runtime.errors import UserError

ROUNDING = 1e-5  # relative, in losses, between the engines
TOLERANCE = 1e-3  # relative; other versions, threads and processors differ by less
REDUCED = 0.1  # the same where the run was trained in reduced precision


def compare(run: Trained, part: str, found: Mapping[str, float]) -> tuple[bool | None, str | None]:
    """Whether result.json has the same metrics of a part to the last bit, and a remark where it has not.

    Args:
        found: metric -> value, of the weights of `run`.

    Returns:
        (None, None) where nothing is recorded of these weights.

    Raises:
        UserError: they differ by more than rounding.
    """
    # train/* is measured while the weights still change
    if run.result is None or run.result.epoch != run.epoch or part not in ("val", "test"):
        return None, None
    recorded = {name: run.result.metrics.get(f"{part}/{name}") for name in found}
    pairs = {name: (found[name], value) for name, value in recorded.items() if value is not None}
    if "loss" not in pairs:
        return None, None
    for name, (ours, theirs) in pairs.items():
        if not are_near(ours, theirs, run.cfg):
            callbacks = " (it had callbacks of your own, which may change the network)" if run.cfg.callbacks else ""
            raise UserError(
                f"{run.title}: the network rebuilt from its configuration is not the one that was trained{callbacks}: "
                f"{part}/{name} is {ours:.4g}, and {theirs:.4g} in result.json; use it in the program that trained it"
            )
    if all(ours == theirs or (math.isnan(ours) and math.isnan(theirs)) for ours, theirs in pairs.values()):
        return True, None
    ours, theirs = pairs["loss"]
    apart = abs(ours - theirs) / max(abs(theirs), 1e-30)
    others = all(a == b for name, (a, b) in pairs.items() if name == "acc")
    engine = run.result.environment.get("engine")
    if engine in ("compiled", "vmap") and others and apart <= ROUNDING:
        return False, (
            f"result.json has the same accuracy, and a loss that differs by {apart:.0e} (relative): the run was "
            f"trained by the {engine} engine and is evaluated by torch"
        )
    said = ", ".join(f"{name} {theirs}" for name, (_, theirs) in pairs.items())
    return False, f"result.json says {said}: other versions, threads or Trainer flags"


def check(run: Trained) -> None:
    """Compare a network with its run's recorded metrics, where the run's data is still there.

    Raises:
        UserError: it is not the network that was trained.
    """
    if run.result is None or run.result.status not in ("ok", "chance", "stopped"):
        return
    if run.result.epoch != run.epoch:  # nothing is recorded of these weights: those that were tested are compared
        if run.place.directory is None:
            return
        run = trained_run.load(run.place.directory)
    part: Literal["test", "val"] = "test" if run.result and "test/loss" in run.result.metrics else "val"
    try:
        samples = evaluation_data.load_samples(run, part)
    except (UserError, OSError):  # the data has gone, or is another one
        return
    compare(run, part, measure_network(run.module, samples.inputs, samples.labels))


def are_near(ours: float, theirs: float, cfg: Config) -> bool:
    """Whether two values of a metric differ by rounding only; `cfg` is of the run that recorded one of them."""
    if math.isnan(theirs) or math.isnan(ours):
        return math.isnan(theirs) and math.isnan(ours)
    exact = cfg.trainer.flags.get("precision") in FULL_PRECISION
    tolerance = TOLERANCE if exact else REDUCED
    return math.isclose(ours, theirs, rel_tol=tolerance, abs_tol=5 * tolerance)

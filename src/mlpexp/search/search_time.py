"""The time that a search still takes."""

import time
from collections.abc import Callable

import optuna

from mlpexp.sweep.sweep_progress import SweepProgress


class SearchTime:
    """Extrapolates the time of the trials that this command has trained to those that are left.

    Args:
        num_trials: that the study has at the end.
        clock: returns seconds.
    """

    def __init__(self, study: optuna.Study, num_trials: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._study, self._num_trials, self._clock = study, num_trials, clock
        self._start: tuple[float, int] | None = None  # when the first trials began to train, and how many had ended

    def seconds_left(self, progress: SweepProgress) -> float | None:
        """None until something has been measured.

        Args:
            progress: of the runs that are trained now, those of all open trials.
        """
        now, trials = self._clock(), self._study.get_trials(deepcopy=False)
        ended = sum(trial.state.is_finished() for trial in trials)
        if ended == len(trials):  # the finalists train
            return progress.seconds_left()
        if self._start is None:
            self._start = now, ended
        started_s, ended_before = self._start
        left, share = progress.seconds_left(), 0.0
        if left is not None:
            share = progress.elapsed_s / max(1e-9, progress.elapsed_s + left)
        done = ended - ended_before + share * (len(trials) - ended)
        if not done:
            return None
        return (now - started_s) * (self._num_trials - ended_before - done) / done

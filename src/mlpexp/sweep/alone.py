"""A run of a sweep that shares no stack."""

from hydra.core.utils import configure_log, env_override

from mlpexp import training
from mlpexp.errors import Interrupted
from mlpexp.sweep.compose import hydra_config
from mlpexp.sweep.jobs import Job, Outcome, failed


def train_alone(job: Job) -> Outcome:
    """Train one job in the surroundings that Hydra promises it; what it raises stays with it.

    Raises:
        Interrupted: stopped from outside.
    """
    cfg = job.hydra()
    with hydra_config(cfg), env_override(job.env_set):
        configure_log(cfg.hydra.job_logging, cfg.hydra.verbose)
        try:
            return Outcome(result=training.train(job.config, training.Job(directory=job.directory)))
        except Interrupted:
            raise
        except (Exception, SystemExit) as error:
            return failed(job, error)

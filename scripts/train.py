"""Train one network, or with -m a sweep of them; --help lists all keys."""

import require_environment  # noqa: F401

from mlpexp.runtime import signals

signals.exit_at_once()  # until training starts: what follows takes half a second

# ruff: noqa: E402
import sys

import hydra
from omegaconf import DictConfig

from mlpexp.cli import hydra_app

hydra_app.register(sys.argv[1:])


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    """One run; returns the monitored metric of its best epoch, for Hydra's sweepers."""
    from mlpexp.cli import train_job  # torch and lightning: late, so that --help stays instant

    return train_job.run(cfg)


if __name__ == "__main__":
    hydra_app.run(main)

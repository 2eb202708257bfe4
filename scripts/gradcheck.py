"""Compare a network's gradients: by hand, by autograd, by finite differences; with the keys of `train`."""

import sys

import require_environment  # noqa: F401

import hydra
from omegaconf import DictConfig

from mlpexp.cli import hydra_app
from mlpexp.runtime.terminal import say

hydra_app.register(sys.argv[1:])


@hydra.main(version_base="1.3", config_path="../conf", config_name="gradcheck")
def main(cfg: DictConfig) -> None:
    """A table on stdout; exit code 1 where gradients disagree. Writes no file."""
    try:
        config = hydra_app.parse(cfg)

        from mlpexp.models import gradcheck  # torch: late, so that --help is fast
        from mlpexp.runtime.rich_console import Console

        rows = gradcheck.check(config)
    except Exception as error:
        hydra_app.fail(error)
        return
    Console().print(gradcheck.table(rows))
    say("\n".join(gradcheck.verdict(rows)))
    if not all(row.passed for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    hydra_app.run(main, no_sweep="gradients are checked for one network at a time")

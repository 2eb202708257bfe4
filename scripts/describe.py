"""Describe a network without training it: data, layers, shapes, parameters; with the keys of `train`."""

import sys

import require_environment  # noqa: F401

import hydra
from omegaconf import DictConfig

from mlpexp.cli import hydra_app
from mlpexp.runtime.terminal import say, wrapped

hydra_app.register(sys.argv[1:])


@hydra.main(version_base="1.3", config_path="../conf", config_name="describe")
def main(cfg: DictConfig) -> None:
    """The data in one line, a table of the layers, the network in one line. Writes no file."""
    try:
        config = hydra_app.parse(cfg)

        from mlpexp import data  # torch: late, so that --help is fast
        from mlpexp.cli import network_description
        from mlpexp.runtime.rich_console import Console

        prepared = data.prepare(config.data)
        network = config.model.network(prepared.num_inputs, prepared.description.num_outputs)
        say(wrapped(prepared.summary))
        Console().print(network_description.table(network))
        say(wrapped(network_description.summary(network)))
    except Exception as error:
        hydra_app.fail(error)


if __name__ == "__main__":
    hydra_app.run(main, no_sweep="one network is described at a time")

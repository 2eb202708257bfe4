"""Flags of Lightning's Trainer below the key `trainer`: which there are, and which cannot be given."""

import ast
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mlpexp.config import schema
from mlpexp.config.overrides import spell
from mlpexp.runtime.errors import did_you_mean

# flags that mlpexp sets itself, and the key to use instead
OWN_FLAGS = {
    "callbacks": "add yours below callbacks, e.g. +callbacks.mine._target_=…",
    "logger": "add yours below logger, e.g. +logger.mine._target_=…",
    "default_root_dir": "the run's directory is Hydra's, e.g. hydra.run.dir=DIR",
    "enable_checkpointing": "the checkpoints belong to the run's directory",
    "barebones": "it would leave out the metrics that a run is for",
}
# values of other flags with which a run would have no training or no metrics
REFUSED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "limit_train_batches": (lambda value: value == 0, "nothing would be trained"),
    "limit_val_batches": (lambda value: value == 0, "every epoch is validated"),
    "limit_test_batches": (lambda value: value == 0, "a run without a test is data.test_fraction=0"),
    "check_val_every_n_epoch": (lambda value: value != 1, "every epoch is validated"),
    "num_nodes": (lambda value: value != 1, "a run trains on one device"),
}


@cache
def trainer_flags() -> frozenset[str]:
    """The flags of the installed Trainer, from the text of its module: to import Lightning takes a second."""
    package = Path(str(getattr(find_spec("lightning"), "origin", ""))).parent
    tree = ast.parse((package / "pytorch/trainer/trainer.py").read_text(encoding="utf-8"))
    trainer = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Trainer")
    start = next(node for node in trainer.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    return frozenset(argument.arg for argument in start.args.kwonlyargs)


def problems(flags: Mapping[str, Any]) -> Iterator[str]:
    for name, value in flags.items():
        if name in OWN_FLAGS:
            yield f"trainer.{name} is set by mlpexp; {OWN_FLAGS[name]}"
        elif name in REFUSED and REFUSED[name][0](value):
            yield f"trainer.{name}={spell(value)} is not possible: {REFUSED[name][1]}; leave it out"
        elif name not in trainer_flags() and name != "_target_":
            own_keys = [key.removeprefix("trainer.") for key in schema.default_values() if key.startswith("trainer.")]
            candidates, see = [*trainer_flags(), *own_keys], "see lightning.pytorch.Trainer for its flags"
            yield f"unknown key 'trainer.{name}'; {did_you_mean(name, candidates, see, prefix='trainer.')}"

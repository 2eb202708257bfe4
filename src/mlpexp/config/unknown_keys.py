"""The message for a key that does not exist."""

from difflib import get_close_matches

from mlpexp.config import plugin_keys, schema, user_options
from mlpexp.config.trainer_flags import trainer_flags
from mlpexp.runtime import shell_commands
from mlpexp.runtime.errors import did_you_mean

# names of the same keys in other programs
SYNONYMS = {
    "learning_rate": "optimizer.lr",
    "epochs": "trainer.max_epochs",
    "hidden_size": "model.width",
    "hidden": "model.width",
    "units": "model.width",
    "layers": "model.depth",
    "nonlinearity": "model.activation",
    "dropout_rate": "model.dropout",
    "normalization": "model.norm",
    "normalisation": "model.norm",
    "batch_norm": "model.norm",
    "layer_norm": "model.norm",
    "use_bias": "model.bias",
}


def unknown_key(key: str) -> str:
    """The message for a key that does not exist, with the most similar key that does."""
    if key.startswith(("hydra.sweeper.", "hydra.launcher.")):
        return plugin_keys.unknown_key(key)
    group, _, short_name = key.rpartition(".")
    candidates = [name for name in schema.default_values() if name not in schema.NOT_TYPED]
    candidates += user_options.keys()
    same_name = [
        name for name in candidates if name.rsplit(".", 1)[-1] == short_name
    ]  # without its group, such as lr=0.1
    groups = [] if group else list(dict.fromkeys(name.split(".")[0] for name in candidates if "." in name))
    if group == "trainer" and short_name in trainer_flags():
        hint = f"it is a flag of lightning's Trainer: put a + in front, +{key}=…"
    elif group.startswith(("callbacks", "logger")):
        hint = f"to add it, put a + in front: +{key}=…"
    elif group == "hydra" or group.startswith("hydra."):
        hint = "it would be one of Hydra's own, which --cfg hydra lists"
    elif short_name in SYNONYMS or same_name:
        hint = f"did you mean {SYNONYMS.get(short_name) or same_name[0]}?"
    elif not (hint := did_you_mean(key, candidates, cutoff=0.7)) and (near := get_close_matches(key, groups, n=1)):
        inside = next(name for name in candidates if name.startswith(near[0]))
        hint = f"did you mean one of the keys below {near[0]}, e.g. {inside}?"
    elif not hint:
        hint = f"`{shell_commands.plain('train.py')} --help` lists all keys"
    return f"unknown key '{key}'; {hint}"

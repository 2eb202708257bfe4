"""The text of `--help`: what the program does, every key with its default, examples."""

from mlpexp.config import schema
from mlpexp.config.overrides import spell

HEAD = """\
Train multilayer perceptrons on digits or your own table, one or a thousand at once.

  python scripts/train.py                                        one run, with the defaults below
  python scripts/train.py model.depth=2 model.activation=relu    other values: key=value
  python scripts/train.py experiment=notebook                    the course notebook's protocol, exactly
  python scripts/train.py optimizer=adam trainer.max_epochs=30   group=choice, then keys
  python scripts/train.py resume=outputs/DATE/TIME trainer.max_epochs=20    train a finished run further
  python scripts/train.py -m model.depth=1,2,3 seed='range(5)' name=depths  a sweep: 15 runs

Results go to outputs/DATE/TIME, those of a sweep to multirun/NAME; look at them with `tensorboard --logdir DIR`.

Choices (group=choice)

$APP_CONFIG_GROUPS
Keys (key=value), with their defaults
"""
TAIL = """
Any other flag of lightning's Trainer:   +trainer.gradient_clip_val=1.0
Your own callback:                       +callbacks.mine._target_=package.Class
Completion in bash:                      eval "$$(python scripts/train.py -sc install=bash)"
The composed configuration:              python scripts/train.py --cfg job
Hydra's own flags:                       python scripts/train.py --hydra-help
"""


def help_template() -> str:
    """A template for Hydra's `--help`, where `$` is escaped except in Hydra's own variables."""
    rows = [
        (key, spell(default) if not isinstance(default, dict) else "{}", text)
        for key, default, text in schema.keys()
        if key != "trainer.flags"
    ]
    left = max(len(f"{key}={default}") for key, default, _ in rows)
    lines = [f"  {f'{key}={default}':<{left}}  {text}".replace("$", "$$") for key, default, text in rows]
    return HEAD + "\n".join(lines) + "\n" + TAIL

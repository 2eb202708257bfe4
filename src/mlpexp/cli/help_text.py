"""The text of `--help`: what the program does, every key with its default and choices, examples."""

import shutil
from textwrap import wrap

from hydra.core.global_hydra import GlobalHydra

from mlpexp.config import schema, user_options
from mlpexp.config.hydra_messages import GROUPS
from mlpexp.config.overrides import spell
from mlpexp.runtime.shell_commands import plain

HEAD = """\
Train multilayer perceptrons on digits or your own table, one or many at once.

  python scripts/train.py
      one run, with the defaults below
  python scripts/train.py model.depth=2 model.activation=relu
      other values: key=value
  python scripts/train.py optimizer=adam trainer.max_epochs=30
      group=choice, then keys
  python scripts/train.py experiment=notebook
      the course notebook's protocol, exactly
  python scripts/train.py resume=outputs/DATE/TIME trainer.max_epochs=20
      train a finished run further
  python scripts/train.py -m model.depth=1,2,3 'seed=range(5)' name=depths
      a sweep: 15 runs
  python scripts/train.py -m 'zip(model.width=[32,64],optimizer.lr=[0.2,0.1])'
      keys that vary together; 'skip=CONDITION' and limit=N choose from a grid
  python scripts/train.py -m 'grid(model.depth=0)' 'grid(model.width=[32,64])'
      several grids, each with keys of its own

Results go to outputs/DATE/TIME, those of a sweep to multirun/NAME.
Look at them with: tensorboard --logdir DIR
"""
TAIL = """
Any other flag of lightning's Trainer:
  +trainer.gradient_clip_val=1.0
Your own callback:
  +callbacks.mine._target_=package.Class
Completion in bash:
  eval "$(python scripts/train.py -sc install=bash)"
The composed configuration:
  python scripts/train.py --cfg job
Hydra's own flags:
  python scripts/train.py --hydra-help
"""
SCRIPT = "python scripts/train.py"
LEFT = 30  # columns for a key and its default


def help_template() -> str:
    """A template for Hydra's `--help`, in the width of the terminal."""
    width = max(60, min(120, shutil.get_terminal_size().columns))
    lines = [HEAD.replace(SCRIPT, plain("train.py")), "Choices (group=choice)\n"]
    loader = GlobalHydra.instance().config_loader()
    for group in GROUPS:
        lines += _entry(f"{group}:", ", ".join(loader.get_group_options(group)), width)
    lines.append("\nKeys (key=value), with their defaults\n")
    choices = schema.choices()
    for key, default, text in schema.keys():
        if key in schema.NOT_TYPED:
            continue
        unnamed = [choice for choice in choices.get(key, ()) if choice not in text]
        listed = f"; one of {', '.join(choices[key])}" if unnamed and not isinstance(default, bool) else ""
        lines += _entry(f"{key}={spell(default)}", f"{text}{listed}", width)
    for key, default, text in user_options.described():
        lines += _entry(f"{key}={spell(default)}", text, width)
    return "\n".join([*lines, TAIL.replace(SCRIPT, plain("train.py"))]).replace("$", "$$")  # Hydra replaces $NAME


def _entry(left: str, right: str, width: int) -> list[str]:
    """A line for each piece of `right`; a long `left` has a line of its own."""
    pieces = wrap(right, width - LEFT - 4, break_long_words=False, break_on_hyphens=False) or [""]
    head = [f"  {left:<{LEFT}}  {pieces.pop(0)}"] if len(left) <= LEFT else [f"  {left}"]
    return [line.rstrip() for line in (*head, *(f"{'':{LEFT + 4}}{piece}" for piece in pieces))]

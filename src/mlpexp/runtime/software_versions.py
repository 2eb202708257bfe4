"""The software that trained a run: recorded in its result, compared for warnings, no part of its identity."""

import platform
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("mlpexp", "torch", "lightning", "scikit-learn", "hydra-core", "numpy")


@cache
def versions() -> dict[str, str]:
    """Python's and each package's version."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


@cache
def git_commit() -> str | None:
    """The commit of the source tree, with `+` after it where files differ from it; None outside a checkout."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None  # no git, or an empty repository: null in the result
    return described.stdout.strip() or None


@cache
def environment(threads: int, device: str, engine: str = "torch") -> dict[str, str | int]:
    """The properties beside configuration and versions on which a run's bits can depend: torch chooses kernels by them.

    Args:
        threads: of the processor, for one operation.
    """
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    return {"engine": engine, "device": device, "threads": threads, "cpu_capability": capability}


def environment_differences(
    recorded: Iterable[tuple[Mapping[str, str], Mapping[str, str | int]]], now: Mapping[str, str | int]
) -> str:
    """The differences between earlier runs and those that are trained now, in one line; empty without any.

    Args:
        recorded: versions and environment of each earlier run.
        now: the environment of the runs to come; their versions are this process's.
    """
    current = {"torch": versions()["torch"]} | {name: str(value) for name, value in now.items()}
    differences: Counter[tuple[str, str]] = Counter()
    for recorded_versions, environment in recorded:
        before = {"torch": recorded_versions.get("torch", current["torch"])} | {
            n: str(v) for n, v in environment.items()
        }
        before.pop("engine", None)  # part of a run's identity
        differences.update((name, value) for name, value in before.items() if current.get(name, value) != value)
    if not differences:
        return ""
    differing = [f"{count:,} with {name} {value} (now {current[name]})" for (name, value), count in differences.items()]
    return f"finished runs were trained otherwise: {', '.join(differing)}; their last digits may depend on it"

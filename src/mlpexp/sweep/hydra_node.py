"""Hydra's node of a run's configuration: its text, the run's directory and its log file."""

import os
import re
from typing import Any

from mlpexp.config import yaml_text
from mlpexp.sweep.grid import RunSpec
from mlpexp.sweep.plain_config import Plain, Unusual

_LOG_FILE = "${hydra.runtime.output_dir}/${hydra.job.name}.log"


class HydraNode:
    """Hydra's node of a configuration, which differs from run to run in five leaves only.

    Attributes:
        sweep_dir, subdir, output_subdir: not resolved.
        log_name, env_set, needs_run_job: see `ComposedRun`.
    """

    _LEAVES = ("overrides.task", "job.override_dirname", "job.id", "job.num", "runtime.output_dir")

    def __init__(self, plain: Plain) -> None:
        node = plain["hydra"]
        self.sweep_dir, self.subdir = node["sweep"]["dir"], node["sweep"]["subdir"]
        self.output_subdir = node["output_subdir"]
        self.env_set = node["job"]["env_set"]
        self._rules = node["job"]["config"]["override_dirname"]
        self.log_name, is_usual = log_file(node["job_logging"], node["job"]["name"])
        self.needs_run_job = node["job"]["chdir"] is True or not is_usual
        if "${" in str([node["job"]["chdir"], self.env_set, self._rules, node["job"]["name"]]):
            raise Unusual
        marks = {leaf: f"__mlpexp_{number}__" for number, leaf in enumerate(self._LEAVES)}
        for leaf, mark in marks.items():
            group, name = leaf.split(".")
            node[group][name] = mark
        self._leaf_of = {mark: leaf for leaf, mark in marks.items()}
        self._pieces = re.split(f"({'|'.join(self._leaf_of)})", yaml_text.block(plain))

    def text(self, spec: RunSpec, output_dir: str) -> str:
        """The content of hydra.yaml."""
        values = dict(
            zip(
                self._LEAVES,
                (spec.texts, self.dirname(spec), str(spec.number), spec.number, output_dir),
                strict=True,
            )
        )
        return "".join(
            yaml_text.inline(values[self._leaf_of[piece]]) if piece in self._leaf_of else piece
            for piece in self._pieces
        )

    def dirname(self, spec: RunSpec) -> str:
        """`hydra.job.override_dirname`."""
        texts = sorted(override.text for override in spec.overrides if override.key not in self._rules["exclude_keys"])
        return str(self._rules["item_sep"].join(texts).replace("=", self._rules["kv_sep"]))


def absolute_directory(sweep_dir: str, subdir: str) -> str:
    # the calls of run_job: pathlib would not remove `..`
    return os.path.abspath(os.path.join(sweep_dir, subdir))  # noqa: PTH100, PTH118


def log_file(job_logging: Any, job_name: str) -> tuple[str | None, bool]:
    """The log file in a job's directory, and whether that is the only file that the job's logging opens."""
    handlers = (job_logging or {}).get("handlers") or {}
    files = [handler for handler in handlers.values() if handler.get("class") != "logging.StreamHandler"]
    if not files:
        return None, True
    if len(files) == 1 and (files[0].get("class"), files[0].get("filename")) == ("logging.FileHandler", _LOG_FILE):
        return f"{job_name}.log", True
    return None, False

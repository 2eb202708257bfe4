"""Dockerfile, workflow, pre-commit, citation and issue templates agree with the project."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", text("Makefile"), re.MULTILINE))


def test_the_citation_has_the_newest_released_version_and_its_date():
    version, date = re.findall(r"^## (\d+\.\d+\.\d+) - (\S+)$", text("CHANGELOG.md"), re.MULTILINE)[0]
    citation = yaml.safe_load(text("CITATION.cff"))
    assert (str(citation["version"]), citation["date-released"]) == (version, date)
    assert {"cff-version", "message", "title", "authors"} <= set(citation)


def test_the_workflow_runs_the_projects_check_and_targets_that_exist():
    jobs = yaml.safe_load(text(".github/workflows/ci.yml"))["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert ".ci/run" in commands
    for command in commands:
        words = shlex.split(command)
        assert (words[0] == "make" and words[1] in targets()) or (ROOT / words[0]).exists(), command
    minimum = tomllib.loads(text("pyproject.toml"))["project"]["requires-python"].removeprefix(">=")
    assert jobs["test"]["strategy"]["matrix"]["python"][0] == minimum


def test_the_dockerfile_copies_what_exists_and_installs_extras_that_exist():
    project = tomllib.loads(text("pyproject.toml"))["project"]
    (extras,) = re.findall(r"\*\.whl\)\[([\w,]+)\]", text("Dockerfile"))
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    for source in re.findall(r"^COPY (?!--from)(\S+)", text("Dockerfile"), re.MULTILINE):
        assert (ROOT / source).exists()
    assert re.search(r'^ENTRYPOINT \["(\w+)"\]$', text("Dockerfile"), re.MULTILINE)[1] in project["scripts"]
    assert ".git" not in text(".dockerignore").splitlines()  # the version comes from its tags


def test_pre_commit_runs_what_make_lint_runs():
    lint = set(re.findall(r"\$\(BIN\)/(\w+)", text("Makefile").split("\nlint:")[1].split("\n\n")[0]))
    hooks = [hook for repo in yaml.safe_load(text(".pre-commit-config.yaml"))["repos"] for hook in repo["hooks"]]
    entries = [hook["entry"] for hook in hooks if hook["language"] == "system"]
    assert {shlex.split(entry)[0].removeprefix(".venv/bin/") for entry in entries} == lint


@pytest.mark.parametrize("name", ["bug.yml", "feature.yml"])
def test_an_issue_template_is_a_form(name):
    form = yaml.safe_load(text(f".github/ISSUE_TEMPLATE/{name}"))
    assert {"name", "description", "body"} <= set(form)
    identifiers = [field["id"] for field in form["body"]]
    assert len(set(identifiers)) == len(identifiers) and all("label" in field["attributes"] for field in form["body"])

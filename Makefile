# `make` alone lists the targets. Each target sets up the environment first if pyproject.toml or constraints.txt changed.
PYTHON ?= python3
ARGS ?=
LOGDIR ?= outputs
CPU ?=

BIN := .venv/bin
READY := .venv/.ready
# variables, because a comma inside $(or …) or $(if …) would end the argument
SWEEP := model.depth=1,2 model.width=32,64 'seed=range(3)'
CPU_WHEELS := --extra-index-url https://download.pytorch.org/whl/cpu
STUDIES := notebook_variants depth_width_activation vanishing edge_of_chaos width_double_descent \
	learning_rate_transfer seed_luck
# with byte code, which every worker and every program that a test starts would otherwise compile again
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -rs
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup train sweep test test-quick fuzz test-thorough test-trackers test-backends test-wheel test-examples test-slurm faults calibrate lint docs pictures bench tensorboard report studies

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST) | \
		awk '{ line = substr($$0, 1, 19); size = split(substr($$0, 20), words, " "); \
			for (i = 1; i <= size; i++) { \
				if (length(line) + length(words[i]) > 78) { print line; line = sprintf("%18s", "") } \
				line = line (i == 1 ? "" : " ") words[i] } \
			print line }'

setup: $(READY)  ## create .venv with the versions of constraints.txt; on Linux CPU=1 leaves out the CUDA libraries

train: $(READY)  ## train one network on the digits; ARGS='model.depth=2 …' for other settings
	@$(BIN)/python scripts/train.py $(ARGS)

sweep: $(READY)  ## train a grid of 12 networks; ARGS='model.width=32,64 …' for another grid
	@$(BIN)/python scripts/train.py -m $(if $(ARGS),$(ARGS),$(SWEEP))

test: $(READY)  ## run all tests, about 5 minutes on two cores; ARGS='tests/test_models.py -k momentum' for some
	@echo "all tests: about 5 minutes on two cores (make test-quick: 1 minute)"
	@$(PYTEST) -n 2 --dist worksteal $(ARGS)

test-quick: $(READY)  ## run the tests that are not marked slow, about 1 minute on two cores
	@echo "tests that are not marked slow: about 1 minute on two cores"
	@$(PYTEST) -n 2 --dist worksteal -m 'not slow' $(ARGS)

fuzz: $(READY)  ## compare random stacks with runs alone, bit for bit; STACKS=1000 for more than 200
	@MLPEXP_FUZZ=$(or $(STACKS),200) $(PYTEST) tests/test_stack.py -k whatever_the_options $(ARGS)

test-thorough: $(READY)  ## run the tests of which make test runs a sample or none, test-backends among them; some minutes
	@MLPEXP_THOROUGH=1 $(PYTEST) -m thorough $(ARGS)

test-trackers: $(READY)  ## test MLflow and Weights & Biases with all their tests; a minute
	@MLPEXP_THOROUGH=1 $(PYTEST) tests/test_trackers.py tests/test_tracking_servers.py $(ARGS)

test-backends: $(READY)  ## test sweeps over worker processes, dask and submitit, with workers killed; some minutes
	@MLPEXP_THOROUGH=1 $(PYTEST) tests/test_backends.py $(ARGS)

test-wheel: $(READY)  ## build the wheel, install it into a fresh environment and use it without the checkout; a minute
	@MLPEXP_WHEEL=1 $(PYTEST) tests/test_wheel.py $(ARGS)

test-examples: $(READY)  ## run the notebooks of examples/ in a small form; SIZE=full as they are; a minute
	@MLPEXP_EXAMPLES=$(or $(SIZE),small) $(PYTEST) tests/test_examples.py $(ARGS)

test-slurm: $(READY)  ## test a sweep through a Slurm that is started for it; needs root, slurm-wlm and munge
	@tests/slurm/run.sh

faults: $(READY)  ## kill sweeps, fill disks, flip bits and check that nothing is lost; about an hour on two cores, ARGS=--sample for 1
	@OMP_NUM_THREADS=1 $(BIN)/python tests/faults/campaign.py $(ARGS)

calibrate: $(READY)  ## error rates, power and coverage of the statistics in simulated sweeps; about 30 minutes
	@OMP_NUM_THREADS=1 $(BIN)/python tests/calibration/calibrate.py $(ARGS)

lint: $(READY)  ## check style and types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

docs: $(READY)  ## build the documentation as a site in site/, offline, with links checked; a minute
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "open site/index.html"

pictures: $(READY)  ## make the pictures of README and docs again; needs chromium and tmux; a minute
	@$(BIN)/python docs/site/pictures.py $(ARGS)

bench: $(READY)  ## measure the cost of a run, of a stack and of a sweep against a plain torch loop; about 10 minutes
	@$(BIN)/python benchmarks/single_run.py
	@$(BIN)/python benchmarks/engines.py $(ARGS)
	@$(BIN)/python benchmarks/sweeps.py $(ARGS)

tensorboard: $(READY)  ## show curves and figures in a browser; LOGDIR=multirun/NAME for a sweep
	@$(BIN)/tensorboard --logdir $(LOGDIR)

report: $(READY)  ## write tables and figures of sweeps; ARGS='multirun/NAME …'
	@test -n "$(ARGS)" || { echo "make report needs a sweep, e.g. make report ARGS=multirun/NAME" >&2; exit 2; }
	@$(BIN)/python scripts/report.py $(ARGS)

studies: $(READY)  ## train the experiments of docs/studies and draw their figures; some minutes each
	@for study in $(STUDIES); do \
		$(BIN)/python scripts/train.py -m experiment=$$study && $(BIN)/python scripts/study.py $$study || exit 1; \
	done

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mlpexp needs Python 3.11 or later: make PYTHON=python3.11")'
	@echo "setting up .venv: some minutes the first time"
	@test -n "$(CPU)" || [ "$$(uname -s)" != Linux ] || \
		echo "torch for Linux downloads about 3 GB of CUDA libraries; without a GPU stop here and use: make setup CPU=1"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip --disable-pip-version-check install -qq $(if $(CPU),$(CPU_WHEELS)) \
		--constraint constraints.txt --editable '.[dev]'
	@touch $@

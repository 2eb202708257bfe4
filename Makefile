# `make` alone lists the targets. Each one sets the project up first, and only when its dependencies changed.
PYTHON ?= python3
ARGS ?=
LOGDIR ?= outputs

BIN := .venv/bin
READY := .venv/.ready
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup train sweep test fuzz test-backends test-slurm lint bench tensorboard report faults studies

help:  ## what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY)  ## the environment in .venv, with the versions of constraints.txt

train: $(READY)  ## train one network on the digits; ARGS='model.depth=2 …' for other settings
	@$(BIN)/python scripts/train.py $(ARGS)

sweep: $(READY)  ## train a small grid of networks; ARGS='model.width=32,64 …' for another one
	@$(BIN)/python scripts/train.py -m $(or $(ARGS),model.depth=1,2 model.width=32,64 'seed=range(3)')

test: $(READY)  ## run the tests; ARGS='-k resume' for some of them
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

fuzz: $(READY)  ## hold many random stacks against runs alone, to the bit; STACKS=1000 for more
	@MLPEXP_FUZZ=$(or $(STACKS),200) OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_stack.py -k whatever_the_options $(ARGS)

test-backends: $(READY)  ## sweeps over worker processes, dask and submitit, with workers killed; minutes
	@MLPEXP_BACKENDS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_backends.py $(ARGS)

test-slurm: $(READY)  ## a sweep through a Slurm that is started here; needs root, slurm-wlm and munge
	@tests/slurm/run.sh

faults: $(READY)  ## kill sweeps, fill disks, flip bits, and see that nothing is lost (half an hour or more); ARGS=--sample for less
	@OMP_NUM_THREADS=1 $(BIN)/python tests/faults/campaign.py $(ARGS)

lint: $(READY)  ## check style and types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

bench: $(READY)  ## measure what a run and a sweep cost beside a bare loop in torch and other ways; ten minutes
	@$(BIN)/python benchmarks/single_run.py
	@$(BIN)/python benchmarks/sweeps.py $(ARGS)

tensorboard: $(READY)  ## look at what was trained; LOGDIR=multirun for sweeps
	@$(BIN)/tensorboard --logdir $(LOGDIR)

report: $(READY)  ## tables and pictures of one or more sweeps; ARGS='multirun/NAME'
	@$(BIN)/python scripts/report.py $(ARGS)

studies: $(READY)  ## the classic experiments of docs/studies, trained and drawn; some minutes each
	@for study in notebook_variants depth_width_activation vanishing edge_of_chaos width_double_descent \
			learning_rate_transfer seed_luck; do \
		$(BIN)/python scripts/train.py -m experiment=$$study && $(BIN)/python scripts/study.py $$study || exit 1; \
	done

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mlpexp needs Python 3.11 or later: make PYTHON=python3.11")'
	@echo "setting up .venv (some minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip --disable-pip-version-check install -qq --constraint constraints.txt --editable '.[dev]'
	@touch $@

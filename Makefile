# Every target sets itself up: the first one called creates .venv with the pinned versions.
#
#   make demo                          synthetic cart videos -> tokens -> detr -> scores and a report in demo/
#   make test                          the test suite; make test PYTEST_OPTIONS='-m slow' for the long tests
#   make extract                       the videos of the workspace (this folder, or WORKSPACE=folder) into its store
#   make extract ENCODER=tiny DATASET=data.json STORE=data/features
#   make clean                         removes the demo and what Python leaves behind; .venv, data and runs stay
#
# PIP_OPTIONS='--index-url ...' reaches every pip command; PYTHON=python3.12 makes the environment with another Python.

SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := test

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP_OPTIONS ?=
PYTEST_OPTIONS ?=

VENV := $(CURDIR)/.venv
INSTALLED := $(VENV)/.installed
RUN := $(VENV)/bin/python
CLI := $(RUN) $(CURDIR)/cli.py

WORKSPACE ?= .
ENCODER ?=
DATASET ?=
STORE ?=

# The demo's own size; .ci/run makes a smaller one in another folder.
DEMO ?= demo
DEMO_TRAIN ?= 64
DEMO_VAL ?= 10
DEMO_TEST ?= 16
DEMO_SEED ?= 0
DEMO_HEAD ?= detr
DEMO_EPOCHS ?=

# Made once per size and seed; made again where the generator changes.
DEMO_DATA := $(DEMO)/data/.made-$(DEMO_TRAIN)-$(DEMO_VAL)-$(DEMO_TEST)-seed$(DEMO_SEED)

.PHONY: demo test extract clean install

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt Makefile
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install $(PIP_OPTIONS) --constraint constraints.txt --editable '.[test]'
	touch $@

test: $(INSTALLED)
	$(RUN) -m pytest $(PYTEST_OPTIONS)

extract: $(INSTALLED)
	cd '$(WORKSPACE)' && $(CLI) extract \
	  $(if $(ENCODER),--encoder '$(ENCODER)') $(if $(DATASET),--dataset '$(DATASET)') $(if $(STORE),--store '$(STORE)')

demo: $(INSTALLED) $(DEMO_DATA)
	cp docs/demo_workspace.toml '$(DEMO)/vjepa_loc.toml'
	cd '$(DEMO)' && $(CLI) extract
	cd '$(DEMO)' && $(CLI) train-head --head=$(DEMO_HEAD) --seed $(DEMO_SEED) $(if $(DEMO_EPOCHS),--epochs $(DEMO_EPOCHS))
	cd '$(DEMO)' && $(CLI) evaluate --split test --out report
	@echo 'the report of the demo: $(DEMO)/report/report.html'

$(DEMO_DATA): $(wildcard features/synthetic*.py) | $(INSTALLED)
	mkdir -p '$(DEMO)/data'
	rm -f '$(DEMO)'/data/.made-*
	$(CLI) synthesize '$(DEMO)/data' --train $(DEMO_TRAIN) --val $(DEMO_VAL) --test $(DEMO_TEST) --seed $(DEMO_SEED)
	touch $@

clean:
	rm -rf '$(DEMO)' .pytest_cache *.egg-info
	find vjepa_loc features heads tests -name __pycache__ -type d -prune -exec rm -rf {} +

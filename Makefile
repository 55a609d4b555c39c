# Two commands do all set-up on a fresh machine: `make demo` and `make test`.
# Needed beforehand: Python >= 3.11 with its venv module, and make.

# The first of these that is Python 3.11 or newer; PYTHON=... overrides.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
# One thread a process: two OpenMP pools on two busy cores cost up to 100x (docs/experiments.md).
export OMP_NUM_THREADS ?= 1
export PYTHONSAFEPATH = 1
unexport PYTHONPATH VIRTUAL_ENV

.PHONY: setup demo demo-fresh experiments experiments-full test test-all check gate format bench docs pins clean

setup: .venv/ready  ## create .venv and install everything, pinned

.venv/ready: requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "setup: Python 3.11 or newer is needed and was not found; install it (Debian/Ubuntu: apt-get install python3 python3-venv) or pass PYTHON=/path/to/python"; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { v=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'); echo "setup: $(PYTHON) has no venv module; install it (Debian/Ubuntu: apt-get install python$$v-venv) and run make again"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

demo: setup  ## label CIFAR-10 without labels, train a student, report (resumes; demo-fresh starts over)
	$(BIN)/python -m softlabel.tools.demo

demo-fresh: setup  ## the demo from the start (downloads are kept)
	$(BIN)/python -m softlabel.tools.demo --fresh

experiments: setup  ## check the claims on digits and MNIST, under 40 minutes on 2 cores (resumes): docs/results.md
	$(BIN)/python -m softlabel.tools.experiments

experiments-full: setup  ## the same and CIFAR-10: hours
	$(BIN)/python -m softlabel.tools.experiments --data digits mnist cifar10

test: setup  ## the fast suite, under 5 minutes on 2 cores
	$(BIN)/pytest -n 2 --dist loadfile

test-all: setup  ## everything: slow tests, real images and teachers (downloads, cached)
	$(BIN)/pytest -n 2 --dist loadfile -m "not gpu"

check: setup  ## format, lint, types, import direction
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

gate: setup  ## compile every shipped Triton configuration, without a GPU (minutes)
	$(BIN)/python -m softlabel.tools.compile_gate

format: setup  ## rewrite the code in house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup  ## the figures of README, on this machine: into benchmarks/
	$(BIN)/python -m softlabel.tools.realdata cifar10-resnet .cifar10-resnet.onnx
	$(BIN)/kd-bench label --teacher .cifar10-resnet.onnx --shards demo/tars/test --decoder pillow --json benchmarks/label-cifar10.json
	$(BIN)/kd-bench kernel --device cpu --rows 1024 --classes 21841 --json benchmarks/kernel-21841.json --plot benchmarks/kernel-21841.svg
	$(BIN)/kd-bench kernel --device cpu --rows 256 --classes 1000 --json benchmarks/kernel-1000.json --plot benchmarks/kernel-1000.svg
	$(BIN)/kd-bench kernel --device cpu --rows 128 --classes 10 --top-k 4 --json benchmarks/kernel-10.json --plot benchmarks/kernel-10.svg
	rm -f .cifar10-resnet.onnx

docs: setup  ## rewrite docs/cli.md and docs/format.md from the code
	$(BIN)/python -m softlabel.tools.docs

pins: setup  ## resolve requirements.txt anew
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
		--no-emit-index-url --no-annotate --no-header --upgrade --output-file requirements.txt

clean:
	rm -rf .venv build dist *.egg-info

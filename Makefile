# Everything here runs in .venv, which is made when it is first needed, from the exact versions in constraints.txt.
# Needs make, bash, and a Python from 3.11 to 3.13 with its venv module (Debian: python3-venv). With a C++ compiler (g++ or
# clang++) the native training kernels are built as well; CMake and Ninja come from pip.
#
# constraints.txt is `pip freeze --all` of a fresh environment for each Python, merged, and of ones with the extra bench and
# with dysts on 3.11; where two Pythons differ, as JAX does (0.10.2 is its last release for 3.11), a package has a line for
# each, with a marker.

SHELL := /bin/bash
PYTHON ?= python3
# Tests spend their time in XLA's compiler, which uses one core.
TEST_JOBS ?= 2

bin := .venv/bin
stamp := .venv/.installed
# Tests of one marker, with the last outcome kept under results/.
define recorded
mkdir -p results; set -o pipefail; \
{ $(bin)/python -c 'import jax, platform as p; print(f"{p.machine()}, Python {p.python_version()}, JAX {jax.__version__}")'; \
  $(bin)/python -m pytest -m $(1) -n $(TEST_JOBS) --no-header --durations=20; } 2>&1 | tee results/test-$(1).txt.part; \
status=$$?; mv results/test-$(1).txt.part results/test-$(1).txt; exit $$status
endef
pip_install := $(bin)/python -m pip install --quiet --no-input --disable-pip-version-check --constraint constraints.txt

# What a shell may carry over from another project, and what would mix that into this environment.
unexport PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONWARNINGS PYTHONOPTIMIZE PYTHONSAFEPATH VIRTUAL_ENV
unexport PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT PIP_PYTHON

.PHONY: help .venv demo test test-optimized test-slow test-exhaustive test-pure lint bench bench-env test-env clean distclean
.DELETE_ON_ERROR:

help: ## this list
	@awk -F ':.*## ' '/^[.a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' Makefile

.venv: $(stamp) ## the environment alone; another Python: make .venv PYTHON=python3.13

demo: $(stamp) ## train on digits, quantize, and judge the sMNIST model: about five minutes
	$(bin)/qs5 demo

quick_tests := $(bin)/python -m pytest -m "not slow and not exhaustive" -n $(TEST_JOBS) --dist worksteal

test: $(stamp) ## the tests, without the slow ones; XLA compiles quickly
	$(quick_tests) --quick-xla

test-optimized: $(stamp) ## the same tests, XLA optimizes as in use; it does so for the slow ones, too
	$(quick_tests)

test-slow: $(stamp) ## the slow tests; the outcome is kept in results/test-slow.txt
	@$(call recorded,slow)

test-exhaustive: $(stamp) ## hundreds of random cases; the outcome is kept in results/test-exhaustive.txt
	@$(call recorded,exhaustive)

# What tests the native code itself is skipped, and says so.
test-pure: $(stamp) ## the tests without the native extension: QS5_NATIVE=0
	QS5_NATIVE=0 $(quick_tests) --quick-xla

lint: $(stamp) ## ruff and pyright, each to the end
	@failed=; for check in "ruff check ." "ruff format --check ." pyright; do \
	  echo "$$check"; $(bin)/python -m $$check || failed="$$failed, $$check"; \
	done; [ -z "$$failed" ] || { echo "failed: $${failed#, }" >&2; exit 1; }

bench: $(stamp) ## the measurements in benchmarks/, about 40 minutes; `make bench-env` first for all peers
	$(bin)/python -m benchmarks
	$(bin)/python -m benchmarks.native
	$(bin)/python -m benchmarks.startup
	$(bin)/python -m benchmarks.peers
	$(bin)/python -m benchmarks.scaling --again
	$(bin)/python -m benchmarks.pathx --again

# On Linux pip's torch brings CUDA, several GB, unless a CPU build of that version is found or already installed.
bench-env: $(stamp) ## the peers that the tests do not need: PyTorch and s5-pytorch
	$(pip_install) torch s5-pytorch

test-env: $(stamp) ## what some tests compare with and are skipped without: dysts
	$(pip_install) dysts

clean: ## remove caches and build products, keep .venv
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis
	find src tests benchmarks examples -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean ## clean, and remove .venv
	rm -rf .venv

# The build backend is installed first and used from .venv: pip's own build environment would ignore constraints.txt.
# jaxlib is among it for its C++ headers.
# An environment of the right Python is brought up to date, any other is made anew.
version := import sys; print("%d.%d" % sys.version_info[:2])
$(stamp): pyproject.toml constraints.txt
	@case "$$($(PYTHON) -c '$(version)' 2>/dev/null)" in 3.11|3.12|3.13) ;; *) \
	  echo "qs5 needs Python 3.11, 3.12 or 3.13, but '$(PYTHON)' is $$($(PYTHON) -V 2>&1 || true); install one and run: make .venv PYTHON=/path/to/python3.12" >&2; exit 1;; esac
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' has no venv module: install it (Debian, Ubuntu: apt-get install python3-venv) and run make again" >&2; exit 1; }
	@[ "$$($(bin)/python -c '$(version)' 2>/dev/null)" = "$$($(PYTHON) -c '$(version)')" ] || $(PYTHON) -m venv --clear .venv
	@echo "Installing into .venv: about 1.1 GB, one to three minutes."
	@$(pip_install) pip scikit-build-core nanobind cmake ninja jaxlib
	@$(pip_install) --no-build-isolation --editable '.[dev]'
	@touch $@

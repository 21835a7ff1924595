# `make demo` and `make test` do all of their own set-up: Debian packages, virtual environment, Python packages.
# Both may be run again at any time; what is there is not made anew.

PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
BIN := $(VENV)/bin
PACKAGES := compile models runtime_tests targets tools
# mypy knows a package by its folder: these links give the top-level folders the names they are imported by.
TYPING := build/typing/thumbnet

# An emulator of the RP2040 for some of the slow tests, which are skipped without it.
RP2040JS := build/rp2040js/node_modules/rp2040js

.PHONY: help demo test test-all lint format setup system-packages rp2040js clean

help:
	@echo "make demo    compile a bundled MobileNet for five boards and run it on their emulators"
	@echo "make test    lint, type check and run the tests"
	@echo "make test-all  the same with the tests that take minutes (ImageNet networks, tuning)"
	@echo "make lint    lint and type check only"
	@echo "make format  format Python and C"
	@echo "make rp2040js  fetch the emulator of the Raspberry Pi Pico that some slow tests use (needs npm)"
	@echo "make clean   remove the virtual environment and everything built"

demo: setup
	$(BIN)/thumbnet demo

test: setup lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile -m "not slow"

test-all: setup lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files '*.c' '*.h' '*.cc' | grep -v golden_c)
	@mkdir -p $(TYPING) && for package in $(PACKAGES); do ln -sfn ../../../$$package $(TYPING)/$$package; done
	MYPYPATH=build/typing $(BIN)/mypy --explicit-package-bases --namespace-packages -p thumbnet

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/clang-format -i $$(git ls-files '*.c' '*.h' '*.cc' | grep -v golden_c)

setup: system-packages $(READY)

system-packages:
	@sh tools/install_system_packages.sh

$(READY): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing Python packages into $(VENV) (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $(READY)

rp2040js: $(RP2040JS)

$(RP2040JS):
	npm install --prefix build/rp2040js --no-audit --no-fund rp2040js@1.4.1

clean:
	rm -rf $(VENV) build

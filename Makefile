# What a person does with a checkout. Needs bash and Python 3.11 or newer; the rest is installed into .venv.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:

VENV ?= .venv
PYTHON ?=
# More than cores: many tests wait for something.
WORKERS ?= 6
# Whoever waits for nothing but the database gains nothing from more, and each has to make one.
DATABASE_WORKERS ?= 3
RECONNECTS ?= 300
STORM_S ?= 180
FUZZ_S ?= 600
ARGS ?=
KEEP ?=
export VENV PYTHON
# Else each of the tests' some hundred processes would compile all of it anew.
unexport PYTHONDONTWRITEBYTECODE

# What the tests and the benchmark use beside Python packages: two real RTSP servers (GStreamer's, with encoders, and VLC), a
# browser, and ffmpeg, which the benchmark makes its film with and compares with; ss (iproute2) counts what its feed delivers.
# PostgreSQL and Redis are for private instances: none of the system's is made or started (scripts/packages.sh).
PACKAGES ?= gir1.2-gst-rtsp-server-1.0 gstreamer1.0-rtsp python3-gi gstreamer1.0-plugins-base \
	gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly chromium \
	ffmpeg iproute2 libfaketime postgresql redis-server vlc-bin vlc-plugin-base

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

.PHONY: setup
setup: ## Make the virtual environment and install the pinned packages
	@scripts/setup.sh requirements.txt

.PHONY: run
run: setup ## Migrate, then serve on PORT (8000) with capturing on, until Ctrl-C
	@PYTHON="$(VENV)/bin/python" exec scripts/serve.sh

.PHONY: demo
demo: setup ## Capture three scripted cameras, served on PORT (8000), until Ctrl-C; KEEP=folder keeps what was captured
	@PYTHON="$(VENV)/bin/python" KEEP="$(KEEP)" exec scripts/demo.sh

.PHONY: setup-dev
setup-dev: ## Install what the tests need, system packages too
	@scripts/packages.sh $(PACKAGES)
	@scripts/setup.sh requirements.txt requirements-dev.txt

.PHONY: test
test: lint ## Lint, then run the tests: make test ARGS="tests/engine -k leaderboard" WORKERS=2
	"$(VENV)/bin/python" -m pytest -n $(WORKERS) --dist worksteal $(ARGS)
	TEST_DATABASE=postgresql "$(VENV)/bin/python" -m pytest -n $(DATABASE_WORKERS) --dist worksteal $(ARGS)

.PHONY: test-all
test-all: export TEST_ALL = 1
test-all: test ## As test, with the long lists of inputs: three thousand undamaged streams and the like

.PHONY: test-image
test-image: setup-dev ## As root: build the image without Docker, run it and compose.yaml's services (two minutes)
	@scripts/test-image.sh $(ARGS)

.PHONY: damage
damage: setup-dev ## Measure what is kept behind a relay that lost packets: the table of docs/engine.md (two minutes)
	"$(VENV)/bin/python" -m bench.damage $(ARGS)

.PHONY: bench
bench: setup-dev ## Measure this service and its peers side by side: make bench ARGS=--quick (40 minutes without)
	"$(VENV)/bin/python" -m bench $(ARGS)

.PHONY: soak
soak: setup-dev ## RECONNECTS (300) on one recorder: its memory stays as it is; kill -9 of anything for STORM_S (180)
	SOAK_RECONNECTS=$(RECONNECTS) "$(VENV)/bin/python" -m pytest -s tests/engine/test_soak.py
	STORM_S=$(STORM_S) "$(VENV)/bin/python" -m pytest -s tests/e2e/test_storm.py

.PHONY: fuzz
fuzz: setup-dev ## Damaged cameras beside good ones for FUZZ_S (600), and the engine alone for a tenth of it for each codec
	FUZZ_S=$(FUZZ_S) "$(VENV)/bin/python" -m pytest -s tests/e2e/test_fuzz.py
	FUZZ_S=$(FUZZ_S) "$(VENV)/bin/python" -m pytest -s tests/engine/test_hostile.py -k whatever

.PHONY: screenshots
screenshots: setup-dev ## Make the pictures of README.md anew, of the demo's cameras (two minutes)
	"$(VENV)/bin/python" -m tests.e2e.pictures docs

.PHONY: lint
lint: setup-dev ## Check style, types, layers, migrations, deployment settings and pins
	@scripts/lint.sh

.PHONY: audit
audit: setup-dev ## Ask whether a pinned package has a known vulnerability; part of lint
	@scripts/audit.sh

.PHONY: format
format: setup-dev ## Put the code into the project's format
	"$(VENV)/bin/ruff" check --fix-only .
	"$(VENV)/bin/ruff" format .

.PHONY: requirements
requirements: ## Compile the pins anew: make requirements ARGS=--upgrade
	@scripts/requirements.sh $(ARGS)

.PHONY: clean
clean: ## Remove what make and the tools made; captures and settings stay
	@[ ! -e "$(VENV)/pyvenv.cfg" ] || rm -rf "$(VENV)"
	@rm -rf .venv-previous bench/cache .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

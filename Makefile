# Everything one does in a checkout. `make` alone lists the targets.

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
RUNTIME := $(VENV)/.requirements
DEV := $(VENV)/.requirements-dev
BROWSER := $(VENV)/.chromium

# The first interpreter that is new enough; PYTHON=… chooses another.
new_enough = $(shell $(1) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $(1))
PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11,$(call new_enough,$(name))))
# Processes that tests run on: more than two cores, for each waits for its database half of the time.
WORKERS ?= 3
# More arguments for pytest (make test ARGS="tests/web -x") or for the benchmark.
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test tests faults mutate screenshots lint format bench pins messages mail-snapshots mail-pictures clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(RUNTIME) ## Live through the programme on sample members; MEMBERS=file.csv previews your own file instead
	@$(BIN)/flask demo $(if $(MEMBERS),--members "$(MEMBERS)") $(ARGS)

test: lint tests ## Everything that must hold before a change lands: the checks, then all tests

tests: $(DEV) $(BROWSER) ## The tests alone; ARGS="tests/domain -x" runs some of them
	@CHROMIUM="$$(cat $(BROWSER))" $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal $(ARGS)

FIGURES := $(VENV)/faults
# What takes longest begins first, and each process gets its next test when it is free: else one is at work long after
# the others.
faults: $(DEV) ## Kill, stop and race everything in the long form, and add up what was seen
	@rm -f $(FIGURES); DORMOUSE_FAULTS=long DORMOUSE_FAULTS_FIGURES=$(FIGURES) \
		$(BIN)/python -m pytest -q -n $(WORKERS) --dist load --maxschedchunk 1 \
		tests/faults/test_fuzz.py tests/faults/test_kill.py tests/faults $(ARGS)
	@DORMOUSE_FAULTS_FIGURES=$(FIGURES) $(BIN)/python -m tests.faults.figures

mutate: $(DEV) ## Break the code on purpose, one thing at a time, and see the tests notice; ARGS="lease" does some
	@WORKERS=$(WORKERS) $(BIN)/python -m tests.faults.mutate $(ARGS)

SCREENSHOTS ?= instance/screenshots
screenshots: $(DEV) $(BROWSER) ## Picture every page in every state, both languages, phone and desktop, into SCREENSHOTS
	@rm -rf "$(SCREENSHOTS)"; CHROMIUM="$$(cat $(BROWSER))" SCREENSHOTS="$(abspath $(SCREENSHOTS))" \
		$(BIN)/python -m pytest -q -p no:cacheprovider tests/browser/screenshots.py $(ARGS)
	@echo "Pictures and contact sheets: $(SCREENSHOTS)"

lint: $(DEV) ## Style, types and who may import whom
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { echo "Not formatted: run make format" >&2; exit 1; }
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo >$(VENV)/lint-imports.log || { cat $(VENV)/lint-imports.log >&2; exit 1; }

format: $(DEV) ## Format the code, and mend what the linter can mend
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format --quiet .

bench: $(DEV) ## Compare draft, close, imports, mail, API and pages with bare ones; ARGS="--members 1000000 --messages 300000"
	@$(BIN)/python -m benchmarks $(ARGS)
	@$(BIN)/python -m benchmarks.api $(API)
	@$(BIN)/python -m benchmarks.pages

# Both files are made from the .in files: the second is bound to the versions of the first. Neither names where the
# packages came from, so that they install from any index that has the same files.
COMPILE = CUSTOM_COMPILE_COMMAND="make pins" $(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe \
	--strip-extras --no-emit-index-url --no-emit-trusted-host --no-emit-find-links
pins: $(DEV) ## Fix versions and hashes of what the .in files name; ARGS=--upgrade takes the newest
	$(COMPILE) $(ARGS) --output-file=requirements.txt requirements.in
	$(COMPILE) $(ARGS) --constraint=requirements.txt --output-file=requirements-dev.txt requirements-dev.in

# After a change of texts: this, then write the German ones that the last line counts, then this again.
POT := $(VENV)/messages.pot
PO := translations/de/LC_MESSAGES/messages.po
messages: $(RUNTIME) ## Collect the texts for people, bring the catalogues up to date and compile them
	@$(BIN)/pybabel --quiet extract --mapping-file=babel.cfg --keywords=lazy_gettext --no-location --sort-output \
		--project=Dormouse --output-file=$(POT) app.py adapters blueprints commands domain jobs services templates
	@$(BIN)/pybabel --quiet update --no-fuzzy-matching --ignore-obsolete --width=120 \
		--input-file=$(POT) --output-file=$(PO) --locale=de
	@$(BIN)/pybabel compile --statistics --input-file=$(PO) --output-file=$(PO:.po=.mo) --locale=de
	@$(BIN)/python -m tests.catalogues

mail-snapshots: $(DEV) ## Write every mail in every language to tests/data/mails; read the difference before you commit it
	@$(BIN)/python -m tests.mails

mail-pictures: $(DEV) $(BROWSER) ## Take the pictures of every mail that docs/mail.md shows
	@CHROMIUM="$$(cat $(BROWSER))" $(BIN)/python -m tests.browser.mail_pictures

clean: ## Remove the virtual environment and what tools left behind; instance/ stays
	rm -rf $(VENV) .hypothesis .import_linter_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- What the targets stand on -----------------------------------------------------------------------------------

$(BIN)/python:
	@test -n "$(and $(PYTHON),$(call new_enough,$(PYTHON)))" || { echo "Dormouse needs Python 3.11 or newer;" \
		"$(or $(PYTHON),python3) here is $$($(or $(PYTHON),python3) -V 2>&1 || echo missing)." \
		"Name another: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "Python's venv module does not work here;" \
		"on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

# The development requirements hold the others at the same versions, so either stamp may be made first.
$(RUNTIME): requirements.txt | $(BIN)/python
	@echo "Installing what Dormouse runs on …"
	@$(PIP) install --require-hashes -r requirements.txt
	@touch $@

$(DEV): requirements-dev.txt | $(BIN)/python
	@echo "Installing what tests and checks need …"
	@$(PIP) install --require-hashes -r requirements-dev.txt
	@touch $@ $(RUNTIME)

# The path of a Chromium: the one CHROMIUM names, one that is installed, Debian's package, or Playwright's own download.
find_browser = for name in "$$CHROMIUM" chromium chromium-browser google-chrome; do \
	path="$$(command -v "$$name" 2>/dev/null)" && "$$path" --version >/dev/null 2>&1 && break; path=; done
$(BROWSER): $(DEV) $(if $(CHROMIUM),again) $(if $(shell test -x "$$(cat $(BROWSER) 2>/dev/null)" || echo gone),again)
	@$(find_browser); \
	if [ -z "$$path" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "Installing Chromium for the browser tests …"; \
		apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium \
			>/dev/null; \
		$(find_browser); \
	fi; \
	if [ -z "$$path" ]; then \
		echo "Downloading Playwright's Chromium for the browser tests …"; \
		$(BIN)/playwright install chromium && path="$$($(BIN)/python -c 'from playwright.sync_api import sync_playwright as \
		start; p = start().start(); print(p.chromium.executable_path); p.stop()')"; \
	fi; \
	test -x "$$path" || { echo "No Chromium found for the browser tests: set CHROMIUM=/path/to/chromium" >&2; exit 1; }; \
	echo "$$path" >$@

.PHONY: again
again:

# Environments inside the clone: .venv-book builds the book (no torch), .venv trains and tests,
# .venv-workflow has Snakemake, .venv-browser opens the book in Chromium.
PYTHON ?= python3
UV ?= uv
FIG ?= fig03
SCALE ?= laptop
CHROMIUM = command -v chromium google-chrome >/dev/null || .venv-browser/bin/playwright install --with-deps chromium

.PHONY: help book pdf test lint browse verify run links pictures lock clean

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/'

ifeq ($(SCALE),laptop)
book: .venv-book/.ready ## build the HTML book: _build/html/index.html; SCALE=smoke trains its own runs
	@.venv-book/bin/jupyter-book build . -W --keep-going || { rm -rf _build/.doctrees; exit 1; }
else
book: .venv/.ready .venv-workflow/.ready
	@.venv-workflow/bin/snakemake --profile profiles/local --config scale=$(SCALE)
	@echo "_build/books/$(SCALE)/_build/html/index.html"
endif

test: .venv/.ready .venv-book/.ready .venv-workflow/.ready ## run the tests, which build the book too
	@.venv/bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

lint: .venv/.ready ## ruff, pyright, and that notebooks are stripped: a minute
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/pyright
	@.venv/bin/nbstripout --verify --keep-id --extra-keys "metadata.papermill cell.metadata.papermill" chapters/*.ipynb chapters/*/*.ipynb

browse: .venv-browser/.ready book ## test the built book in headless Chromium
	@$(CHROMIUM)
	@.venv-browser/bin/python -m pytest --confcutdir=tests/browser tests/browser

pdf: .venv-book/.ready .venv-browser/.ready ## print the book with Chromium: _build/pdf/book.pdf
	@$(CHROMIUM)
	@.venv-book/bin/jupyter-book build . -W --keep-going --builder singlehtml || { rm -rf _build/.doctrees; exit 1; }
	@cp _build/singlehtml/chapters/intro.html _build/singlehtml/book.html  # its links are relative to here
	@.venv-browser/bin/python _ext/print_book.py _build/singlehtml/book.html _build/pdf/book.pdf

pictures: .venv-book/.ready ## draw the README's pictures again, from stored runs
	@.venv-book/bin/python _ext/pictures.py

verify: .venv/.ready ## check both theorems numerically, Theorem 1 also exactly
	@.venv/bin/ijr verify

run: .venv/.ready ## repeat a chapter, training what is missing: make run FIG=fig03 SCALE=smoke
	@chapter=$$(grep -l 'scale = \\"' chapters/*/$(FIG)_*.ipynb 2>/dev/null) || { \
	  echo "make run: no chapter with a scale for FIG=$(FIG); there are:" >&2; \
	  grep -l 'scale = \\"' chapters/*/*.ipynb | sed -E 's|.*/([^_]*)_.*|  \1|' >&2; exit 1; }; \
	mkdir -p _build/rerun && \
	.venv/bin/papermill "$$chapter" _build/rerun/$(FIG)_$(SCALE).ipynb -k python3 -p scale $(SCALE)

links: .venv-book/.ready ## check the links to other sites (needs a network)
	@.venv-book/bin/jupyter-book build . --builder linkcheck --keep-going

lock: ## pin requirements/*.txt again from pyproject.toml (needs uv)
	$(UV) pip compile -q -c requirements/constraints.txt --extra book pyproject.toml -o requirements/book.txt
	$(UV) pip compile -q -c requirements/constraints.txt --extra book --extra train --extra bench --extra lightning --extra dev pyproject.toml -o requirements/dev.txt
	$(UV) pip compile -q -c requirements/constraints.txt --extra browser pyproject.toml -o requirements/browser.txt
	$(UV) pip compile -q -c requirements/constraints.txt --extra workflow pyproject.toml -o requirements/workflow.txt

clean: ## remove what was built, keep the environments
	rm -rf _build build ijrlib.egg-info .pytest_cache .ruff_cache .hypothesis

.venv-book/.ready: requirements/book.txt pyproject.toml
.venv/.ready: requirements/dev.txt pyproject.toml
.venv-browser/.ready: requirements/browser.txt pyproject.toml
.venv-workflow/.ready: requirements/workflow.txt pyproject.toml

%/.ready:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, but $(PYTHON) is %d.%d. Name another: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	@echo "Installing $< into $* (a few minutes at the first time)"
	@$(PYTHON) -m venv $*
	@$*/bin/python -m pip install -qq -r $<
	@$*/bin/python -m pip install -qq --no-deps --no-build-isolation -e .
	@touch $@

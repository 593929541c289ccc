# `make workbook` does the main job, `make test` checks everything; both set up .venv first, once.
# Another interpreter: make PYTHON=python3.12 workbook
PYTHON ?= python3

.PHONY: help workbook plots test lab readme export docs clean
.DELETE_ON_ERROR:

help:
	@echo "make workbook  write the benchmark, train and evaluate, print the table, save the figures (resumes after Ctrl-C)"
	@echo "make plots     draw every figure of data/results again, into data/results/plots (or: make plots PLOTS=folder)"
	@echo "make test      check notebooks, package and README, and run every page"
	@echo "make lab       open the pages in JupyterLab"
	@echo "make docs      write the pages as a plain site, into _docs/"
	@echo "make export    after editing pages: clean them, write oczss/ and README.md"

workbook: .venv/ready
	.venv/bin/oczss workbook

# Figures need no PyTorch: where .venv is not there yet, a small environment of their own will do.
DRAWING := $(if $(wildcard .venv/ready),.venv,.venv-plots)
plots: $(DRAWING)/ready
	$(DRAWING)/bin/python -c 'from oczss.ablations import main; main(out="$(PLOTS)")'

.venv-plots/ready:
	$(PYTHON) -m venv .venv-plots
	.venv-plots/bin/python -m pip install --quiet pandas scipy seaborn
	@touch .venv-plots/ready

test: .venv/ready
	.venv/bin/python dev/check.py

lab: .venv/ready
	.venv/bin/jupyter lab nbs

readme: .venv/ready
	.venv/bin/python dev/readme.py

export: .venv/ready
	.venv/bin/nbdev_clean
	.venv/bin/nbdev_export
	.venv/bin/python dev/readme.py

docs: .venv/ready
	.venv/bin/python -m pip install --quiet -e '.[docs]'
	.venv/bin/python dev/docs.py

# The stamp is written last: an install that was broken off is taken up again.
.venv/ready: setup.py settings.ini
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "oczss needs Python 3.10 or newer, this is %s: make PYTHON=python3.12 ..." % sys.version.split()[0])'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --upgrade pip
	.venv/bin/python -m pip install --quiet -e '.[dev]'
	@touch .venv/ready

clean:
	rm -rf .venv .venv-plots oczss.egg-info build dist _docs

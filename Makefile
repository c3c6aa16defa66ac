# make study runs the whole series, make test tests it; both first find or make the Python for it (.venv).
#
#   make study PROFILE=paper DATA=path/to/features DEVICE=cuda
#   make test PYTHON=/path/to/python        # no set-up: this Python, as it is
#   make test EXTRAS=features,cluster       # with the packages that turn clips into features, or train on a cluster

# Given on the command line only: a variable of the same name in the shell may mean something else.
PROFILE  = quick
SEEDS    =
DATASETS =
METHODS  =
OWN      =
DATA     =
DEVICE   =
RESULTS  =
CLIP_LABELS =
PYTHON   =
EXTRAS   =
ARGS     =

# What is given is text: make expands nothing in it, and recipes find it in their environment, as "$$DATA", so that the
# shell runs nothing in it either.
given := PROFILE SEEDS DATASETS METHODS OWN DATA DEVICE RESULTS CLIP_LABELS PYTHON EXTRAS ARGS
$(foreach name,$(given),$(eval override $(name) := $$(value $(name))))
export $(given)

# Any Python 3 can run the set-up. Each is tried, because one on the PATH may still not run (a pyenv shim).
STARTER = $(firstword $(foreach p,python3 python python3.12 python3.11,\
          $(shell $(p) -c 'import sys; sys.version_info >= (3, 8) and print("$(p)")' 2>/dev/null)))

no_python = no working Python 3 was found; install Python 3.11 or 3.12, or activate a conda environment

# A recipe begins with $(ready): the shell variable $$python is then the study's Python.
ready = python=$(if $(PYTHON),"$$PYTHON",$$(TMT_EXTRAS="$$EXTRAS" \
        $(or $(STARTER),$(error $(no_python))) setup_environment.py)) || exit 1

# Kernels started by papermill and nbval find tmtlib here even where it is not installed.
export PYTHONPATH := $(value CURDIR)$(if $(value PYTHONPATH),:$(value PYTHONPATH))

.DEFAULT_GOAL := help
.PHONY: help study results test bench stress lab clean-notebooks setup

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' Makefile

study: ## run all notebooks into study/, and show what comes out beside the reported results: PROFILE=smoke|quick|full|paper (quick), SEEDS=N, DATASETS=mosi,sims, METHODS=a,b|all, OWN=file (run with your rights), DATA=feature files, CLIP_LABELS=1, DEVICE=cpu|cuda, RESULTS=folder
	@$(ready); "$$python" -m tmtlib run --profile="$$PROFILE" $${SEEDS:+--seeds="$$SEEDS"} \
	    $${DATASETS:+--datasets="$$DATASETS"} $${METHODS:+--methods="$$METHODS"} $${OWN:+--own="$$OWN"} \
	    $${DATA:+--data="$$DATA"} $${CLIP_LABELS:+--clip-labels} $${DEVICE:+--device="$$DEVICE"} \
	    $${RESULTS:+--results="$$RESULTS"}

results: ## make the reported results anew (hours), and save the notebooks with them
	@$(ready); TMT_REMAKE=all "$$python" -m tmtlib run --profile full --results results && "$$python" -m tmtlib clean && \
	    "$$python" -m tmtlib report --readme

# Tests use synthetic data and write to a folder of their own, emptied first: a result of older code would be taken
# as done. Two workers with one thread each, so that they do not fight over two cores.
test: ## style, tests, and what every saved notebook shows; one test runs the series from nothing
	@$(ready); rm -rf .build/test-results; mkdir -p .build/test-results; unset TMT_DATA TMT_OWN TMT_CLUSTER TMT_CLIP_LABELS TMT_REMAKE; failed=; \
	export TMT_RESULTS="$$PWD/.build/test-results" OMP_NUM_THREADS=1; \
	"$$python" -m ruff check . || failed="$$failed style"; \
	"$$python" -m pytest -n 2 --dist loadscope --no-loadscope-reorder tests || failed="$$failed tests"; \
	env -u TMT_RESULTS "$$python" -m pytest --nbval-lax -n 2 --dist loadscope notebooks || failed="$$failed notebooks"; \
	if [ -n "$$failed" ]; then echo "make test: FAILED:$$failed"; exit 1; fi; \
	echo "make test: style, tests and notebooks passed"

bench: ## measure speed against a plain implementation, into results/benchmarks
	@$(ready); "$$python" -m tmtlib bench $${DEVICE:+--device="$$DEVICE"} \
	    --json="results/benchmarks/$${DEVICE:-cpu}.json"

stress: ## kill processes at random and at every point of writing, and read hostile files, into results/benchmarks/stress.json
	@$(ready); OMP_NUM_THREADS=1 "$$python" -m benchmarks.stress --json=results/benchmarks/stress.json $$ARGS

lab: ## open the notebooks in JupyterLab: RESULTS=folder of a study (this folder), ARGS="--port 9999 --no-browser"
	@$(ready); $(if $(RESULTS),TMT_RESULTS=$$(cd -- "$$RESULTS" && pwd) || exit 1; export TMT_RESULTS;) "$$python" -m jupyterlab \
	    $(if $(RESULTS),--ServerApp.root_dir="$$TMT_RESULTS",--LabApp.default_url=/lab/tree/notebooks) \
	    $(if $(filter 0,$(shell id -u)),--allow-root) $$ARGS

clean-notebooks: ## re-execute the saved notebooks and strip what changes from run to run
	@$(ready); "$$python" -m tmtlib clean

setup: ## find or make the Python for the study, and print its path
	@$(ready); echo "$$python"

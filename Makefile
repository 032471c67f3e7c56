# Lines that begin with "## " are what `make help` prints.
PYTHON ?= python3
CONFIG ?= default
SEEDS ?= 3
CONSTRAINTS ?= constraints.txt

# Any name is taken as it is written: make expands nothing in it, and the shell sees it as a variable's value.
NAMES := IMAGE IMAGES OUT CHECKPOINT DIR RESUME INIT SUITE CONFIG SEEDS RUNS LOCAL CPU FACE_MODEL
$(foreach name,$(NAMES) ARGS PYTHON CONSTRAINTS,$(eval override $(name) := $$(value $(name))))
export $(NAMES)

BIN := .venv/bin
MONOFACE := $(BIN)/python -m experiments
INSTALLED := .venv/.installed
PAPERS := $(patsubst experiments/%/default.yaml,%,$(wildcard experiments/*/default.yaml))

# FACE_MODEL=KIND is what `prepare face-model KIND` wrote; training names it in two words.
ANOTHER := $(if $(filter-out default,$(FACE_MODEL)),yes)
MODEL_FILE = --face-model="data/face_model_$$FACE_MODEL.npz"
TRAINED_MODEL = --model.init_args.face_model=experiments/shared/face_model_prepared.yaml \
  --model.init_args.face_model.init_args.spec="data/face_model_$$FACE_MODEL.npz"

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup test lint docs bench reconstruct demo face-model-ict sheet corruptions relight evaluate export prepare-photos
.PHONY: $(PAPERS:%=train-%) $(PAPERS:%=debug-%) $(PAPERS:%=table-%) $(PAPERS:%=figures-%) $(PAPERS:%=sweep-%)

## help                                         this list
help:
	@echo "PAPER is one of: $(PAPERS)"
	@sed -n 's/^## /  make /p' $(firstword $(MAKEFILE_LIST))

## setup [CPU=]                                 .venv, and the default face model; the other targets call it; CPU=1: without CUDA
setup: $(INSTALLED)

# .installing stays behind when an installation was cut off: its packages may be halves, so the next one starts afresh.
# What was set up with CPU=1 stays so until .venv is removed. PyTorch3D's build needs CUDA's torch; Warp, the faster
# renderer, does not.
CPU_PINS := .venv/cpu.txt
ON_CPU := $(if $(or $(CPU),$(if $(wildcard .venv/.installing),,$(wildcard $(CPU_PINS)))),-c $(CPU_PINS))
$(INSTALLED): export override PYTHON := $(PYTHON)
$(INSTALLED): export override CONSTRAINTS := $(CONSTRAINTS)
$(INSTALLED): pyproject.toml constraints.txt
	@"$$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || \
	  { echo "monoface needs Python 3.10 or newer; $$PYTHON is $$("$$PYTHON" --version 2>&1). Try: make $(or $(MAKECMDGOALS),setup) PYTHON=python3.11"; exit 2; }
	@if [ -e .venv/.installing ] || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  "$$PYTHON" -m venv --clear .venv || { echo "$$PYTHON cannot make .venv; on Debian and Ubuntu: apt-get install python3-venv"; exit 2; }; \
	fi
	@echo "Setting up .venv, once: some minutes, about $(if $(ON_CPU),3,7) GB"
	@touch .venv/.installing
	@$(if $(ON_CPU),sed -nE 's/^(torch|torchvision)==[^; ]*/&+cpu/p' "$$CONSTRAINTS" > $(CPU_PINS))
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c "$$CONSTRAINTS" $(ON_CPU) -e '.[attributes,demo,dev,docs,launch,usd]' \
	  $(if $(ON_CPU),|| { echo "CPU=1 takes torch's wheels for CPUs (+cpu) from an index that your own pip's settings name; else leave it out"; exit 2; })
	@$(if $(ON_CPU),$(BIN)/python -m pip uninstall --quiet --yes easypytorch3d)
	@$(BIN)/python -c 'from renderers.face_models.default.model import load_default; load_default()'
	@rm .venv/.installing
	@touch $@

## train-PAPER [CONFIG=default] [INIT=] [RESUME=] [FACE_MODEL=] [ARGS=] train; CONFIG=paper: as published, INIT: a checkpoint to start at, RESUME=auto: go on
$(PAPERS:%=train-%): train-%: $(INSTALLED)
	@$(MONOFACE) fit --config="experiments/$*/$$CONFIG.yaml" $(if $(ANOTHER),$(TRAINED_MODEL)) $(if $(INIT),--model.init_args.init_weights="$$INIT") $(if $(RESUME),--resume="$$RESUME") $(ARGS)

## train-robust                                 another name of train-self_augmentation
.PHONY: train-robust
train-robust: train-self_augmentation

## train-default-model [RESUME=] [ARGS=...]     the shipped network anew, on drawn heads; RESUME=auto: go on where it stopped
.PHONY: train-default-model
train-default-model: $(INSTALLED)
	@$(MONOFACE) fit --config=experiments/default_model/recipe.yaml $(if $(RESUME),--resume="$$RESUME") $(ARGS)

## debug-PAPER [CONFIG=default] [FACE_MODEL=] [ARGS=...]      one batch of training and validation, nothing written
$(PAPERS:%=debug-%): debug-%: $(INSTALLED)
	@$(MONOFACE) fit --config="experiments/$*/$$CONFIG.yaml" --trainer.fast_dev_run=true $(if $(ANOTHER),$(TRAINED_MODEL)) $(ARGS)

## table-PAPER [SEEDS=3] [FACE_MODEL=] [ARGS=...]             the paper's ablation table, ours beside the paper's; resumes
$(PAPERS:%=table-%): table-%: $(INSTALLED)
	@$(MONOFACE) table $* --seeds="$$SEEDS" $(if $(ANOTHER),$(MODEL_FILE)) $(ARGS)

## figures-PAPER [CHECKPOINT=] [OUT=] [ARGS=...]             the paper's figures of a checkpoint (the newest run's), the truth beside
$(PAPERS:%=figures-%): figures-%: $(INSTALLED)
	@$(MONOFACE) figures $*$(if $(CHECKPOINT), --checkpoint="$$CHECKPOINT")$(if $(OUT), --output="$$OUT") $(ARGS)

## sweep-PAPER [LOCAL=1] [RUNS=12] [ARGS=...]  search for its weights on W&B; LOCAL=1 without an account, with a leaderboard
$(PAPERS:%=sweep-%): sweep-%: $(INSTALLED)
	@$(MONOFACE) sweep $*$(if $(LOCAL), --local)$(if $(RUNS), --runs="$$RUNS") $(ARGS)

UNKNOWN := train-% debug-% table-% figures-% sweep-%
$(UNKNOWN):
	@$(info no paper named $*; there are: $(PAPERS))exit 2

## reconstruct [IMAGE=] [OUT=] [CHECKPOINT=] [FACE_MODEL=]    photograph, video, folder or frames to meshes and a report; IMAGES="A.jpg B.jpg" show one person
reconstruct: $(INSTALLED)
	@$(MONOFACE) reconstruct $(if $(OUT),--out="$$OUT") $(if $(CHECKPOINT),--checkpoint="$$CHECKPOINT") $(if $(ANOTHER),$(MODEL_FILE)) $(ARGS) $(if $(IMAGES),--same-person -- $$IMAGES,$(if $(IMAGE),-- "$$IMAGE"))

## demo [CHECKPOINT=] [FACE_MODEL=] [ARGS=...]                a page on this machine: drop photographs, turn the face, change its light
demo: $(INSTALLED)
	@$(MONOFACE) demo $(if $(CHECKPOINT),--checkpoint="$$CHECKPOINT") $(if $(ANOTHER),$(MODEL_FILE)) $(ARGS)

## evaluate CHECKPOINT= [SUITE=rogue]           a checkpoint on a suite of test pictures, beside the papers' figures
evaluate: $(INSTALLED)
	@test -n "$$CHECKPOINT" || { echo "say which: make evaluate CHECKPOINT=runs/rogue/RUN/checkpoints/last.ckpt"; exit 2; }
	@$(MONOFACE) evaluate --suite="$${SUITE:-rogue}" --checkpoint="$$CHECKPOINT" $(ARGS)

## prepare-photos DIR= OUT=                     align and annotate a folder of photographs for training
prepare-photos: $(INSTALLED)
	@test -n "$$DIR" && test -n "$$OUT" || { echo "say which folder and where to: make prepare-photos DIR=photos OUT=prepared"; exit 2; }
	@$(MONOFACE) prepare photos --out="$$OUT" $(ARGS) -- "$$DIR"

## face-model-ict [DIR=]                        ICT-FaceKit, a free model made of scans (MIT): fetched by git or read from DIR=, for FACE_MODEL=ict
face-model-ict: $(INSTALLED)
	@$(MONOFACE) prepare face-model ict $(if $(DIR),-- "$$DIR")

## sheet [ARGS=...]                             contact sheet of random default faces
sheet: $(INSTALLED)
	@$(MONOFACE) sheet $(ARGS)

## corruptions [ARGS=...]                       picture of every occlusion and noise
corruptions: $(INSTALLED)
	@$(MONOFACE) corruptions $(ARGS)

## relight [CHECKPOINT=] [IMAGE=] [OUT=]        animated highlights of a photographed or a random face
relight: $(INSTALLED)
	@$(MONOFACE) relight $(if $(CHECKPOINT),--checkpoint="$$CHECKPOINT") $(if $(IMAGE),--image="$$IMAGE") $(if $(OUT),--out="$$OUT") $(ARGS)

## export [CHECKPOINT=] [OUT=]                  a network (the one that ships) as ONNX, for programs without PyTorch
export: $(INSTALLED)
	@$(MONOFACE) export --onnx$(if $(CHECKPOINT),="$$CHECKPOINT") $(if $(OUT),--out="$$OUT") $(ARGS)

## bench [ARGS=...]                             every part and step timed, as ratios; ARGS=render: one of them
bench: $(INSTALLED)
	@$(MONOFACE) bench $(ARGS)

## test [ARGS=...]                              every test, with coverage; ARGS=tests/renderers runs a part, without it
test: $(INSTALLED)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(or $(ARGS),-n auto --dist loadfile --cov --cov-report=term:skip-covered --cov-fail-under=85)

## lint                                         ruff, mypy and the import arrows
lint: $(INSTALLED)
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports

## docs                                         the documentation site, in build/site; needs no network
docs: $(INSTALLED)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet --config-file experiments/docs/mkdocs.yml
	@echo "build/site/index.html"

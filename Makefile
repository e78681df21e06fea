# make demo   a simulated robot camera, the perception node and a web viewer   [SECONDS=60] [SOURCE=video|folder|bag] [FOV=70]
# make test   linters, type checker and all tests                              [ARGS="tests/slam -k loop"]
# make test-long  the tests that take minutes, which `make test` leaves out
# make fuzz   random files and messages, for as long as is said              [MINUTES=10]
# make soak   the demo for hours, with drop-outs and restarts: memory, latency [HOURS=1] [ARGS="--output DIR"]
# make bench  every benchmark                                                  [ARGS=...]
# make lint   linters and type checker alone
# make robot-env   on a robot with a native ROS 2: an environment beside it    [PYTHON=/usr/bin/python3]
# make lock   rewrite constraints.txt from what is installed in .venv

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.ready
SETUP_FILES := constraints.txt pyproject.toml setup.py setup.cfg package.xml $(wildcard tools/* tools/*_msgs/setup.py \
	tools/*_msgs/msg/* msg/* launch/* config/* rviz/*)

# The first Python that the ROS wheels are made for; a shim of pyenv may exist and not run.
FIND_PYTHON = for p in python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null && echo $$p && break; done
given = $(if $(filter command line,$(origin $(1))),$($(1)))

.PHONY: demo test test-long fuzz soak bench lint setup shell robot-env lock clean

demo: setup
	@$(PY) -m ff3r_ros.demo $(if $(call given,SECONDS),--seconds $(SECONDS)) $(if $(call given,SOURCE),--source "$(SOURCE)") \
	$(if $(call given,FOV),--fov $(FOV)) $(ARGS)

test: lint
	$(PY) -m pytest $(ARGS)

test-long: setup
	$(PY) -m pytest -m long --timeout 3600 $(ARGS)

fuzz: setup
	$(PY) tools/fuzz.py $(if $(call given,MINUTES),--minutes $(MINUTES)) $(ARGS)

soak: setup
	$(PY) -m benchmarks.ros.soak $(if $(call given,HOURS),--hours $(HOURS)) $(ARGS)

bench: setup
	$(PY) -m benchmarks $(ARGS)

lint: setup
	$(PY) -m ruff check .
	$(PY) -m mypy

setup: shell $(STAMP)

$(STAMP): $(SETUP_FILES) | shell
	@python=$$($(FIND_PYTHON)); \
	[ -n "$$python" ] || { echo "set-up stopped: Python 3.11 or 3.12 is needed, and none of python3.12, python3.11" \
	"and python3 is one. On Ubuntu 24.04: sudo apt install python3.12 python3.12-venv python3.12-dev" >&2; exit 1; }; \
	$$python tools/setup_env.py $(VENV)

# Wheels of ROS and a sourced native ROS do not mix, in the set-up nor later.
shell:
	@python=$$($(FIND_PYTHON)); [ -z "$$python" ] || $$python tools/setup_env.py --check-shell $(VENV)

robot-env: PYTHON ?= python3
robot-env:
	@$(PYTHON) tools/robot_env.py

lock: setup
	$(PY) tools/lock.py

clean:
	rm -rf $(VENV) build ff3r_ros/msg ff3r_ros/*.so

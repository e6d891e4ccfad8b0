# The front door. Each target runs the step of .ci/run that bears its name; `.ci/run --list` has them all.
.PHONY: help build test lint types docs wine packages bench guard all full clean

help:
	@echo 'make build     the package into .venv-test; again after each edit in src'
	@echo 'make test      the C and Python tests; as root, those on kernel packets too'
	@echo 'make lint      linters; make types: mypy and stubtest'
	@echo 'make docs      the documentation, into build/docs'
	@echo 'make wine      the tests in a Windows Python under Wine'
	@echo 'make bench     the benchmarks, briefly; make guard: what has become slower'
	@echo 'make packages  sdist and wheel, and what is in them'
	@echo 'make all       everything that has to stay green, as CI runs it'
	@echo 'make full      and what takes longer'

build test lint types docs wine packages bench guard:
	.ci/run $@

all:
	.ci/run

full:
	.ci/run full

clean:
	rm -rf build dist .venv-*

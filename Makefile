# SPDX-License-Identifier: GPL-2.0
# What a person types; `make help` lists it. The work is done in tools/.

# Debian's own Python: what apt installs, pytest for one, belongs to it.
PYTHON = PYTHONPATH=tools PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3
CACHE = $${XDG_CACHE_HOME:-$$HOME/.cache}/virtio-blk-mq

.PHONY: help modules kernel run shell check check-full check-arch profile bench \
	budget lint clean distclean python

help:
	@cat tools/vm/help.txt

modules kernel: python
	@$(PYTHON) -m vm.kernels $@

run shell lint: python
	@$(PYTHON) -m vm.$@

profile bench budget: python
	@$(PYTHON) -m perf.$@

check: python
	@$(PYTHON) -m vm.host test
	$(PYTHON) -m pytest -p no:cacheprovider $(if $(T),-k '$(T)') \
		--ignore=tools/testing/arch tools/testing

check-full: export FULL = 1
check-full: check

check-arch: python
	@$(PYTHON) -m vm.host test
	$(PYTHON) -m pytest -p no:cacheprovider $(if $(T),-k '$(T)') \
		tools/testing/arch

clean:
	rm -rf build

distclean: clean
	rm -rf "$(CACHE)"

python:
	@tools/vm/bootstrap

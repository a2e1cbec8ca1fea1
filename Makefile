# SPDX-License-Identifier: GPL-2.0
# What a person types; `make help` lists it. The work is done in tools/.

# Debian's own Python: what apt installs, pytest for one, belongs to it.
PYTHON = PYTHONPATH=tools:tools/testing PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3
CACHE = $${XDG_CACHE_HOME:-$$HOME/.cache}/virtio-blk-mq

.PHONY: help modules kernel install uninstall dkms undkms deb patch run shell check \
	check-full check-arch new-test model soak fuzz profile bench budget tools lint html clean \
	distclean python

help:
	@cat tools/vm/help.txt

modules kernel: python
	@$(PYTHON) -m vm.kernels $@

# For the running kernel, unless another is given.
install uninstall: export KDIR := $(or $(KDIR),/lib/modules/$(shell uname -r)/build)

# Not `modules` alone: what is installed is for the kernel of KDIR.
install: python
	@$(if $(KERNEL),echo "make install: KERNEL is not for it; name the kernel by \
		KDIR=/lib/modules/RELEASE/build" >&2; exit 2)
	@$(PYTHON) -m vm.kernels driver
	@tools/packaging/install "$$KDIR"

uninstall:
	@tools/packaging/install --undo "$$KDIR"

dkms:
	@tools/packaging/dkms/register

undkms:
	@tools/packaging/dkms/register --undo

deb: python
	@$(PYTHON) -m vm.host packaging
	@tools/packaging/deb

patch: python
	@tools/packaging/patch "$${LINUX:-$$($(PYTHON) -m vm.kernels source)}" \
		build/virtio_blk.patch

run shell lint: python
	@$(PYTHON) -m vm.$@

profile bench budget: python
	@$(PYTHON) -m perf.$@

check: python
	@$(PYTHON) -m vm.host test
	$(PYTHON) -m pytest -p no:cacheprovider $(if $(T),-k '$(T)',-n auto) \
		--ignore=tools/testing/arch tools/testing

check-full: export FULL = 1
check-full: check

check-arch: python
	@$(PYTHON) -m vm.host test
	$(PYTHON) -m pytest -p no:cacheprovider $(if $(T),-k '$(T)') \
		tools/testing/arch

new-test: python
	@$(PYTHON) -m new_test "$(NAME)"

model: python
	@$(PYTHON) -m model.check

soak fuzz: python
	@$(PYTHON) -m soak.$@

tools: python
	@$(PYTHON) -m vm.host build
	@$(MAKE) -s -C tools/vblkstat
	@echo build/vblkstat/vblkstat

# Without PYTHONPATH: Sphinx has a module by the name of tools/packaging.
html: python
	@$(PYTHON) -m vm.host docs
	@/usr/bin/sphinx-build -q -b html -W -n --keep-going -d build/doctrees \
		Documentation build/html
	@echo build/html/index.html

clean:
	rm -rf build

distclean: clean
	rm -rf "$(CACHE)"

python:
	@tools/vm/bootstrap

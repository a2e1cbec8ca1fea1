# SPDX-License-Identifier: GPL-2.0
# What a person types; `make help` lists it. The work is done in tools/.

# Debian's own Python: what apt installs, pytest for one, belongs to it.
PYTHON = PYTHONPATH=tools PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3
CACHE = $${XDG_CACHE_HOME:-$$HOME/.cache}/virtio-blk-mq

.PHONY: help modules kernel install uninstall dkms undkms deb deb-modules dist patch \
	run run-host shell check check-full check-arch coverage new-test model soak fuzz fuzz-device \
	profile bench budget tools lint html clean distclean python

help:
	@cat tools/run/help.txt

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
	@$(PYTHON) -m host.repository build/deb
	@$(PYTHON) -m host.deps packaging
	@tools/packaging/deb

# For one kernel, which must be named.
deb-modules: python
	@$(if $(KERNEL)$(KDIR),,echo "make deb-modules: name the kernel by KERNEL=6.12, a package \
		linux-image-... or KDIR=/lib/modules/RELEASE/build" >&2; exit 2)
	@$(if $(NAME),echo "make deb-modules: NAME is $(NAME) and it packages virtio_blk only; \
		leave NAME out" >&2; exit 2)
	@$(PYTHON) -m host.repository build/deb-modules
	@$(PYTHON) -m host.deps modules
	@tree=$$($(PYTHON) -m vm.kernels tree) && module=$$($(PYTHON) -m vm.kernels driver) && \
		tools/packaging/deb-modules "$$tree" "$$module"

dist: python
	@$(PYTHON) -m host.repository build/dist
	@tools/packaging/dist

# The assignment fails if there is no source.
patch: python
	@$(PYTHON) -m host.repository build
	@tree=$${LINUX:-$$($(PYTHON) -m vm.kernels source)} && \
		tools/packaging/patch "$$tree" build

run shell: python
	@$(PYTHON) -m run.$@

lint: python
	@$(PYTHON) -m lint.lint

run-host: python
	@$(PYTHON) -m run.run_host

profile bench budget: python
	@$(PYTHON) -m perf.$@

check: python
	@$(PYTHON) -m host.repository --for-kbuild build
	@$(PYTHON) -m host.deps test
	$(PYTHON) -m pytest -p no:cacheprovider $(if $(T),-k '$(T)',-n auto) \
		--ignore=tools/testing/arch tools/testing

check-full: export FULL = 1
check-full: check

check-arch: python
	@$(PYTHON) -m host.repository --for-kbuild build
	@$(PYTHON) -m host.deps test
	$(PYTHON) -m pytest -p no:cacheprovider $(if $(T),-k '$(T)') \
		tools/testing/arch

coverage: python
	@$(PYTHON) -m host.repository --for-kbuild build
	@$(PYTHON) -m host.deps test
	@$(PYTHON) -m lint.coverage

new-test: python
	@$(PYTHON) -m testing.new_test "$(NAME)"

model: python
	@$(PYTHON) -m testing.model.check

soak fuzz: python
	@$(PYTHON) -m soak.$@

fuzz-device: python
	@$(PYTHON) -m soak.fuzz_device

tools: python
	@$(PYTHON) -m host.repository build/vblkstat
	@$(PYTHON) -m host.deps build
	@$(MAKE) -s -C tools/vblkstat
	@echo build/vblkstat/vblkstat

# Without PYTHONPATH: Sphinx has a module by the name of tools/packaging.
html: python
	@$(PYTHON) -m host.repository build/doctrees build/html
	@$(PYTHON) -m host.deps docs
	@/usr/bin/sphinx-build -q -b html -W -n --keep-going -d build/doctrees \
		Documentation build/html
	@echo build/html/index.html

# $(call remove,DIRECTORY): remove a directory, or say why not.
define remove
	@said=$$(rm -rf "$(1)" 2>&1) || { echo "error: cannot remove $(1):" "$$(echo "$$said" | \
head -n 1); correct that, or run it as the user who owns all that is in it" >&2; exit 2; }
endef

clean:
	$(call remove,build)

distclean: clean
	$(call remove,$(CACHE))

python:
	@tools/host/bootstrap

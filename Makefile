# make demo   everything on this machine, shown by itself in about half a minute
# make bench  how fast it is, beside its references, in about twelve minutes; ARGS=--quick for two
# make test   the quality bar: lint, format, types, import contracts, tests on real parts
#
# make wheels                      fetches and builds all that is installed, as yourself
# make install PREFIX= DESTDIR=    program, units, example configuration; as root, and without a network after `make wheels`
# make uninstall                   takes them away; PURGE=1 configuration, credentials and state as well
SHELL  := /bin/bash
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
JOBS   ?= 2

.PHONY: demo test bench check proto schema config dashboard wheels install install-files uninstall clean

demo: $(VENV)/.ready
	@$(BIN)/reconciler demo $(ARGS)

test: check
	$(BIN)/pytest -n $(JOBS) $(ARGS)

bench: $(VENV)/.ready
	@$(BIN)/python -m tests.bench $(ARGS)

check: $(VENV)/.ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

proto: $(VENV)/.ready
	$(BIN)/python proto/generate.py

schema: $(VENV)/.ready
	$(BIN)/python -m tests.schema_dump

config: $(VENV)/.ready
	$(BIN)/python -c 'from reconciler.config import reference; print(reference(), end="")' > config/reconciler.toml

dashboard: $(VENV)/.ready
	$(BIN)/python -m tests.dashboard

# Fails with what to do about it when $(PYTHON) is not one that we can use.
define usable_python
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is missing: apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "make: Python 3.11 or newer is needed, and $(PYTHON) is $$($(PYTHON) -V): name another by PYTHON=…" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "make: $(PYTHON) lacks the venv module: apt-get install python3-venv" >&2; exit 1; }
endef

$(VENV)/.ready: pyproject.toml .constraints.txt
	$(usable_python)
	@[ -x $(BIN)/python ] || { echo "making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c .constraints.txt -e '.[demo,dev]'
	@touch $@

# What follows is for the host that runs the daemon. Its Python is the system's, because the units hide /root and /home.
wheels install: PYTHON := /usr/bin/python3

PREFIX  ?= /usr/local
DESTDIR ?=
# Where systemd looks: below /usr and /usr/local, and in /etc for any other place.
UNITS   ?= $(if $(filter /usr /usr/local,$(PREFIX)),$(PREFIX)/lib,/etc)/systemd/system
SYSTEMD ?= $(shell systemctl --version 2>/dev/null | awk 'NR == 1 { print $$2 }')
LIB     := $(PREFIX)/lib/reconciler
DOC     := $(PREFIX)/share/doc/reconciler
CONFIG  := /etc/reconciler/reconciler.toml
WHEELS  := build/wheels
PIP     := build/pip/bin/python -m pip --quiet --disable-pip-version-check
MANAGER := $(if $(DESTDIR),,$(wildcard /run/systemd/system))
SHIPPED := reconciler.service reconciler-migrate.service reconciler-http.service reconciler-http.socket
FROM    := $(shell find reconciler -type f -not -path '*__pycache__*')

wheels: $(WHEELS)/.ready

$(WHEELS)/.fetched: pyproject.toml .constraints.txt
	$(usable_python)
	@echo "fetching into $(WHEELS)"
	@rm -rf build && $(PYTHON) -m venv build/pip
	@$(PIP) wheel -c .constraints.txt -w $(WHEELS) .
	@touch $@

$(WHEELS)/.ready: $(WHEELS)/.fetched $(FROM)
	@rm -rf build/lib && $(PIP) wheel --no-deps -w $(WHEELS) .
	@touch $@

# The new program is complete before it takes the place of the old one, which runs on until the daemon is restarted. A
# configuration that nobody has edited follows its new reference; any other is left as it is.
install: $(WHEELS)/.ready
	@umask 022; set -e; new=$(DESTDIR)$(LIB).new old=$(DESTDIR)$(LIB).old; \
	rm -rf $$new $$old && $(PYTHON) -m venv --without-pip $$new; \
	$(PIP) --python $$new/bin/python install --no-index --find-links $(WHEELS) reconciler; \
	find $$new/bin -type f -delete; \
	if [ -e $(DESTDIR)$(LIB) ]; then mv $(DESTDIR)$(LIB) $$old; fi; \
	mv $$new $(DESTDIR)$(LIB); rm -rf $$old
	@$(MAKE) --no-print-directory install-files
	$(if $(MANAGER),@systemctl daemon-reload)
	@echo "installed $(DESTDIR)$(PREFIX)/bin/reconciler; what runs already runs on until: systemctl restart reconciler"

install-files:
	@install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(UNITS) $(DESTDIR)$(DOC)/reconciler.service.d
	@printf '%s\n' '#!$(LIB)/bin/python -I' 'from reconciler.cli import main' '' 'main()' > $(DESTDIR)$(PREFIX)/bin/reconciler
	@chmod 0755 $(DESTDIR)$(PREFIX)/bin/reconciler
	@for unit in $(SHIPPED); do \
	  sed 's|/usr/local|$(PREFIX)|g' systemd/$$unit | install -m 0644 /dev/stdin $(DESTDIR)$(UNITS)/$$unit; done
	@if [ "$(or $(SYSTEMD),0)" -ge 254 ]; then \
	  install -D -m 0644 systemd/reconciler.service.d/backoff.conf $(DESTDIR)$(UNITS)/reconciler.service.d/backoff.conf; fi
	@install -d $(DESTDIR)$(dir $(CONFIG)) && install -d -m 0700 $(DESTDIR)/etc/credstore
	@if [ ! -e $(DESTDIR)$(CONFIG) ] || cmp -s $(DESTDIR)$(DOC)/reconciler.toml $(DESTDIR)$(CONFIG); then \
	  install -m 0644 config/reconciler.toml $(DESTDIR)$(CONFIG); \
	else cmp -s config/reconciler.toml $(DESTDIR)$(CONFIG) || echo "kept $(CONFIG); its reference: $(DOC)/reconciler.toml"; fi
	@install -m 0644 README.md CHANGELOG.md LICENSE config/* $(DESTDIR)$(DOC)
	@install -m 0644 systemd/reconciler.service.d/*.conf $(DESTDIR)$(DOC)/reconciler.service.d

uninstall:
	$(if $(MANAGER),@systemctl disable --now --quiet $(SHIPPED) 2>/dev/null || true)
	@rm -rf $(DESTDIR)$(LIB) $(DESTDIR)$(DOC) $(DESTDIR)$(PREFIX)/bin/reconciler $(addprefix $(DESTDIR)$(UNITS)/,$(SHIPPED))
	@rm -f $(DESTDIR)$(UNITS)/reconciler.service.d/backoff.conf
	@rmdir $(DESTDIR)$(UNITS)/reconciler.service.d 2>/dev/null || true
	$(if $(MANAGER),@systemctl daemon-reload)
	$(if $(PURGE),@rm -rf $(addprefix $(DESTDIR),$(dir $(CONFIG)) /etc/credstore/reconciler.* /var/lib/reconciler /var/lib/private/reconciler),\
	@echo "left: $(dir $(CONFIG)), /etc/credstore/reconciler.*, /var/lib/private/reconciler; PURGE=1 takes them as well")

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info

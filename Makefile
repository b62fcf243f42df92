# Every target does its own set-up (tests/setup installs the Debian packages that are missing).
SHELL = /bin/bash
.DEFAULT_GOAL = help
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/sbin:/sbin

PREFIX ?= /usr/local
target = $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
release = $(target)/release

.PHONY: help build demo test check-api acceptance soak bench install clean-host

help:
	@echo 'make build       both executables, in $(release)'
	@echo 'make demo        builds, then a guided offline tour of what a task gets'
	@echo 'make test        formatting, lints, tests on this host and in a virtual machine (as root)'
	@echo 'make check-api   REFERENCES=FILE: requests and replies against the API references of Taskcluster (as root)'
	@echo 'make acceptance  what takes longer: a log of 1 GB, 100,000 artifacts, and make soak (as root)'
	@echo 'make soak        10,000 tasks of standalone, which is killed now and then (as root); CONFIG=FILE: of a deployment'
	@echo 'make bench       ours beside the peers (as root); QUICK=1 only tries whether it works'
	@echo 'make install     into $$(DESTDIR)$$(PREFIX)/bin; PREFIX is $(PREFIX)'
	@echo 'make clean-host  undoes whatever a killed worker or test left on this host (as root)'

# The runtime is static: it is executed inside containers and stays as their monitor. With musl it starts faster and is
# smaller than with glibc, which is taken where rustup cannot give the target. The flags are given for that one
# executable: in a configuration file crt-static would break procedural macros.
musl = x86_64-unknown-linux-musl
runtime = rustc --release --config 'profile.release.panic="abort"' \
  --package runtime --bin docker-worker-runtime

build:
	@command -v cc >/dev/null || tests/setup build
	@src/standalone/page/bundle
	cargo build --release --package docker-worker --bin docker-worker
	@if [ -z "$(GLIBC)" ] && rustup target add $(musl) 2>/dev/null; then \
	  cargo $(runtime) --target $(musl) && \
	  install -m 755 $(target)/$(musl)/release/docker-worker-runtime $(release)/docker-worker-runtime; \
	else \
	  echo 'the runtime is linked with glibc: $(if $(GLIBC),GLIBC is set,rustup gives no musl target)'; \
	  cargo $(runtime) -- -C target-feature=+crt-static; \
	fi

demo:
	@tests/setup build
	@$(MAKE) --no-print-directory build
	$(release)/docker-worker demo

test:
	@tests/run

check-api:
	@tests/check-api $(REFERENCES)

acceptance:
	@tests/setup build test
	cargo build --workspace
	cargo test --test acceptance -- --test-threads 1
	@$(MAKE) --no-print-directory soak

# CONFIG is that of a deployment's worker; TASKCLUSTER_CLIENT_ID and TASKCLUSTER_ACCESS_TOKEN make its tasks. More in
# tests/deployment/soak.
TASKS ?= $(if $(CONFIG),500,10000)
KILLS ?= $(if $(CONFIG),10,40)
soak:
	@tests/setup build test
	cargo build --workspace
	cargo test --test soak -- $(if $(CONFIG),--config $(abspath $(CONFIG))) --tasks $(TASKS) --kills $(KILLS) $(OPTIONS)

bench:
	@tests/setup build bench
# The driver first: its profile leaves a worker behind that is not the one to be measured.
	@driver=$$(cargo bench --no-run --bench deployment 2>&1 | sed -n 's/.*(\(.*\))$$/\1/p'); set -e; \
	$(MAKE) --no-print-directory build; \
	for bench in start exec crowd run pull log; do benches/$$bench; done; \
	DEPLOYMENT=$$driver benches/worker

install:
	@[ -x $(release)/docker-worker ] || { echo 'nothing to install yet: run make build first' >&2; exit 1; }
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/bin $(release)/docker-worker $(release)/docker-worker-runtime

clean-host:
	@tests/clean-host

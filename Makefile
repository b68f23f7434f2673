# Targets for people; `make help` lists them. Everything here also works step by step with plain `swift build` and `swift test`.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# What the build, the tests and the demo need of Debian 12 beside Swift 6.3, and of PyPI.
DEBIAN_PACKAGES := bpftool ca-certificates ethtool iperf3 iproute2 iputils-ping libbpf-dev libelf-dev linux-libc-dev make \
	openssl pkg-config procps python3 python3-venv tcpdump zlib1g-dev
PYPI_PACKAGES := cryptography cryptography_vectors pytest

SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
SWIFT_SOURCES := Sources Tests Plugins Package.swift
TEST_LOG := .build/test.log

.PHONY: help setup build release test test-e2e demo rss fmt check clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install Debian and PyPI packages that are missing, mount the BPF file system (repeatable)
	@command -v swift > /dev/null || { echo "setup: swift is not in PATH; install Swift 6.3 from https://www.swift.org/install/linux/" >&2; exit 1; }
	@missing=(); for package in $(DEBIAN_PACKAGES); do \
		dpkg-query -W -f '$${Status}' "$$package" 2> /dev/null | grep -q 'install ok installed' || missing+=("$$package"); \
	done; \
	if [ $${#missing[@]} -gt 0 ]; then \
		echo "setup: installing $${missing[*]}"; \
		$(SUDO) apt-get update -q; \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$${missing[@]}" < /dev/null; \
	fi
	@[ -x .venv/bin/python ] || python3 -m venv .venv
	@missing=(); for package in $(PYPI_PACKAGES); do \
		.venv/bin/python -c "import importlib.metadata, sys; importlib.metadata.version(sys.argv[1])" "$$package" 2> /dev/null || missing+=("$$package"); \
	done; \
	if [ $${#missing[@]} -gt 0 ]; then .venv/bin/pip install -q --disable-pip-version-check "$${missing[@]}" < /dev/null; fi
	@# systemd mounts it at boot; containers and small machines without systemd do not have it.
	@[ "$$(stat -f -c %T /sys/fs/bpf)" = bpf_fs ] || $(SUDO) mount -t bpf bpf /sys/fs/bpf \
		|| echo "setup: no BPF file system at /sys/fs/bpf: the kernel tests will be skipped" >&2

build: ## build everything, tests included (debug)
	swift build --build-tests

release: ## build the programs for production
	swift build -c release --product ebpf-xdp-keymgr
	swift build -c release --product xdp-encryptor

test: ## run all tests; those that need root or the kernel say so when they are skipped
	@mkdir -p .build
	swift test 2>&1 < /dev/null | tee $(TEST_LOG)
	@if compgen -G 'Tests/peers/test_*.py' > /dev/null; then .venv/bin/python -m pytest -q Tests/peers < /dev/null; fi
	@echo; echo "Known answers that ran in the kernel:"; grep -a '^CAVP' $(TEST_LOG) | sed 's/^/  /' || echo "  none"
	@echo "Skipped:"; grep -aE 'skipped' $(TEST_LOG) | sed -E 's/^[^A-Za-z]*/  /' || echo "  none"
	@grep -aE 'Test run with' $(TEST_LOG) | tail -1

test-e2e: ## the end-to-end tests at full size: 1 GiB files, 10,000 injected packets of each kind, 50 rotations (needs root)
	XE_E2E_FULL=1 swift test --filter EndToEndTests < /dev/null

demo: ## two nodes with a pod each, real packets, a capture, and an independent decoder
	swift build
	$(SUDO) .build/debug/xdp-encryptor demo < /dev/null

fmt: ## format the Swift sources
	swift format --in-place --recursive $(SWIFT_SOURCES)

check: ## complain about Swift sources that `make fmt` would change, and about shell scripts that do not parse
	swift format lint --strict --recursive $(SWIFT_SOURCES)
	bash -n .ci/run

clean: ## remove what was built; packages stay
	rm -rf .build

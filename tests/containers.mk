Upkeep += test-containers
CONTAINER_PACKAGES := buildah busybox debootstrap podman runc

.PHONY: test-containers
test-containers: setup ## Build the image; run in it and on other systems (as root: installs podman)
	@for package in $(CONTAINER_PACKAGES); do command -v $$package; done | grep -c . | grep -qx 5 || \
		{ [ "$$(id -u)" -eq 0 ] && apt-get update --quiet --quiet && \
		apt-get install --yes --quiet --quiet --no-install-recommends $(CONTAINER_PACKAGES); } >&2 || \
		echo 'podman and the like are not installed.'
	@TEST_CONTAINERS=yes tools/within --dev . python -m pytest tests/containers_test.py tests/systems_test.py tests/posix_test.py

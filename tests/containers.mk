CONTAINER_PACKAGES := buildah debootstrap podman runc

.PHONY: test-containers
test-containers: setup ## Build the image, and run in it (as root: installs podman from Debian's packages)
	@for package in $(CONTAINER_PACKAGES); do command -v $$package; done | grep -c . | grep -qx 4 || \
		{ [ "$$(id -u)" -eq 0 ] && apt-get update --quiet --quiet && \
		apt-get install --yes --quiet --quiet --no-install-recommends $(CONTAINER_PACKAGES); } >&2 || \
		echo 'podman and the like are not installed.'
	@TEST_CONTAINERS=yes tools/within --dev . python -m pytest tests/containers_test.py

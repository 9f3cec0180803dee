Upkeep += test-containers
.PHONY: test-containers
test-containers: setup ## Build the image, and run in it and on other systems (as root: installs podman with apt)
	@command -v debootstrap buildah podman runc busybox >/dev/null || \
		apt-get install --yes --quiet --no-install-recommends debootstrap buildah podman runc busybox
	@tools/within --dev . python -m pytest tests/containers_test.py tests/systems_test.py tests/posix_test.py

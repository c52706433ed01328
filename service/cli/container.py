"""Whether this process is in a container: then it sees its own network, and not who is let into that."""

from pathlib import Path
from typing import Final

# Docker's, Podman's and Kubernetes's own marks; containerd leaves none but the layers that the root is made of.
_MARKS: Final = (Path("/.dockerenv"), Path("/run/.containerenv"), Path("/var/run/secrets/kubernetes.io"))
_MOUNTS: Final = Path("/proc/self/mounts")


def is_inside() -> bool:
    """As far as can be told: True may be a machine whose root is an overlay, False an unusual container."""
    return any(mark.exists() for mark in _MARKS) or _root_is_layered()


def _root_is_layered() -> bool:
    try:
        mounts = [line.split() for line in _MOUNTS.read_text("utf-8", "replace").splitlines()]
    except OSError:
        return False
    return any(fields[1:3] == ["/", "overlay"] for fields in mounts)

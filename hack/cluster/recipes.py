"""Which programs the cluster is made of, and how each is built.

The versions are those in `gomod/*/go.mod`; a recipe adds only what a module file cannot say.
"""

from __future__ import annotations

from dataclasses import dataclass, field

KUBERNETES = "1.36.4"


@dataclass(frozen=True)
class Recipe:
    """One build: a Go module of `gomod/`, and the programs that come out of it.

    `programs` maps the file name of each program to its Go package; `overlay`, a file of a dependency to the
    file beside the module's go.mod that takes its place.
    """

    name: str
    module: str
    programs: dict[str, str]
    tags: tuple[str, ...] = ()
    linker_flags: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    overlay: dict[str, str] = field(default_factory=dict)


def _kubernetes_version_flags() -> str:
    """Return the linker flags without which clients cannot parse the server's version."""
    major, minor, _ = KUBERNETES.split(".")
    facts = {
        "gitVersion": f"v{KUBERNETES}",
        "gitMajor": major,
        "gitMinor": minor,
        "gitCommit": "unknown",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join(f"-X {package}.{name}={value}" for package in packages for name, value in facts.items())


_KUBERNETES_COMMANDS = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
]
_CONTAINERD_COMMANDS = ["containerd", "containerd-shim-runc-v2", "ctr"]
_CONTAINERD_TAGS = ("no_btrfs", "no_zfs", "no_devmapper", "netgo", "osusergo")
_CONTAINERD = "github.com/containerd/containerd/v2/cmd"

RECIPES = (
    Recipe(
        "kubernetes",
        "kubernetes",
        {command: f"k8s.io/kubernetes/cmd/{command}" for command in _KUBERNETES_COMMANDS},
        linker_flags=_kubernetes_version_flags(),
    ),
    Recipe(
        "containerd",
        "containerd",
        {command: f"{_CONTAINERD}/{command}" for command in _CONTAINERD_COMMANDS},
        tags=_CONTAINERD_TAGS,
    ),
    Recipe("etcd", "etcd", {"etcd": "go.etcd.io/etcd/server/v3"}),
    Recipe("coredns", "coredns", {"coredns": "github.com/coredns/coredns"}),
    Recipe("device-plugin", "device-plugin", {"device-plugin": "."}),
    Recipe("testimage-amd64", "testimage", {"pause": "./pause", "echo": "./echo"}),
    Recipe(
        "testimage-arm64",
        "testimage",
        {"pause": "./pause", "echo": "./echo"},
        environment={"GOARCH": "arm64"},
    ),
    Recipe(
        "kubelet-arm64",
        "kubernetes",
        {"kubelet": "k8s.io/kubernetes/cmd/kubelet"},
        linker_flags=_kubernetes_version_flags(),
        environment={"GOARCH": "arm64"},
    ),
    Recipe(
        "containerd-arm64",
        "containerd",
        {"containerd": f"{_CONTAINERD}/containerd"},
        tags=_CONTAINERD_TAGS,
        overlay={"github.com/containerd/platforms/defaults_unix.go": "default_platform.go.txt"},
    ),
)
"""What the local cluster itself needs, the slowest first."""

EXTRA_RECIPES = (
    Recipe("cosign-v3", "cosign-v3", {"cosign": "github.com/sigstore/cosign/v3/cmd/cosign"}),
    Recipe("cosign-v2", "cosign-v2", {"cosign": "github.com/sigstore/cosign/v2/cmd/cosign"}),
    Recipe("helm", "helm", {"helm": "helm.sh/helm/v4/cmd/helm"}),
    Recipe(
        "kubectl",
        "kubernetes",
        {"kubectl": "k8s.io/kubernetes/cmd/kubectl"},
        linker_flags=_kubernetes_version_flags(),
    ),
    Recipe("h2spec", "h2spec", {"h2spec": "github.com/summerwind/h2spec/cmd/h2spec"}),
    Recipe("grpcurl", "grpcurl", {"grpcurl": "github.com/fullstorydev/grpcurl/cmd/grpcurl"}),
    Recipe(
        "distribution3",
        "distribution3",
        {"registry": "github.com/distribution/distribution/v3/cmd/registry"},
    ),
    Recipe("ociregistry", "ociregistry", {"ociregistry": "."}),
    Recipe("crane", "crane", {"crane": "github.com/google/go-containerregistry/cmd/crane"}),
    Recipe("oci-schema", "oci-schema", {"oci-schema": "."}),
    Recipe("versitygw", "versitygw", {"versitygw": "github.com/versity/versitygw/cmd/versitygw"}),
    Recipe("fulcio", "fulcio", {"fulcio": "github.com/sigstore/fulcio"}),
    Recipe(
        "rekor-tiles",
        "rekor-tiles",
        {"rekor-server": "github.com/sigstore/rekor-tiles/v2/cmd/rekor-server/posix"},
    ),
    Recipe(
        "timestamp-authority",
        "timestamp-authority",
        {"timestamp-server": "github.com/sigstore/timestamp-authority/v2/cmd/timestamp-server"},
    ),
)
"""What tests and people ask for by name; helm and kubectl only where the pinned wheel cannot be had."""

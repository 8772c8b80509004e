"""The names that this product writes into clusters: one home for each, imported everywhere."""

from __future__ import annotations

import hashlib

GROUP = "edgemodel.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

FIELD_MANAGER = "edgemodel-operator"
FINALIZER = f"{GROUP}/node-labels"

LABEL_MODEL = f"{GROUP}/model"
"""On children and pods: the model key (a hash; object names can be longer than a label value)."""
LABEL_REVISION = f"{GROUP}/revision"
LABEL_TARGET = f"{GROUP}/target"
LABEL_ROLE = f"{GROUP}/role"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"

ROLE_SERVE = "serve"
ROLE_PREFETCH = "prefetch"

ANNOTATION_MODEL_NAME = f"{GROUP}/model-name"
ANNOTATION_ROSTER = f"{GROUP}/roster"
"""On DaemonSets: changes whenever the nodes change that shall run it."""

NODE_LABEL_PREFIX = f"{GROUP}.node-restriction.kubernetes.io/"
"""A kubelet may not set labels under this suffix: the NodeRestriction admission plugin refuses it, so a
compromised node cannot assign itself a model (https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction)."""

CONDITION_MESSAGE_LIMIT = 1024
"""Our own bound; the API conventions allow 32768."""


def model_key(namespace: str, name: str) -> str:
    """Give the short, stable key of a model: 12 hex digits, fit for label keys, values and name suffixes."""
    return hashlib.sha256(f"{namespace}/{name}".encode()).hexdigest()[:12]


def active_label(key: str) -> str:
    """Give the node label that names the assignment which serves on a node."""
    return f"{NODE_LABEL_PREFIX}{key}.active"


def next_label(key: str) -> str:
    """Give the node label that names the assignment under trial on a node."""
    return f"{NODE_LABEL_PREFIX}{key}.next"


def assignment_value(revision: str, target: str) -> str:
    """Give the label value for one revision on one target; both parts fit in 63 characters together."""
    return f"{revision}.{short(target, 40)}"


def short(text: str, limit: int) -> str:
    """Shorten a name to `limit` characters, keeping it unique by a hash of the whole."""
    if len(text) <= limit:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{text[: limit - 9].rstrip('-.')}-{digest}"


def child_name(model: str, *parts: str, limit: int = 58) -> str:
    """Name a child object of a model; 58 leaves room for the suffix that a DaemonSet gives its pods."""
    return short("-".join((model, *parts)), limit)

"""What every child object has in common: its labels and its owner."""

from __future__ import annotations

from typing import Any

from edgemodel_operator.api.names import (
    ANNOTATION_MODEL_NAME,
    API_VERSION,
    FIELD_MANAGER,
    LABEL_MANAGED_BY,
    LABEL_MODEL,
)
from edgemodel_operator.core.world import Model

Json = dict[str, Any]


def child_metadata(model: Model, name: str, labels: dict[str, str]) -> Json:
    """Give the metadata of a child: deleted with its EdgeModel, found again by its labels."""
    return {
        "name": name,
        "namespace": model.namespace,
        "labels": {LABEL_MANAGED_BY: FIELD_MANAGER, LABEL_MODEL: model.key, **labels},
        "annotations": {ANNOTATION_MODEL_NAME: model.name},
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": "EdgeModel",
                "name": model.name,
                "uid": model.uid,
                "controller": True,
                "blockOwnerDeletion": False,
            }
        ],
    }

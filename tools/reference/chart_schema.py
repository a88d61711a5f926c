"""The Helm chart's values.schema.json: what is said here of the chart's own values, and the programs' settings as the code has them."""

from __future__ import annotations

import copy
from typing import Any, Final

import msgspec

from dra import settings
from dra.controller_settings import ControllerConfiguration
from dra.settings import NodePluginConfiguration

PATH: Final = "manifests/helm/intel-gpu-dra/values.schema.json"
ABSOLUTE: Final = "^/[^:]*[^/:]$"
"""No colon, which CDI and mount options take for a separator; no slash at the end, which would make another path of it."""

Schema = dict[str, Any]

BOOL: Final[Schema] = {"type": "boolean"}
BOOL_OR_AUTO: Final[Schema] = {"type": ["boolean", "null"]}
STRING: Final[Schema] = {"type": "string"}
WORD: Final[Schema] = {"type": "string", "minLength": 1}
STRINGS: Final[Schema] = {"type": "object", "additionalProperties": STRING}
ANYTHING: Final[Schema] = {"type": "object"}
OBJECTS: Final[Schema] = {"type": "array", "items": {"type": "object"}}
MINOR: Final[Schema] = {"type": "string", "pattern": r"^(1\.[0-9]+)?$"}
LOG_FORMAT: Final[Schema] = {"enum": ["text", "json"]}


def fields(**properties: Schema) -> Schema:
    """An object with these and no others. A null takes a default away (`--set name=null`), which does for a list or a free map; without
    what is required here, templates could not say what is wrong."""
    required = [name for name, each in properties.items() if each is BOOL or "properties" in each or "pattern" in each]
    return {"type": "object", "additionalProperties": False, "properties": properties, "required": required}


def chart() -> bytes:
    """The file. It is as strict as the programs are, so that `helm install` says what they would say later."""
    node, controller = _settings(NodePluginConfiguration), _settings(ControllerConfiguration)
    placed = {"nodeSelector": STRINGS, "tolerations": OBJECTS, "priorityClassName": WORD, "resources": ANYTHING}
    labelled = {"podAnnotations": STRINGS, "podLabels": STRINGS, "logFormat": LOG_FORMAT}
    path = {"type": "string", "pattern": ABSOLUTE}
    values = fields(
        **{"global": ANYTHING},  # Helm's own, for charts above this one
        image=fields(repository=WORD, tag=STRING, pullPolicy={"enum": ["Always", "IfNotPresent", "Never"]}),
        imagePullSecrets={"type": "array", "items": fields(name=WORD)},
        oldestKubelet=MINOR,
        nodePlugin=fields(
            settings=node["settings"],
            privileged=BOOL,
            kubeletRoot=path,
            cdiRoot=path,
            hostNetwork=BOOL,
            hostUsers=BOOL,
            **placed,
            **labelled,
        ),
        controller=fields(
            enabled=BOOL_OR_AUTO, replicas={"type": "integer", "minimum": 1}, settings=controller["settings"], **placed, **labelled
        ),
        alertReceiver=fields(enabled=BOOL, tokenSecret=STRING),
        webhook=fields(
            enabled=BOOL,
            certificate=fields(
                **{"from": {"enum": ["helm", "certManager", "secret"]}},
                issuer=fields(kind={"enum": ["Issuer", "ClusterIssuer"]}, name=STRING),
                caBundle=STRING,
            ),
        ),
        admissionPolicies=fields(enabled=BOOL_OR_AUTO),
        classes=fields(create=BOOL, extendedResourceName={"type": "string", "pattern": r"^([a-z0-9.-]+/[A-Za-z0-9_.-]+)?$"}),
        nodeFeatureDiscovery=fields(enabled=BOOL),
        openshift=fields(enabled=BOOL_OR_AUTO),
        monitoring=fields(enabled=BOOL, labels=STRINGS, runbooks={"type": "string", "pattern": "^https?://"}),
        simulate=fields(enabled=BOOL, machine={"type": "string", "pattern": "^[A-Za-z0-9-]+$"}),
        cleanup=fields(enabled=BOOL_OR_AUTO, timeout={"type": "string", "pattern": "^([0-9]+[hms])+$"}),
    )
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Values of the chart intel-gpu-dra; made by tools/schemas, do not edit",
        **values,
        "$defs": node["defs"] | controller["defs"],
    }
    return msgspec.json.format(msgspec.json.encode(schema), indent=2) + b"\n"


def _settings(kind: type[msgspec.Struct]) -> Schema:
    """`settings`: the file's schema without its head; `defs`: what that refers to."""
    schema = copy.deepcopy(settings.json_schema(kind))
    defs = schema["$defs"]
    whole = defs.pop(kind.__name__) if kind.__name__ in defs else schema
    return {"settings": _without_head(whole), "defs": defs}


def _without_head(whole: Schema) -> Schema:
    head = ("apiVersion", "kind")
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: field for name, field in whole["properties"].items() if name not in head},
        "required": [name for name in whole.get("required", []) if name not in head],
    }

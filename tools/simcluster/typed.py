"""The JSON types of what clients write: a number where text belongs is refused at the door, as Go's decoder does, and reaches no rule.

Only what this program looks at is described, in the newest shape. Unknown fields pass; a null is a field that is not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import field

from tools.simcluster import kinds, refusals
from tools.simcluster.kinds import Json, Kind

Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Quantity = str | int | float
"""A bare number is a quantity too."""
_RAW: Final = ("parameters", "data")
"""Kept as they were sent, nulls and all: opaque parameters, and a driver's data in a claim's status."""


class Part(msgspec.Struct, rename="camel"):
    """Attributes are named as the fields, in snake case."""


class _Owner(Part):
    kind: str
    name: str
    uid: str


class Metadata(Part):
    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: list[_Owner] = []
    finalizers: list[str] = []
    managed_fields: list[Json] = []


class _Requirement(Part):
    key: str
    operator: str
    values: list[str] = []


class _Term(Part):
    match_fields: list[_Requirement] = []
    match_expressions: list[_Requirement] = []


class NodeSelector(Part):
    node_selector_terms: list[_Term] = []


class Object(Part):
    metadata: Metadata


# --- slices ----------------------------------------------------------------------------------------------------------------------


class _Attribute(Part):
    an_int: Int64 = field(name="int", default=0)
    a_bool: bool = field(name="bool", default=False)
    string: str = ""
    version: str = ""
    ints: list[Int64] = []
    bools: list[bool] = []
    strings: list[str] = []
    versions: list[str] = []


class _Range(Part):
    min: Quantity = ""
    max: Quantity = ""
    step: Quantity = ""


class _Policy(Part):
    default: Quantity = ""
    valid_values: list[Quantity] = []
    valid_range: _Range = field(default_factory=_Range)


class _Capacity(Part):
    value: Quantity = "0"
    request_policy: _Policy = field(default_factory=_Policy)


class _Taint(Part):
    key: str = ""
    value: str = ""
    effect: str = ""
    time_added: str = ""


class _Counters(Part):
    name: str = ""
    counter_set: str = ""
    counters: dict[str, _Capacity] = {}


class _Scope(Part):
    node_name: str = ""
    node_selector: NodeSelector | None = None
    all_nodes: bool = False


class _Device(_Scope):
    name: str = ""
    attributes: dict[str, _Attribute] = {}
    capacity: dict[str, _Capacity] = {}
    taints: list[_Taint] = []
    consumes_counters: list[_Counters] = []
    binds_to_node: bool = False
    binding_conditions: list[str] = []
    binding_failure_conditions: list[str] = []
    allow_multiple_allocations: bool = False


class _Pool(Part):
    name: str = ""
    generation: Int64 = 0
    resource_slice_count: Int64 = 0


class _SliceSpec(_Scope):
    driver: str = ""
    pool: _Pool = field(default_factory=_Pool)
    devices: list[_Device] = []
    shared_counters: list[_Counters] = []
    per_device_node_selection: bool = False


class _Slice(Object):
    spec: _SliceSpec = field(default_factory=_SliceSpec)


class _DeviceSelector(Part):
    driver: str = ""
    pool: str = ""
    device: str = ""


class _TaintRuleSpec(Part):
    taint: _Taint
    device_selector: _DeviceSelector = field(default_factory=_DeviceSelector)


class _TaintRule(Object):
    spec: _TaintRuleSpec


# --- claims and classes ----------------------------------------------------------------------------------------------------------


class _Cel(Part):
    expression: str = ""


class _Selector(Part):
    cel: _Cel = field(default_factory=_Cel)


class _Toleration(Part):
    key: str = ""
    operator: str = ""
    value: str = ""
    effect: str = ""
    toleration_seconds: Int64 = 0


class _CapacityRequirements(Part):
    requests: dict[str, Quantity] = {}


class _Request(Part):
    name: str = ""
    device_class_name: str = ""
    selectors: list[_Selector] = []
    allocation_mode: str = ""
    count: Int64 = 0
    admin_access: bool = False
    tolerations: list[_Toleration] = []
    capacity: _CapacityRequirements | None = None


class _DeviceRequest(Part):
    name: str = ""
    exactly: _Request | None = None
    first_available: list[_Request] = []


class _Constraint(Part):
    requests: list[str] = []
    match_attribute: str = ""
    distinct_attribute: str = ""


class _Opaque(Part):
    driver: str = ""
    parameters: Any = None


class _Config(Part):
    requests: list[str] = []
    opaque: _Opaque | None = None


class _Devices(Part):
    requests: list[_DeviceRequest] = []
    constraints: list[_Constraint] = []
    config: list[_Config] = []


class _ClaimSpec(Part):
    devices: _Devices = field(default_factory=_Devices)


class _Result(Part):
    request: str
    driver: str
    pool: str
    device: str
    admin_access: bool = False
    tolerations: list[_Toleration] = []
    share_id: str = field(name="shareID", default="")
    consumed_capacity: dict[str, Quantity] = {}


class _Results(Part):
    results: list[_Result] = []
    config: list[_Config] = []


class _Allocation(Part):
    devices: _Results = field(default_factory=_Results)
    node_selector: NodeSelector | None = None


class Consumer(Part):
    resource: str
    name: str
    uid: str


class _Condition(Part):
    type: str
    status: str = ""
    reason: str = ""
    message: str = ""


class _DeviceStatus(Part):
    driver: str
    pool: str
    device: str
    share_id: str = field(name="shareID", default="")
    conditions: list[_Condition] = []


class _ClaimStatus(Part):
    allocation: _Allocation | None = None
    reserved_for: list[Consumer] = []
    devices: list[_DeviceStatus] = []


class _Claim(Object):
    spec: _ClaimSpec = field(default_factory=_ClaimSpec)
    status: _ClaimStatus = field(default_factory=_ClaimStatus)


class _TemplateSpec(Part):
    spec: _ClaimSpec = field(default_factory=_ClaimSpec)
    metadata: Metadata = field(default_factory=Metadata)


class _Template(Object):
    spec: _TemplateSpec = field(default_factory=_TemplateSpec)


class _ClassSpec(Part):
    selectors: list[_Selector] = []
    config: list[_Config] = []


class _Class(Object):
    spec: _ClassSpec = field(default_factory=_ClassSpec)


# --- pods and the rest -----------------------------------------------------------------------------------------------------------


class _ContainerClaim(Part):
    name: str
    request: str = ""


class _Resources(Part):
    claims: list[_ContainerClaim] = []


class _Container(Part):
    name: str
    resources: _Resources = field(default_factory=_Resources)


class _Source(Part):
    """Between an entry and what it names, up to 1.30."""

    resource_claim_name: str = ""
    resource_claim_template_name: str = ""


class _PodClaim(Part):
    name: str
    source: _Source = field(default_factory=_Source)
    resource_claim_name: str = ""
    resource_claim_template_name: str = ""


class _PodSpec(Part):
    node_name: str = ""
    containers: list[_Container] = []
    init_containers: list[_Container] = []
    resource_claims: list[_PodClaim] = []
    termination_grace_period_seconds: Int64 = 0


class _PodStatus(Part):
    phase: str = ""
    conditions: list[_Condition] = []
    resource_claim_statuses: list[_PodClaim] = []
    container_statuses: list[Json] = []


class _Pod(Object):
    spec: _PodSpec = field(default_factory=_PodSpec)
    status: _PodStatus = field(default_factory=_PodStatus)


class _Event(Object):
    involved_object: dict[str, str] = {}
    reason: str = ""
    message: str = ""
    count: Int64 = 0


class _Other(Object):
    spec: Json = {}
    status: Json = {}


class _Custom(Object):
    pass


TYPES: Final[dict[Kind, type[Object]]] = {
    kinds.SLICE: _Slice,
    kinds.TAINT_RULE: _TaintRule,
    kinds.CLAIM: _Claim,
    kinds.TEMPLATE: _Template,
    kinds.DEVICE_CLASS: _Class,
    kinds.POD: _Pod,
    kinds.EVENT: _Event,
}


def checked(kind: Kind, body: Json, types: Mapping[Kind, type[Object]] = TYPES) -> Json:
    """The object, in the newest shape (or that of `types`), without its nulls. Custom resources have a schema instead.

    Raises:
        Refused: 400, says which field is of another type than it should be.
    """
    body = _present(body)
    try:
        msgspec.convert(body, _Custom if kind.is_custom else types.get(kind, _Other))
    except msgspec.ValidationError as error:
        raise refusals.bad_request(f"{kind.kind} cannot be handled as a {kind.kind}: json: {error}") from error
    return body


def _present(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: inner if key in _RAW else _present(inner) for key, inner in value.items() if inner is not None}
    return [_present(inner) for inner in value] if isinstance(value, list) else value

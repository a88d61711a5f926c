"""CEL over a device, by Google's C++ implementation (`cel_expr_python`), with Kubernetes' additions quantity() and semver().

The one door to the CEL library. Of the three on PyPI this one imports in milliseconds, checks types, evaluates in 50 to 150 µs (the
pure Python one takes 250 to 2000 µs and has no optionals) and knows `cel.bind` and `.?`, which the Rust one does not.
"""

from __future__ import annotations

import functools
import re
from typing import Any, Final

from cel_expr_python import cel  # type: ignore[import-untyped]
from cel_expr_python.ext import ext_bindings, ext_optional, ext_strings  # type: ignore[import-untyped]
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from dra.structured import amounts
from dra.structured.shapes import Json

# CEL tells values of one kind apart by their protobuf type only at compile time: `kind` does it at run time.
_FILE: Final = descriptor_pb2.FileDescriptorProto(name="kubernetes/ordered.proto", package="kubernetes", syntax="proto3")
_MESSAGE: Final = _FILE.message_type.add(name="Ordered")
_MESSAGE.field.add(name="kind", number=1, type=9, label=1, json_name="kind")
_MESSAGE.field.add(name="text", number=2, type=9, label=1, json_name="text")
_POOL: Final = descriptor_pool.DescriptorPool()
_POOL.AddSerializedFile(_FILE.SerializeToString())
_Ordered: Final[Any] = message_factory.GetMessageClass(_POOL.FindMessageTypeByName("kubernetes.Ordered"))
_ORDERED: Final = cel.Type("kubernetes.Ordered")


def _quantity(text: str) -> Any:
    return _Ordered(kind="quantity", text=str(amounts.quantity(text)))


def _semver(text: str) -> Any:
    amounts.semver_key(text)
    return _Ordered(kind="semver", text=text)


def _compare(one: Any, other: Any) -> int:
    if one.kind != other.kind:
        raise ValueError(f"a {one.kind} cannot be compared with a {other.kind}")
    if one.kind == "quantity":
        left, right = int(one.text), int(other.text)
        return (left > right) - (left < right)
    first, second = amounts.semver_key(one.text), amounts.semver_key(other.text)
    return (first > second) - (first < second)


def _is(check: Any) -> Any:
    def valid(text: str) -> bool:
        try:
            check(text)
        except ValueError:
            return False
        return True

    return valid


def _arithmetic(sign: int) -> Any:
    return lambda one, other: _Ordered(kind="quantity", text=str(int(one.text) + sign * int(other.text)))


def _function(name: str, result: cel.Type, parameters: list[cel.Type], impl: Any, *, member: bool = False) -> cel.FunctionDecl:
    overload = cel.Overload(f"kubernetes_{name}", return_type=result, parameters=parameters, is_member=member, impl=impl)
    return cel.FunctionDecl(name, [overload])


_TEXT, _TWO = [cel.Type.STRING], [_ORDERED, _ORDERED]
_ENVIRONMENT: Final = cel.NewEnv(
    _POOL,
    variables={"device": cel.Type.Map(cel.Type.STRING, cel.Type.DYN)},
    extensions=[ext_optional.ExtOptional(), ext_bindings.ExtBindings(), ext_strings.ExtStrings()],
    functions=[
        _function("quantity", _ORDERED, _TEXT, _quantity),
        _function("isQuantity", cel.Type.BOOL, _TEXT, _is(amounts.quantity)),
        _function("semver", _ORDERED, _TEXT, _semver),
        _function("isSemver", cel.Type.BOOL, _TEXT, _is(amounts.semver_key)),
        _function("compareTo", cel.Type.INT, _TWO, _compare, member=True),
        _function("isGreaterThan", cel.Type.BOOL, _TWO, lambda one, other: _compare(one, other) > 0, member=True),
        _function("isLessThan", cel.Type.BOOL, _TWO, lambda one, other: _compare(one, other) < 0, member=True),
        _function("add", _ORDERED, _TWO, _arithmetic(1), member=True),
        _function("sub", _ORDERED, _TWO, _arithmetic(-1), member=True),
    ],
)
_DOMAIN: Final = re.compile(r"""\b(?:attributes|capacity)\s*\[\s*(?:"([^"]*)"|'([^']*)')\s*\]""")


class CelError(Exception):
    """The expression failed on a device: that ends the allocation attempt, it is not a "no"."""


@functools.lru_cache(maxsize=512)
def _compiled(text: str) -> tuple[cel.Expression, tuple[str, ...]]:
    return _ENVIRONMENT.compile(text), tuple({first or second for first, second in _DOMAIN.findall(text)})


@functools.lru_cache(maxsize=512)
def fault(text: str) -> str | None:
    """Why the expression does not compile to a bool, or None."""
    try:
        kind = _compiled(text)[0].return_type()
    except RuntimeError as error:
        return str(error).strip().splitlines()[0]
    return None if kind in (cel.Type.BOOL, cel.Type.DYN) else f"must evaluate to bool, not {kind.name()}"


def device_variable(driver: str, device: Json) -> Json:
    """What `device` is in an expression: attributes and capacity by domain, our own where none is written."""
    attributes: dict[str, dict[str, Any]] = {}
    for key, value in (device.get("attributes") or {}).items():
        domain, _, name = key.rpartition("/")
        attributes.setdefault(domain or driver, {})[name] = _value(value)
    capacity: dict[str, dict[str, Any]] = {}
    for key, value in (device.get("capacity") or {}).items():
        domain, _, name = key.rpartition("/")
        capacity.setdefault(domain or driver, {})[name] = _quantity(str(value["value"]))
    shared = bool(device.get("allowMultipleAllocations"))
    return {"driver": driver, "attributes": attributes, "capacity": capacity, "allowMultipleAllocations": shared}


def _value(value: Json) -> Any:
    if "version" in value:
        return _semver(value["version"])
    return next(iter(value.values()))


def holds(text: str, variable: Json) -> bool:
    """Whether the expression is true of a device (as `device_variable` makes it).

    Raises:
        CelError: a missing attribute, a wrong type, or an expression that does not compile.
    """
    try:
        expression, domains = _compiled(text)
    except RuntimeError as error:
        raise CelError(f"{text}: {error}") from error
    # A domain that no attribute has is an empty map, not a missing key.
    missing = [domain for domain in domains if domain not in variable["attributes"] or domain not in variable["capacity"]]
    if missing:
        variable = {
            **variable,
            "attributes": {**{domain: {} for domain in missing}, **variable["attributes"]},
            "capacity": {**{domain: {} for domain in missing}, **variable["capacity"]},
        }
    result = expression.eval(data={"device": variable})
    if result.type() != cel.Type.BOOL:
        raise CelError(f"CEL expression {text}: {result.value()}")
    return bool(result.value())

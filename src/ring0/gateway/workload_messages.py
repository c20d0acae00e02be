"""The messages of the SPIFFE Workload API, as its workload.proto has them.

In a pool of their own: another copy of the same names in this process is no conflict. Needs
`protobuf`, of the extra `spiffe`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

# It has no types of its own.
descriptor_pb2: Any = import_module("google.protobuf.descriptor_pb2")
descriptor_pool: Any = import_module("google.protobuf.descriptor_pool")
message_factory: Any = import_module("google.protobuf.message_factory")
struct_pb2: Any = import_module("google.protobuf.struct_pb2")
SERVICE: Final = "SpiffeWorkloadAPI"
_KINDS: Final = {"string": 9, "bytes": 12, "message": 11}
_MESSAGES: Final[dict[str, tuple[str, ...]]] = {
    "X509SVIDRequest": (),
    "X509SVID": (
        "1 string spiffe_id",
        "2 bytes x509_svid",
        "3 bytes x509_svid_key",
        "4 bytes bundle",
        "5 string hint",
    ),
    "X509SVIDResponse": (
        "1 repeated X509SVID svids",
        "2 repeated bytes crl",
        "3 map federated_bundles",
    ),
    "X509BundlesRequest": (),
    "X509BundlesResponse": ("1 repeated bytes crl", "2 map bundles"),
    "JWTSVIDRequest": ("1 repeated string audience", "2 string spiffe_id"),
    "JWTSVID": ("1 string spiffe_id", "2 string svid", "3 string hint"),
    "JWTSVIDResponse": ("1 repeated JWTSVID svids",),
    "JWTBundlesRequest": (),
    "JWTBundlesResponse": ("1 map bundles",),
    "ValidateJWTSVIDRequest": ("1 string audience", "2 string svid"),
    "ValidateJWTSVIDResponse": ("1 string spiffe_id", "2 google.protobuf.Struct claims"),
}


def _described(name: str, fields: tuple[str, ...]) -> Any:
    message = descriptor_pb2.DescriptorProto(name=name)
    for said in fields:
        number, *words, called = said.split(" ")
        kind = words[-1]
        field = message.field.add(name=called, number=int(number), label=1)
        if kind == "map":
            entry = "".join(part.title() for part in called.split("_")) + "Entry"
            nested = _described(entry, ("1 string key", "2 bytes value"))
            nested.options.map_entry = True
            message.nested_type.append(nested)
            kind, words = f"{name}.{entry}", ["repeated"]
        if "repeated" in words:
            field.label = 3
        field.type = _KINDS.get(kind, _KINDS["message"])
        if kind not in _KINDS:
            field.type_name = f".{kind}"
    return message


def _made() -> dict[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    struct = descriptor_pb2.FileDescriptorProto()
    struct_pb2.DESCRIPTOR.CopyToProto(struct)
    pool.Add(struct)
    file = descriptor_pb2.FileDescriptorProto(
        name="ring0/workload.proto", syntax="proto3", dependency=[struct.name]
    )
    file.message_type.extend(_described(name, fields) for name, fields in _MESSAGES.items())
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
        for name in _MESSAGES
    }


MESSAGES: Final = _made()
"""By their names; protobuf makes them when they are asked for, so no type checker knows them."""

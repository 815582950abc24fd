"""A broker with ACLs, and who may do what on it. Nothing here asserts a promise."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka.admin import (  # type: ignore[attr-defined]  # documented there, re-exported without saying so
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from deploy.broker.secure import SecureBroker
from tests.support.processor import await_until

from hydrophone.streams.acls import Acl

__all__ = ["OPERATIONS", "granted", "scram_environment"]

OPERATIONS = {
    "Read": AclOperation.READ,
    "Write": AclOperation.WRITE,
    "Create": AclOperation.CREATE,
    "Describe": AclOperation.DESCRIBE,
    "DescribeConfigs": AclOperation.DESCRIBE_CONFIGS,
}
RESOURCES = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional_id": ResourceType.TRANSACTIONAL_ID,
}


@contextmanager
def granted(broker: SecureBroker, acls: Iterable[Acl]) -> Iterator[None]:
    """These and no others of their principals, inside the block."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    bindings = [_binding(acl) for acl in acls]
    for answer in admin.create_acls(bindings, request_timeout=20).values():
        answer.result()
    await_until(lambda: _in_force(admin) >= set(bindings), "the broker knows the ACLs")
    try:
        yield
    finally:
        filters = [_filter(acl) for acl in acls]
        for answer in admin.delete_acls(filters, request_timeout=20).values():
            answer.result()


def scram_environment(broker: SecureBroker, user: str, password: str, *, ca: Path | None = None) -> dict[str, str]:
    """Settings of a program that connects over SASL_SSL with SCRAM-SHA-512."""
    fields = {
        "protocol": "SASL_SSL",
        "mechanism": "SCRAM-SHA-512",
        "username": user,
        "password": password,
        "ca": str(ca or broker.ca),
    }
    return {f"HYDROPHONE_SECURITY__{name.upper()}": value for name, value in fields.items()}


def _in_force(admin: AdminClient) -> set[AclBinding]:
    every = AclBindingFilter(
        ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
    )
    return set(admin.describe_acls(every, request_timeout=20).result())


def _binding(acl: Acl) -> AclBinding:
    return AclBinding(*_what(acl), acl.principal, "*", OPERATIONS[acl.operation], AclPermissionType.ALLOW)


def _filter(acl: Acl) -> AclBindingFilter:
    return AclBindingFilter(*_what(acl), acl.principal, "*", OPERATIONS[acl.operation], AclPermissionType.ALLOW)


def _what(acl: Acl) -> tuple[ResourceType, str, ResourcePatternType]:
    pattern = ResourcePatternType.PREFIXED if acl.is_prefix else ResourcePatternType.LITERAL
    return RESOURCES[acl.resource], acl.name, pattern

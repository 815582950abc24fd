"""Fixtures that more than one folder of tests asks for.

The real broker is started once per test process that needs one. Under pytest-xdist each file of broker tests stays on
one worker, whatever `--dist` says, and they come first: they are the long ones.
"""

import re
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from deploy.broker.kraft import KraftBroker
from tests.support.broker import require_kraft
from tests.support.thorough import skip_the_long

BROKER_FOLDERS = ("tests/integration/", "tests/fault/")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Deal tests out one by one, those of the broker folders by file, in the order of their folders.

    Not by `xdist_group` marks: xdist 3.8 hands them on in a node attribute that pytest 9.2 no longer reads.
    """
    # Imported here because only a parallel run needs it; it ships no types.
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]  # noqa: PLC0415

    class BrokerFiles(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return nodeid.split("::", maxsplit=1)[0] if nodeid.startswith(BROKER_FOLDERS) else nodeid

    config.option.loadscopereorder = False  # by size would put them last
    return BrokerFiles(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip_the_long(items)


@pytest.fixture(scope="session")
def broker() -> Iterator[KraftBroker]:
    """A real broker shared by all tests: keep to topics and groups under `topic_prefix`, and leave it running."""
    require_kraft()
    with KraftBroker() as running:
        yield running


@pytest.fixture
def own_broker() -> Iterator[KraftBroker]:
    """A real broker of this test's own, to be killed, suspended or restarted at will."""
    require_kraft()
    with KraftBroker() as running:
        yield running


@pytest.fixture
def topic_prefix(request: pytest.FixtureRequest) -> str:
    """A prefix no other test has, for topics, groups and transactional ids; names the test for who reads the log."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", request.node.name)[:40].strip("-")
    return f"{readable}-{uuid.uuid4().hex[:8]}."

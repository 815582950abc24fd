"""`hydrophone` in a process of its own, forked from one that has imported everything: ready in a tenth of a second.

A fresh interpreter takes seconds to import torch, and scenarios that kill workers start dozens of them. What runs is
the command line as installed; only the imports were done before.
"""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

__all__ = ["Forked", "Running"]

PRELOAD: Final = ["hydrophone.streams.assembly", "hydrophone.streams.cli.process", "hydrophone.streams.observe"]


class Running(Protocol):
    """What `subprocess.Popen` and `Forked` have in common."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def kill(self) -> None: ...

    def terminate(self) -> None: ...


class Forked:
    """`hydrophone` with these arguments, in `folder`, under this environment and no other; output goes to `log`, errors
    too unless they have a file of their own."""

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        log: Path,
        errors: Path | None = None,
    ) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOAD)
        self._process = context.Process(
            target=_run, args=(list(arguments), folder, dict(environment), log, errors or log), daemon=True
        )
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None, "it was started"
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired("hydrophone", timeout or 0)
        return code

    def kill(self) -> None:
        self._process.kill()

    def terminate(self) -> None:
        self._process.terminate()


def _run(arguments: list[str], folder: Path, environment: dict[str, str], log: Path, errors: Path) -> None:
    from hydrophone.streams import cli  # noqa: PLC0415  # imported before the fork

    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    with log.open("ab") as out, errors.open("ab") as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
    sys.exit(cli.run(arguments))

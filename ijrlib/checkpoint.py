"""The state of an unfinished run: two files, so that one is whole whatever happens to the other.

``<name>.pt`` is replaced as a whole and begins with the SHA-256 of what follows; the one before it
is kept as ``<name>.before.pt`` until the next.  ``<name>.lock`` is held while the run is trained.
Checkpoints are read with ``weights_only=True``: tensors, numbers and containers, nothing that runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import torch

from ijrlib.config import RunConfig
from ijrlib.store import RunIsBusy

DIGEST_BYTES = 32


class Checkpoint:
    """The checkpoints of one configuration under ``<runs>/.checkpoints``."""

    def __init__(self, runs: Path, config: RunConfig) -> None:
        self.config = config
        self.path = runs / ".checkpoints" / f"{config.name}.pt"
        self.before = self.path.with_suffix(".before.pt")

    def load(self) -> dict[str, Any] | None:
        """The latest state that is whole; None where there is none.

        Raises:
            ValueError: where there are files but none is whole, or they belong to another
                configuration.
        """
        there = [path for path in (self.path, self.before) if path.is_file()]
        problems = []
        for path in there:
            try:
                saved = _read(path)
            except Exception as error:
                problems.append(f"{path} can't be read ({error})")
                continue
            if saved.get("config") != self.config.to_json():
                raise ValueError(
                    f"checkpoint {path} belongs to another configuration; remove it to start over"
                )
            for problem in problems:
                warnings.warn(f"{problem}; going on from the checkpoint before", stacklevel=2)
            return saved
        if problems:
            raise ValueError(f"checkpoint {'; '.join(problems)}; remove it to start over")
        return None

    def save(self, **content: Any) -> None:
        """Write a state in the place of the latest one, which is kept as the one before.

        Where it can't be written (a full disk) what was there still is, and a warning says so.
        """
        buffer = io.BytesIO()
        torch.save({"config": self.config.to_json(), **content}, buffer)
        data = buffer.getbuffer()
        scratch = self.path.with_suffix(f".{os.getpid()}.writing")
        try:
            with scratch.open("wb") as file:
                file.write(hashlib.sha256(data).digest())
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if self.path.is_file():
                os.replace(self.path, self.before)
            os.replace(scratch, self.path)
        except OSError as error:
            warnings.warn(
                f"no checkpoint could be written ({error}); the run goes on", stacklevel=2
            )
        finally:
            with contextlib.suppress(OSError):
                scratch.unlink(missing_ok=True)

    def remove(self) -> None:
        """Nothing of the run is left unfinished."""
        for path in (self.path, self.before):
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the run's lock; it ends with the process, however that ends.

        Raises:
            RunIsBusy: where another process holds it.
            PermissionError: where the folder cannot be written to.
        """
        lock = self.path.with_suffix(".lock")
        with self._locked(lock) as file:
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)

    def _locked(self, lock: Path) -> TextIO:
        """The lock's file, open and locked."""
        while True:
            try:
                lock.parent.mkdir(parents=True, exist_ok=True)
                file = lock.open("a+")
            except OSError as error:
                raise PermissionError(
                    f"runs_dir: expected a folder that can be written to, but {lock.parent} cannot "
                    f"({error.strerror})"
                ) from None
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                holder = file.read().strip() or "another process"
                file.close()
                raise RunIsBusy(
                    f"{self.config.name} is being trained by {holder}; wait for it, or stop it"
                ) from None
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(lock.stat(), os.fstat(file.fileno())):
                    return file
            file.close()  # its holder has removed it meanwhile


def _read(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    if hashlib.sha256(data[DIGEST_BYTES:]).digest() != data[:DIGEST_BYTES]:
        raise ValueError("it was cut off or changed")
    return torch.load(io.BytesIO(data[DIGEST_BYTES:]), map_location="cpu", weights_only=True)


@contextlib.contextmanager
def termination() -> Iterator[Callable[[], bool]]:
    """A function that tells whether SIGTERM has come: a batch system's, before it takes the machine
    away.  Outside the main thread signals stay as they are."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGTERM, before)

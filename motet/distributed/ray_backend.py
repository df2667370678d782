"""Ray: a cluster of this run's own or an existing one, and actors on it."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from motet.core.errors import ConfigError, MotetError, ProcessError
from motet.core.registry import first_line
from motet.distributed.actor_pool import ActorDied


def import_ray() -> Any:
    """The module ray. Raises ConfigError when it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # sends nothing
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own 15 lets any other program go first
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what it becomes; else a warning says so
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise ConfigError(
            "--ray needs the package ray, which is not installed.", fix="pip install 'motet[ray]'."
        ) from error
    return ray


@contextmanager
def ray_cluster(address: str, num_cpus: int) -> Iterator[RayBackend]:
    """Connect to the cluster at an address, or start one on this machine, which ends with the block.

    `auto`: the cluster that RAY_ADDRESS names, or else one on this machine with (at least) `num_cpus` logical
    processors, without a dashboard. Raises ConfigError where there is no cluster at the address.
    """
    ray = import_ray()
    folder = None
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "auto" and not os.environ.get("RAY_ADDRESS"):
        folder = tempfile.mkdtemp(prefix="motet_ray_", dir="/tmp" if os.path.isdir("/tmp") else None)  # a short path
        settings |= {"address": "local", "num_cpus": max(num_cpus, os.cpu_count() or 1), "include_dashboard": False}
        settings["_temp_dir"] = folder
    else:
        settings["address"] = address
    try:
        try:
            ray.init(**settings)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"--ray {address}: {first_line(error)}", fix="give the address of a running cluster, or auto."
            ) from error
        yield RayBackend()
    finally:
        with suppress(Exception):
            ray.shutdown()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


class _Actor:
    """What runs in an actor's process: makes its object at the first call, so that errors reach the caller."""

    def __init__(self, make: Callable[[], Any], folder: str) -> None:
        self.make, self.folder = make, folder
        self.object: Any = None
        self.making = threading.Lock()

    def call(self, method: str, *arguments: Any) -> Any:
        with self.making:
            if self.object is None:
                with suppress(OSError):  # on another machine it may be missing: paths are then absolute
                    os.chdir(self.folder)
                self.object = self.make()
        return getattr(self.object, method)(*arguments)


class RayBackend:
    """Actors on the cluster to which this process is connected: see `motet.distributed.actor_pool.Backend`."""

    def __init__(self) -> None:
        self.ray = import_ray()

    @property
    def host(self) -> str:
        """The address of this machine in the cluster."""
        return self.ray.util.get_node_ip_address()

    @property
    def num_gpus(self) -> float:
        """GPUs of the cluster."""
        return float(self.ray.cluster_resources().get("GPU", 0.0))

    def start(self, make: Callable[[], Any], name: str, num_gpus: float, threads: int = 1) -> Any:
        options: dict[str, Any] = {"num_cpus": 1, "num_gpus": num_gpus, "max_restarts": 0, "max_task_retries": 0}
        options |= {"max_concurrency": threads}
        title = "".join(word.capitalize() for word in name.split()[:-1])  # what process lists show: ray::RolloutActor
        return self.ray.remote(**options)(type(title, (_Actor,), {})).remote(make, os.getcwd())

    def call(self, actor: Any, method: str, *arguments: Any) -> Any:
        return actor.call.remote(method, *arguments)

    def put(self, value: Any) -> Any:
        return self.ray.put(value)

    def wait(self, answers: Sequence[Any], seconds: float) -> list[Any]:
        ready, _ = self.ray.wait(list(answers), num_returns=1, timeout=seconds)
        return ready

    def get(self, answer: Any) -> Any:
        errors = self.ray.exceptions
        try:
            return self.ray.get(answer)
        except (errors.RayActorError, errors.WorkerCrashedError, errors.ObjectLostError) as error:
            raise ActorDied(first_line(error)) from error
        except errors.RayTaskError as error:
            if isinstance(error.cause, MotetError):
                raise error.cause from None
            raise ProcessError(
                f"An actor raised {first_line(error.cause or error)}.", fix="see its traceback: MOTET_TRACEBACK=1."
            ) from error

    def kill(self, actor: Any) -> None:
        with suppress(Exception):  # it may be dead
            self.ray.kill(actor, no_restart=True)

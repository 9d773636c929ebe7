"""Slots of the Prefect server's limits `gpu` and `sandbox`: a stage that occupies one of them waits until a slot is free.

The limits are global concurrency limits, which `make deploy` creates; what has no limit on the server is not limited. A lease holds a
slot, and a thread renews it. After a kill the slot is free again LEASE_SECONDS later, or at once where another run of the same
user and machine waits for it: that a holder lives is known by a lock on a file, which the kernel releases.

Prefect's own `concurrency` does this less well: its wait holds up the end of the process, and after three failed renewals it lets the
lease expire. Its limits on tags keep the slot of a killed task for ever.
"""

import contextlib
import contextvars
import fcntl
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.responses import GlobalConcurrencyLimitResponse
from prefect.exceptions import ObjectNotFound
from prefect.runtime import deployment
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, PREFECT_HOME, temporary_settings

from selftrain.errors import RunError, UsageError
from selftrain.stop import current
from selftrain.units import count_of, duration

LEASE_SECONDS = 300.0
"""Seconds from a lease's last renewal to its end: the longest outage of the server that a holder outlasts for sure."""
TAKE_SECONDS = 60.0
"""Seconds of a new lease, the fewest that the server allows, until its first renewal: who does not get the server's answer does not
know of the lease, which holds the slot until it ends."""
RENEW_SECONDS = 20.0
"""Seconds between two renewals."""
ASK_SECONDS = 5.0
"""Seconds between two questions of a stage that waits."""
RELEASE_RETRIES = 2
"""Retries of a release, with 2 and 4 s between; without it the lease expires."""


class SlotLost(RunError):
    """The server was away for longer than the lease, and another run has the slot now. The stage is retried, and waits for one."""

    retryable = True


def find_limits(client: SyncPrefectClient, resources: Iterable[str]) -> list[GlobalConcurrencyLimitResponse]:
    """The server's limits on `resources`; one that does not exist there, or is switched off, is left out.

    SELFTRAIN_GPU_LIMIT and SELFTRAIN_SANDBOX_LIMIT name other limits, for machines with their own. Raises UsageError for a limit of 0,
    and where the server has no limit of the name in such a variable.
    """
    found = []
    for resource in resources:
        variable = f"SELFTRAIN_{resource.upper()}_LIMIT"
        name = os.environ.get(variable) or resource
        try:
            limit = client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            if name == resource:
                continue
            raise UsageError(
                f"{variable} is {name}, and the Prefect server has no limit of this name: create it with "
                f"`prefect gcl create {name} --limit 1`, or unset the variable"
            ) from None
        if limit.active and limit.limit < 1:
            raise UsageError(
                f"the Prefect server's limit {name} has 0 slots, so this stage could never run: give it one with "
                f"`prefect gcl update {name} --limit 1`, or delete it, and nothing is limited. To pause runs, pause the work pool"
            )
        if limit.active:
            found.append(limit)
    return found


def check_limits(resources: Iterable[str]) -> None:
    """Raise UsageError for limits that no stage could get a slot of, before a run begins."""
    if PREFECT_API_URL.value():
        with get_client(sync_client=True) as client:
            find_limits(client, resources)


class Slots:
    """Holds one slot of each limit on `resources` for a block, in which `watch` is to be called now and then.

    Without a server of PREFECT_API_URL nothing is held: only this run uses the server that it starts for itself.

    patient  wait until the slots are free; otherwise `held` says whether they were
    """

    def __init__(self, resources: tuple[str, ...], label: str, logger: Any, patient: bool = True) -> None:
        self.resources = resources if PREFECT_API_URL.value() else ()
        self.label, self.logger, self.patient = label, logger, patient
        self.held = True
        self._names: list[str] = []
        self._lease: Lease | None = None
        self._lost = False
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self.resources:
            with get_client(sync_client=True) as client:
                self._wait(client)
        if self._lease is not None:
            renew = contextvars.copy_context().run  # with Prefect's settings
            self._thread = threading.Thread(target=renew, args=(self._renew,), daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join(2)
        if self._lease is not None and not self._lost:
            self._lease.release()

    def watch(self, progress: Callable[..., None]) -> Callable[..., None]:
        """`progress`, which first raises SlotLost if the slots were lost."""

        def watched(*values: Any, **named: Any) -> None:
            if self._lost:
                raise SlotLost(
                    f"{self.label}: the Prefect server was away for more than {duration(LEASE_SECONDS)}, and another run has the slot "
                    f"of {', '.join(self._names)} now"
                )
            progress(*values, **named)

        return watched

    def _wait(self, client: SyncPrefectClient) -> None:
        """Take the slots, and wait until they are free and the server answers; the log says once for what."""
        since, told = time.monotonic(), ""
        while True:
            try:
                limits = find_limits(client, self.resources)
                self._names = [limit.name for limit in limits]
                if not limits or self._take(client) or (release_dead(client) and self._take(client)):
                    break
                slots = (f"{limit.name}, which has {count_of(limit.limit, 'slot')}" for limit in limits)
                awaited = f"a free slot of the Prefect server's limit {' and '.join(slots)}"
            except httpx.HTTPError as error:
                if not _passes(error):
                    raise
                awaited = (
                    f"the Prefect server, which does not answer ({type(error).__name__}) and counts the slots"
                )
            if not self.patient:
                self.held = False
                return
            if awaited != told:
                self._tell(f"{self.label} waits for {awaited}")
                told = awaited
            woken = threading.Event()
            with current().calling(woken.set):
                woken.wait(ASK_SECONDS)
            current().check()
        if told:
            self.logger.info("%s goes on after %s", self.label, duration(time.monotonic() - since))

    def _tell(self, text: str) -> None:
        self.logger.info("%s", text)
        if deployment.id is None:  # the command line shows no logs
            print(text, file=sys.stderr)

    def _take(self, client: SyncPrefectClient) -> bool:
        """Take one slot of each limit, or none."""
        try:
            answer = client.increment_concurrency_slots_with_lease(
                self._names, slots=1, mode="concurrency", lease_duration=TAKE_SECONDS
            )
        except httpx.HTTPStatusError as error:
            if error.response.status_code in (httpx.codes.LOCKED, httpx.codes.UNPROCESSABLE_ENTITY):
                return False  # none free; or 0 slots since a moment ago, which the next question tells
            raise
        self._lease = Lease(UUID(answer.json()["lease_id"]), str(client.api_url))
        with contextlib.suppress(httpx.HTTPError):  # the thread renews it next
            client.renew_concurrency_lease(self._lease.id, LEASE_SECONDS)
        return True

    def _renew(self) -> None:
        """Thread: renew the lease. Where it has expired, take the slots again, and let the stage end if they are taken."""
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}), get_client(sync_client=True) as client:
            while not (self._lost or self._over.wait(RENEW_SECONDS)):
                with contextlib.suppress(httpx.HTTPError, OSError):  # the next renewal may come in time
                    self._renew_once(client)

    def _renew_once(self, client: SyncPrefectClient) -> None:
        assert self._lease is not None
        try:
            client.renew_concurrency_lease(self._lease.id, LEASE_SECONDS)
        except httpx.HTTPStatusError as error:
            if error.response.status_code != httpx.codes.GONE:
                raise
            expired = self._lease
            self._lost = not self._take(client)
            expired.forget()


def _passes(error: httpx.HTTPError) -> bool:
    """Whether the server may answer later: it is away, restarts, or is overloaded. A new client asks only once where nobody listens."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR
    return isinstance(error, httpx.TransportError)


class Lease:
    """A lease that the server granted. Its file is locked for as long as this process lives.

    The file's name has the lease, its content the server.
    """

    def __init__(self, id: UUID, server: str) -> None:
        self.id = id
        self._path = folder() / str(id)
        self._file: Any = None
        # Without the file, the slot of a killed run is free only when its lease has expired.
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            new = self._path.with_suffix(".new")
            self._file = new.open("w")
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self._file.write(server)
            self._file.flush()
            new.rename(self._path)  # locked before others see it

    def release(self) -> None:
        """Give the slots back. If the server does not answer, the file stays, and whoever waits here gives them back."""
        with (
            contextlib.suppress(httpx.HTTPError, OSError),
            temporary_settings({PREFECT_CLIENT_MAX_RETRIES: RELEASE_RETRIES}),
            get_client(sync_client=True) as client,
        ):
            client.release_concurrency_slots_with_lease(self.id)
            self.forget()
        if self._file is not None:
            self._file.close()

    def forget(self) -> None:
        """Remove the file."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
            self._file.close()


def folder() -> Path:
    """Where the files of this user's leases on this machine are."""
    return Path(PREFECT_HOME.value()) / "selftrain-slots"


def release_dead(client: SyncPrefectClient) -> bool:
    """Give back the slots that processes of this machine held which live no more; returns whether there were any."""
    found = False
    for path in _dead(str(client.api_url)):
        client.release_concurrency_slots_with_lease(UUID(path.name))
        path.unlink(missing_ok=True)
        found = True
    return found


def _dead(server: str) -> Iterator[Path]:
    """The files of leases at `server` whose holders live no more, each locked while the caller has it."""
    for path in folder().glob("*-*[!w]"):  # not .new
        with contextlib.suppress(OSError), path.open("r+") as file:  # BlockingIOError: its holder lives
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if file.read() == server:
                yield path

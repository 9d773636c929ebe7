"""Serves with several processes: forks of one that has loaded the reranker, which accept connections from the same sockets.

Scoring a small model is mostly Python, of which a process runs one thread at a time, so threads do not use several cores.
"""

import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NoReturn

from selftrain.errors import RunError, SelftrainError

METRICS = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable: the folder in which prometheus_client keeps the metrics of several workers."""
PASSED_ON = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
"""Signals to the parent that its workers get."""


@contextmanager
def prepared(number: int) -> Iterator[int]:
    """Prepare this process for `number` workers; gives the cores that each of several may use. Enter this before anything is loaded.

    Torch gets one thread, for a fork has none of the others, which it would wait for. The workers' metrics are kept in files, in a
    folder that is deleted at the end, so that each worker can add up all of them; prometheus_client reads where when it is imported.
    """
    if number == 1:
        yield 0
        return
    import torch

    cores = max(1, torch.get_num_threads() // number)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="selftrain-metrics-") as folder:
        os.environ[METRICS] = folder
        yield cores


def run_workers(
    number: int, work: Callable[[list[socket.socket]], None], sockets: list[socket.socket]
) -> None:
    """Run `work`, which serves on `sockets` until a signal, in `number` forked processes until all have ended. SIGHUP, SIGINT and
    SIGTERM are passed on to them. They end too when this process is killed.

    Raises RunError if a worker ends by itself: then all end.
    """
    reading, writing = os.pipe()
    workers = {_fork(partial(work, sockets), reading, writing) for _ in range(number)}
    for each in sockets:  # the workers' alone: they close them when they accept nothing any more
        each.close()
    asked = False

    def pass_on(signal_number: int, _: Any = None) -> None:
        nonlocal asked
        asked = asked or signal_number != signal.SIGHUP
        for worker in tuple(workers):
            with suppress(ProcessLookupError):
                os.kill(worker, signal_number)

    # Also those that are ignored, as under nohup: a single process handles them too.
    for signal_number in PASSED_ON:
        signal.signal(signal_number, pass_on)
    broke = None
    while workers:
        worker, status = os.wait()
        workers.discard(worker)
        if not asked:
            broke = os.waitstatus_to_exitcode(status)
            pass_on(signal.SIGTERM)
    if broke is not None:
        how = f"was killed by signal {-broke}" if broke < 0 else f"ended with code {broke}"
        raise RunError(f"a serving process {how}, so all have ended; what it said stands above")


def _fork(work: Callable[[], None], reading: int, writing: int) -> int:
    """Start a worker; returns its process id. `reading`, `writing`: the ends of a pipe that nobody writes to."""
    worker = os.fork()
    if not worker:
        os.close(writing)
        _be_worker(work, reading)
    return worker


def _be_worker(work: Callable[[], None], reading: int) -> NoReturn:
    """Do the work of a worker, then exit, whatever happens: the code that called fork goes on in the parent alone."""
    code = 1
    try:
        os.setpgid(0, 0)  # Ctrl-C reaches the parent, which passes it on
        threading.Thread(target=_end_with_parent, args=(reading,), daemon=True).start()
        work()
        code = 0
    except SelftrainError as error:
        print(f"selftrain: {error}", file=sys.stderr)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)


def _end_with_parent(reading: int) -> None:
    """Thread of a worker: end it as SIGTERM does when the parent, the only one that holds the pipe's other end, has ended."""
    os.read(reading, 1)
    os.kill(os.getpid(), signal.SIGTERM)

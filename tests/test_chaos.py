"""Runs `tests.chaos`: a run survives failures of everything around it and ends like an undisturbed run."""

import os
import tempfile
from pathlib import Path

from tests.chaos import compare, kill_worker, possible
from tests.command import Finished
from tests.needs import need
from tests.sandbox.conftest import need_backend
from tests.world import made


def test_a_run_with_everything_going_wrong_ends_as_an_undisturbed_one(smoke_run: Finished):
    need(os.geteuid() == 0, "only root can mount a small disk and start a Docker daemon")
    need_backend("docker")
    # pytest's own folders have names that are too long for a daemon's sockets.
    with (
        tempfile.TemporaryDirectory(prefix="chaos-") as folder,
        made(Path(folder, "world"), "docker", "s3") as world,
    ):
        # The worker is killed together with its flow, too: that is enough here.
        events = tuple(event for event in possible(world) if event[2] is not kill_worker)
        assert compare(world, smoke_run.out.parent, events) == 0

"""Defines the errors that `selftrain`, `tasks` and `flows` raise on purpose: mistakes of the user, and failures of the work.

Each error message says what is wrong, what was expected, what was found and what to do.
"""


class SelftrainError(Exception):
    """Base of all these errors. `exit_code`: that of the command line. `retryable`: whether Prefect retries the stage."""

    exit_code = 1
    retryable = False


class UsageError(SelftrainError):
    """The user's input is wrong: config, option, path. Never retried."""

    exit_code = 2


class DataError(UsageError):
    """The user's data is wrong; the message starts with `FILE:LINE:` if the place is known."""


class RunError(SelftrainError):
    """The work failed for a reason that is not the user's input."""


class StoreError(RunError):
    """The artifact store cannot be read or written. `code`: S3's error code, empty if there is none."""

    retryable = True
    code = ""


class StoreRefused(StoreError):
    """The store refused, and a retry would not help: no such bucket, wrong credentials, no permission."""

    retryable = False


class CorruptArtifact(RunError):
    """A file of the artifact `artifact`, STAGE/KEY, is missing, short, or not what the manifest says; `what` says which and how.

    A second read does not help: the run rebuilds the artifact.
    """

    def __init__(self, artifact: str, what: str) -> None:
        super().__init__(artifact, what)
        self.artifact, self.what = artifact, what

    def __str__(self) -> str:
        return f"{self.artifact}: {self.what}; run again to rebuild it"


class ChildFailed(RunError):
    """A child process died; the message ends with its last lines."""

    retryable = True


class SandboxFailed(RunError):
    """The sandbox itself failed, so programs could not be judged; this says nothing about the programs."""

    retryable = True

"""The sandbox's exceptions.

    SandboxError                  base class; the sandbox itself failed                 exit code 3
    ├── UsageError                the input is wrong: option, language, row             exit code 2
    ├── BackendUnavailable        the chosen backend is not available on this machine   exit code 2
    │   └── ImageMissing          backend docker's image is not built                   exit code 2
    ├── ToolsMissing              a language's compiler or interpreter is not installed exit code 2
    └── Cancelled                 the caller cancelled the call                         exit code 3

A program's own failure is never an exception: it is a `Verdict`.
"""


class SandboxError(Exception):
    """Base class of the sandbox's exceptions. `exit_code`: the exit code of the command line for this error."""

    exit_code = 3


class UsageError(SandboxError):
    """The input is wrong (an option, a language, a row). For a row of a file the message starts with `FILE:LINE:`."""

    exit_code = 2


class BackendUnavailable(SandboxError):
    """The chosen backend is not available on this machine; the message says what to install or start."""

    exit_code = 2


class ImageMissing(BackendUnavailable):
    """Backend docker's image is not built; the message says how to build it."""


class ToolsMissing(SandboxError):
    """A language's compiler or interpreter is not installed; the message names it."""

    exit_code = 2


class Cancelled(SandboxError):
    """The caller cancelled a call of `Sandbox.run`; the programs of that call were killed."""

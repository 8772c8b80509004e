"""How a command ends: one sentence for people, or JSON for programs, and an exit code that says which."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any, NoReturn, TypeVar

import click
from pydantic import ValidationError

from edgemodel_operator.build.failures import BuildError
from edgemodel_operator.cli.documents import InvalidDocuments
from edgemodel_operator.cli.plan import NotPossible
from edgemodel_operator.oci.auth import InvalidCredentials
from edgemodel_operator.oci.errors import RegistryError
from edgemodel_operator.oci.image import InvalidImage
from edgemodel_operator.oci.layout_transaction import LayoutBusy, NotALayout
from edgemodel_operator.oci.reference import InvalidReference
from edgemodel_operator.settings import InvalidSettings
from edgemodel_operator.signing.errors import KeyLoadError, SignatureLost, SigningError

Result = TypeVar("Result")


class Exit(IntEnum):
    """The exit codes of every command."""

    DONE = 0
    FAILED = 1
    """Somebody must change something first."""
    WRONG_INPUT = 2
    """The command line or a file is wrong; nothing was begun."""
    TRY_AGAIN = 3
    """It may work later without anybody changing anything."""
    INTERRUPTED = 130


_ENDINGS: tuple[tuple[type[Exception], Exit], ...] = (
    (LayoutBusy, Exit.TRY_AGAIN),
    (SignatureLost, Exit.TRY_AGAIN),
    (InvalidDocuments, Exit.WRONG_INPUT),
    (InvalidSettings, Exit.WRONG_INPUT),
    (InvalidReference, Exit.WRONG_INPUT),
    (InvalidCredentials, Exit.WRONG_INPUT),
    (KeyLoadError, Exit.WRONG_INPUT),
    (NotALayout, Exit.WRONG_INPUT),
    (NotPossible, Exit.WRONG_INPUT),
    (InvalidImage, Exit.FAILED),
    (SigningError, Exit.FAILED),
    (OSError, Exit.FAILED),
)
"""What an error means for the exit code; the first that fits counts."""


@contextmanager
def told(*, as_json: bool) -> Iterator[None]:
    """Run a command's work; what goes wrong in it is said, and ends the program."""
    try:
        yield
    except BuildError as error:
        failure = error.failure
        end(_retry(failure.retryable), failure.message, failure.reason.value, as_json=as_json)
    except RegistryError as error:
        end(_retry(error.retryable), str(error), type(error).__name__, as_json=as_json)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        end(Exit.WRONG_INPUT, f"{where}: {first['msg']}", "InvalidSpec", as_json=as_json)
    except tuple(kind for kind, _ in _ENDINGS) as error:
        code = next(code for kind, code in _ENDINGS if isinstance(error, kind))
        end(code, str(error), type(error).__name__, as_json=as_json)
    except KeyboardInterrupt:
        end(Exit.INTERRUPTED, "interrupted; nothing is left behind", "Interrupted", as_json=as_json)


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run to the end; SIGINT and SIGTERM cancel the work, wait until it has cleaned up, and interrupt.

    A shell that starts programs in the background has them ignore SIGINT: then that stays so.
    """
    stopped = False

    async def stoppable() -> Result:
        task = asyncio.ensure_future(work)

        def stop() -> None:
            nonlocal stopped
            stopped = True
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                asyncio.get_running_loop().add_signal_handler(number, stop)
        return await task

    try:
        return asyncio.run(stoppable())
    except asyncio.CancelledError:
        if stopped:
            raise KeyboardInterrupt from None
        raise


def _retry(retryable: bool) -> Exit:
    return Exit.TRY_AGAIN if retryable else Exit.FAILED


def end(code: Exit, message: str, reason: str, *, as_json: bool = False) -> NoReturn:
    """Say what went wrong, and end the program with the code."""
    if as_json:
        failure = {"reason": reason, "message": message, "retryable": code is Exit.TRY_AGAIN}
        click.echo(json.dumps({"failure": failure}, indent=2))
    else:
        click.echo(f"error: {message}", err=True)
    sys.exit(code)

"""How a command ends: one sentence for people, or JSON for programs, and an exit code that says which."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any, TypeVar

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


_WRONG_INPUT = (
    InvalidDocuments,
    InvalidSettings,
    InvalidReference,
    InvalidCredentials,
    NotALayout,
    NotPossible,
)


@contextmanager
def told(*, as_json: bool) -> Iterator[None]:
    """Run a command's work; what goes wrong in it is said, and ends the program."""
    try:
        yield
    except BuildError as error:
        failure = error.failure
        _end(_retry(failure.retryable), failure.message, failure.reason.value, as_json=as_json)
    except RegistryError as error:
        _end(_retry(error.retryable), str(error), type(error).__name__, as_json=as_json)
    except LayoutBusy as error:
        _end(Exit.TRY_AGAIN, str(error), "LayoutBusy", as_json=as_json)
    except (InvalidImage, OSError) as error:
        _end(Exit.FAILED, str(error), type(error).__name__, as_json=as_json)
    except _WRONG_INPUT as error:
        _end(Exit.WRONG_INPUT, str(error), type(error).__name__, as_json=as_json)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        _end(Exit.WRONG_INPUT, f"{where}: {first['msg']}", "InvalidSpec", as_json=as_json)
    except KeyboardInterrupt:
        _end(Exit.INTERRUPTED, "interrupted; nothing is left behind", "Interrupted", as_json=as_json)


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


def _end(code: Exit, message: str, reason: str, *, as_json: bool) -> None:
    if as_json:
        failure = {"reason": reason, "message": message, "retryable": code is Exit.TRY_AGAIN}
        click.echo(json.dumps({"failure": failure}, indent=2))
    else:
        click.echo(f"error: {message}", err=True)
    sys.exit(code)

"""A warm process that starts runs by forking: what takes seconds to import is imported once.

It reads one JSON request a line and answers each with one line. A child sees what a process from a shell would: its
own session, standard streams, directory, environment, limits and signals, and the command line's `main`.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import importlib.util
import io
import json
import os
import pkgutil
import resource
import select
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from .triggers import Trigger, arm

EARLY = (
    "torch", "torch.utils.tensorboard", "torch.distributed.launcher.api", "lightning", "lightning.pytorch.loggers",
    "hydra.main", "hydra._internal.hydra", "hydra.core.plugins", "matplotlib.pyplot", "matplotlib.backends.backend_agg",
    "PIL.PngImagePlugin", "torchmetrics.classification", "rich.logging", "rich.table", "yaml",
)  # fmt: skip
"""Beside the whole of the project."""

Main = Callable[[], None]


def serve(project: Path) -> Main:
    """Answer requests until there are no more. Returns only in a child: with what the child has to call."""
    main = _warm(project)
    print(json.dumps({"ready": os.getpid()}), flush=True)
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        if "start" in request:
            child = os.fork()
            if child == 0:
                _become(request["start"], project)
                code = request["start"]["code"]
                return partial(exec, code, {}) if code else main
            print(json.dumps({"pid": child}), flush=True)
        else:
            print(json.dumps(_wait(request["wait"], request["seconds"])), flush=True)
    os._exit(0)


def _warm(project: Path) -> Main:
    """Import all that a run imports, and find the `main` of the project's own main.py."""
    import targetprop

    names = [each.name for each in pkgutil.walk_packages(targetprop.__path__, "targetprop.")]
    # Silent, and not the module that runs when it is imported.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        for name in (*EARLY, *(each for each in names if not each.endswith("__main__"))):
            with contextlib.suppress(ImportError):  # of another edition, or an extra that is not there
                importlib.import_module(name)
    spec = importlib.util.spec_from_file_location("main_of_the_project", project / "main.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    gc.freeze()  # so that children do not copy all pages when they collect
    main: Main = module.main
    return main


def _wait(child: int, seconds: float) -> dict[str, Any]:
    """How a child ended, as subprocess counts it; null after so many seconds in which it did not."""
    handle = os.pidfd_open(child)
    try:
        ended, _, _ = select.select([handle], [], [], seconds)
    finally:
        os.close(handle)
    if not ended:
        return {"code": None}
    _, status, used = os.wait4(child, 0)
    return {"code": os.waitstatus_to_exitcode(status), "memory": used.ru_maxrss * 1024}


def _become(launch: dict[str, Any], project: Path) -> None:
    """Turn this fork into the process that was asked for."""
    os.setsid()
    for name, stream in (("stdout", 1), ("stderr", 2)):
        file = os.open(launch[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, stream)
        os.close(file)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    os.chdir(launch["directory"])
    for name, value in launch["environment"].items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    if launch["memory"]:
        resource.setrlimit(resource.RLIMIT_AS, (launch["memory"],) * 2)
    for number in launch["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    arm([Trigger(**{**each, "signals": tuple(each["signals"])}) for each in launch["triggers"]])
    if launch["ordinary"]:
        _obey_modes()
    sys.argv = [str(project / "main.py"), *launch["arguments"]]


def _obey_modes() -> None:
    """Give up the right of root to open every file (capabilities 1 and 2 of Linux)."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc.capget(header, sets)
    sets[0] &= ~0b110
    if libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")

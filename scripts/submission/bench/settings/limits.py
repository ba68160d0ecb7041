"""A time limit that also holds where no signal is heard.

What may hang (a download, a checker, a reward) is waited for in a thread of its own. There it
can be left behind, also where no signal is heard: Tunix computes rewards in a thread.
"""

import concurrent.futures
import ctypes
import threading
from collections.abc import Callable
from typing import Any


def within(seconds: float, function: Callable[[], Any]) -> Any:
    """`function()`, in a thread that is told to stop, and left behind, when the time is up.

    Raises:
      TimeoutError: there is no value yet.
    """
    value: concurrent.futures.Future = concurrent.futures.Future()

    def work() -> None:
        try:
            value.set_result(function())
        except BaseException as error:
            value.set_exception(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        return value.result(seconds)
    except TimeoutError:
        if not value.done():  # a loop in Python hears this; what waits outside of Python does not
            number = ctypes.c_ulong(thread.ident or 0)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(number, ctypes.py_object(TimeoutError))
            raise TimeoutError(f"no answer after {seconds:g} seconds") from None
        raise

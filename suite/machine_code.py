"""Functions as machine code: compiled by numba at their first call, and kept in its cache for other processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from suite.types import BadInput


def compiled(function: Callable[..., Any], *, fastmath: Iterable[str] = (), **options: Any) -> Callable[..., Any]:
    """A function that does the same without the interpreter, and without its lock.

    Args:
        function: Of arrays and numbers; in itself a whole, since one that it calls is compiled apart, and then its
            sums may have another order in the first process than in those that load it (`kernels.inlined`).
        fastmath: Liberties of LLVM with sums and products.
        options: Others of `numba.njit`.

    Raises:
        BadInput: When called: it can be neither compiled nor loaded here, which is the machine's fault, not that of
            what is computed. A cache that cannot be written, or on a full disk, costs nothing but the cache.
    """
    import numba

    settings: dict[str, Any] = {"nogil": True, "fastmath": set(fastmath), **options}
    try:
        made = numba.njit(cache=True, **settings)(function)
    except RuntimeError:  # no folder to write the cache to
        made = numba.njit(**settings)(function)

    def call(*arguments: Any) -> Any:
        try:
            try:
                return made(*arguments)
            except OSError:  # compiled, but not written
                return made(*arguments)
        except Exception as error:
            if made.overloads:  # it runs: the error is its own
                raise
            raise BadInput(
                f"machine code: {function.__name__} can be neither compiled nor loaded here "
                f"({type(error).__name__}: {error}); name an empty folder for numba's cache in NUMBA_CACHE_DIR"
            ) from None

    return call

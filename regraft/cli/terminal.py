"""The text that a terminal can show, and the arguments that Regraft can store."""

import codecs
import io
import os
import sys
from collections.abc import Iterable

from regraft.core.errors import ConfigError

# typer takes a stream in ASCII for a mistake and writes UTF-8 to it, unless ASCII has another name.
_ASCII = "regraft-ascii"


def escape_unprintable() -> None:
    r"""Write a character that the terminal's encoding lacks as an escape, such as \u8702."""
    codecs.register(_find_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            is_ascii = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding=_ASCII if is_ascii else None, errors="backslashreplace")


def _find_ascii(name: str) -> codecs.CodecInfo | None:
    """Return the codec ASCII for its other name, of which Python makes an identifier."""
    if name != _ASCII.replace("-", "_"):
        return None
    ascii_ = codecs.lookup("ascii")
    return codecs.CodecInfo(
        ascii_.encode,
        ascii_.decode,
        incrementalencoder=ascii_.incrementalencoder,
        incrementaldecoder=ascii_.incrementaldecoder,
        name=_ASCII,
    )


def check_arguments(words: Iterable[str]) -> None:
    """Check that Regraft can store each argument; its files and databases are UTF-8.

    An existing path passes, because the name of a photo to predict may be any bytes; a path that
    is stored is checked by its workflow.

    Raises:
        ConfigError: an argument is not UTF-8, or the locale of the process is not.
    """
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            if not os.path.lexists(word):
                shown = word.encode("utf-8", "surrogateescape")
                raise ConfigError(
                    f"Expected an argument in UTF-8, got the bytes {shown!r}, read as "
                    f"{sys.getfilesystemencoding()}. Write it in UTF-8, or set a locale that is: "
                    "LC_ALL=C.UTF-8."
                ) from None

"""The templates that this process has compiled: that takes longer than filling them in."""

from types import CodeType

from jinja2 import BytecodeCache
from jinja2.bccache import Bucket


class Compiled(BytecodeCache):
    """Keeps the code of templates in memory, for every environment of the process.

    The code does not depend on the environment: filters are looked up when it runs.
    """

    def __init__(self) -> None:
        self._codes: dict[tuple[str, str], CodeType] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        """Fills the bucket, if this template was compiled before, from the same source."""
        bucket.code = self._codes.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keeps the code of a bucket."""
        if bucket.code:
            self._codes[bucket.key, bucket.checksum] = bucket.code


COMPILED = Compiled()

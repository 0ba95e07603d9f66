"""A cache of compiled templates: compiling a template takes longer than rendering it."""

from types import CodeType

from jinja2 import BytecodeCache
from jinja2.bccache import Bucket


class TemplateCache(BytecodeCache):
    """Compiled templates in memory, shared by all environments of the process.

    The compiled code does not depend on the environment, because filters are resolved when it runs.
    """

    def __init__(self) -> None:
        self._codes: dict[tuple[str, str], CodeType] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        """Fill the bucket if this template was compiled before from the same source."""
        bucket.code = self._codes.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Store the code of a bucket."""
        if bucket.code:
            self._codes[bucket.key, bucket.checksum] = bucket.code


TEMPLATE_CACHE = TemplateCache()

"""Base class and field types of all sections of the configuration."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


def refuse_password(url: str) -> str:
    """Return the URL unchanged if it contains no password.

    The configuration is stored in plain text.

    Raises:
        ValueError: the URL contains a password.
    """
    if re.search(r"(^|:)[\w+.-]+://[^/@\s]*:[^/@\s]+@", url):
        raise ValueError("contains a password; configure it in the client library instead")
    return url


Url = Annotated[str, AfterValidator(refuse_password), Field(description="local path or fsspec URL")]


class Section(BaseModel):
    """A section of the configuration: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

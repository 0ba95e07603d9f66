"""What all sections of the configuration share."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


def refuse_password(url: str) -> str:
    """The URL unchanged; a configuration is stored in plain text, so it may hold no password."""
    if re.search(r"(^|:)[\w+.-]+://[^/@\s]*:[^/@\s]+@", url):
        raise ValueError("holds a password; give it to the client library, not here")
    return url


Url = Annotated[str, AfterValidator(refuse_password), Field(description="local path or fsspec URL")]


class Section(BaseModel):
    """A part of the configuration: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

"""Base class and field types of all sections of the configuration."""

import json
import re
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

Value = TypeVar("Value")

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


_PASSWORD = re.compile(r"(^|:)[\w+.-]+://[^/@\s]*:[^/@\s]+@")
# Parameters that sign a URL or authorise its holder: S3, Google, Azure, and usual names.
_TOKEN = re.compile(
    r"://\S*[?&](x-(amz|goog)-(signature|credential|security-token)|sig|signature|"
    r"(access_?|auth_?)?token|api_?key|password|secret)=",
    re.IGNORECASE,
)


def refuse_login(url: str) -> str:
    """Return the URL unchanged if it contains no user with a password.

    Raises:
        ValueError: the URL contains a password.
    """
    if _PASSWORD.search(url):
        raise ValueError("contains a password; configure it in the client library instead")
    return url


def refuse_password(url: str) -> str:
    """Return the URL unchanged if it contains no password and no token.

    The configuration is stored in plain text.

    Raises:
        ValueError: the URL contains a password or a token.
    """
    if _TOKEN.search(url):
        raise ValueError("contains a token; configure it in the client library instead")
    return refuse_login(url)


Url = Annotated[str, AfterValidator(refuse_password), Field(description="local path or fsspec URL")]


class Section(BaseModel):
    """A section of the configuration: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def refuse_other_encodings(cls, value: Value) -> Value:
        """Return the value unchanged if it can be stored: configurations are stored as UTF-8.

        Raises:
            ValueError: a text in it is not Unicode, such as a path with bytes that are not UTF-8.
        """
        try:
            json.dumps(value, ensure_ascii=False, default=str).encode()
        except UnicodeEncodeError:
            raise ValueError(
                "is not UTF-8; rename it, or set a locale that is UTF-8, such as LC_ALL=C.UTF-8"
            ) from None
        return value

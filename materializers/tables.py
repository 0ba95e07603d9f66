"""Materializers for dataclasses: a Parquet file for each table, a JSON file for other fields."""

import hashlib
import json
from dataclasses import Field, fields
from pathlib import PurePosixPath
from typing import Any, ClassVar

import pandas as pd
from pydantic import TypeAdapter
from zenml.enums import ArtifactType
from zenml.materializers.base_materializer import BaseMaterializer

from regraft.data.ingest import ImageTable
from regraft.data.split import Splits

PLAIN_FILE = "value.json"


class TablesMaterializer(BaseMaterializer):
    """Store a frozen dataclass whose fields are DataFrames or values that pydantic can dump."""

    SKIP_REGISTRATION: ClassVar[bool] = True
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA

    def save(self, data: Any) -> None:  # noqa: ANN401 - ZenML's signature
        """Write each field of the value."""
        plain = {}
        for part in fields(data):
            value = vars(data)[part.name]
            if isinstance(value, pd.DataFrame):
                with self.artifact_store.open(self.file(f"{part.name}.parquet"), "wb") as file:
                    value.to_parquet(file)
            elif not self.save_part(part.name, value):
                plain[part.name] = _adapter(part).dump_python(value, mode="json")
        with self.artifact_store.open(self.file(PLAIN_FILE), "w") as file:
            file.write(json.dumps(plain))

    def load(self, data_type: type[Any]) -> Any:  # noqa: ANN401 - ZenML's signature
        """Return the value that save() wrote."""
        with self.artifact_store.open(self.file(PLAIN_FILE), "r") as file:
            plain = json.loads(file.read())
        values = {}
        for part in fields(data_type):
            if part.name in plain:
                values[part.name] = _adapter(part).validate_python(plain[part.name])
            elif part.type is pd.DataFrame:
                with self.artifact_store.open(self.file(f"{part.name}.parquet"), "rb") as file:
                    values[part.name] = pd.read_parquet(file)
            else:
                values[part.name] = self.load_part(part.name)
        return data_type(**values)

    def save_part(self, name: str, value: object) -> bool:
        """Write a field that is neither a table nor JSON; return False if it was not written."""
        return False

    def load_part(self, name: str) -> object:
        """Return a field that save_part() wrote."""
        raise NotImplementedError(name)

    def file(self, name: str) -> str:
        """Return the path of a file of this artifact."""
        return (
            str(PurePosixPath(self.uri) / name) if "://" not in self.uri else f"{self.uri}/{name}"
        )

    def compute_content_hash(self, data: Any) -> str | None:  # noqa: ANN401 - ZenML's signature
        """Return a hash of the content, so that equal values give the same cache key."""
        digest = hashlib.sha256()
        for part in fields(data):
            value = vars(data)[part.name]
            if isinstance(value, pd.DataFrame):
                digest.update(json.dumps(list(map(str, value.columns))).encode())
                digest.update(pd.util.hash_pandas_object(value).to_numpy().tobytes())
            else:
                digest.update(repr(value).encode())
        return digest.hexdigest()


def _adapter(part: "Field[Any]") -> TypeAdapter[Any]:
    return TypeAdapter(part.type)


class ImageTableMaterializer(TablesMaterializer):
    """Store an ImageTable."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (ImageTable,)


class SplitsMaterializer(TablesMaterializer):
    """Store Splits."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Splits,)

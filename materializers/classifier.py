"""Materializers for classifiers: safetensors weights and card.json, without pickle."""

import hashlib
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from zenml.enums import ArtifactType
from zenml.materializers.base_materializer import BaseMaterializer

from materializers.tables import TablesMaterializer
from regraft.model.card import CARD_FILE
from regraft.model.classifier import WEIGHTS_FILE, ImageClassifier, load_classifier
from regraft.training.tune import Challenger

FILES = (WEIGHTS_FILE, CARD_FILE)


class ClassifierMaterializer(BaseMaterializer):
    """Store an ImageClassifier as a weights file and a card file."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (ImageClassifier,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.MODEL

    def save(self, data: ImageClassifier) -> None:
        """Write weights and card."""
        with tempfile.TemporaryDirectory() as folder:
            data.save(Path(folder))
            for name in FILES:
                with self.artifact_store.open(f"{self.uri}/{name}", "wb") as file:
                    file.write((Path(folder) / name).read_bytes())

    def load(self, data_type: type[Any]) -> ImageClassifier:
        """Return the classifier that save() wrote."""
        with tempfile.TemporaryDirectory() as folder:
            for name in FILES:
                with self.artifact_store.open(f"{self.uri}/{name}", "rb") as file:
                    (Path(folder) / name).write_bytes(file.read())
            return load_classifier(Path(folder))

    def compute_content_hash(self, data: ImageClassifier) -> str | None:
        """Return a hash of everything that affects a prediction, and of the card."""
        content = data.content_hash + data.card.model_dump_json()
        return hashlib.sha256(content.encode()).hexdigest()


class ChallengerMaterializer(TablesMaterializer):
    """Store a Challenger as its tables, and its classifier in the same folder."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Challenger,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.MODEL

    def save_part(self, name: str, value: object) -> bool:
        """Write the classifier; return False for any other field."""
        if isinstance(value, ImageClassifier):
            ClassifierMaterializer(self.uri, self.artifact_store).save(value)
        return isinstance(value, ImageClassifier)

    def load_part(self, name: str) -> object:
        """Return the classifier."""
        return ClassifierMaterializer(self.uri, self.artifact_store).load(ImageClassifier)

    def compute_content_hash(self, data: Challenger) -> str | None:
        """Return None: the record contains durations, so no two challengers are equal."""
        return None

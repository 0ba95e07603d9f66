"""The classifier: its backbone, its pixels, what is frozen, and its embeddings."""

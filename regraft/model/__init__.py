"""The classifier: backbone, preprocessing, freeze plan, and embeddings."""

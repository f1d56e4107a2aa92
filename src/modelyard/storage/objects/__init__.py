"""Objects: content named by its SHA-256, in a local folder or a bucket, verified whenever it is read."""

from modelyard.storage.objects.model import CollectionPlan, Digest, Place, StoredObject
from modelyard.storage.objects.store import ObjectStore

__all__ = ["CollectionPlan", "Digest", "ObjectStore", "Place", "StoredObject"]

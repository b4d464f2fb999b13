"""The owner's configuration, bridgeData.yaml: read, checked and edited."""

"""What the horde allows and grants: by a request, by its model, and by the bridge that asks."""

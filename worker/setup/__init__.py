"""The set-up of a new worker: what is asked of its owner, looked at, proposed and written."""

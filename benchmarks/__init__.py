"""Measurements that say something of this machine; `./horde-bridge.sh benchmark NAME`."""

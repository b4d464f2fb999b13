"""Runs a module on a simulated card of 4 GiB that really computes: MODULE ARGUMENTS…"""

from __future__ import annotations

import os
import runpy
import sys

from tests.simcard.card import MIB, Card
from tests.simcard.driver import insert

if __name__ == "__main__":
    insert(Card(4096 * MIB, has_numbers=True))
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    sys.stdout.flush()
    os._exit(0)  # the card's patches last as long as the process

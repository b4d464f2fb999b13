"""Files that gave no numbers in 16 bits compute in 32 at once: for a while, and while they stay."""

from __future__ import annotations

from pathlib import Path

from hordelib.files.model_key import FileStamp, ModelKey
from hordelib.memory.wide_parts import FEWEST, KEPT, MOST, Files, RunPrecision, WideParts

UNET, NET = ModelKey("checkpoint", Path("a"), "unet"), ModelKey("control_net", Path("b"))


def files(*keys: ModelKey, version: int = 0) -> Files:
    return frozenset((key, FileStamp(0, 0, 0, version)) for key in keys)


def left_out(wide: WideParts, which: Files) -> int:
    """How many tries in 16 bits are left out in a row."""
    return next(tries for tries in range(1000) if not wide.leave_out(which))


def test_each_time_that_16_bits_fail_again_twice_as_many_tries_are_left_out():
    wide, seen = WideParts(), list[int]()
    for _ in range(8):
        wide.tried(files(UNET), is_enough=False)
        assert wide.are_wide(files(UNET, NET))
        seen.append(left_out(wide, files(UNET)))
        assert not wide.are_wide(files(UNET, NET))
    assert seen == [4, 8, 16, 32, 64, 64, 64, 64]
    assert (seen[0], seen[-1]) == (FEWEST, MOST)


def test_what_does_in_16_bits_again_is_forgotten():
    wide = WideParts()
    wide.tried(files(UNET), is_enough=False)
    left_out(wide, files(UNET))
    wide.tried(files(UNET), is_enough=True)
    assert not wide.leave_out(files(UNET))
    wide.tried(files(UNET), is_enough=False)
    assert left_out(wide, files(UNET)) == FEWEST


def test_another_file_and_other_company_are_tried_in_16_bits():
    wide = WideParts()
    wide.tried(files(UNET, NET), is_enough=False)
    assert not wide.leave_out(files(UNET, NET, version=1))
    assert not wide.leave_out(files(UNET))
    assert not wide.are_wide(files(UNET))
    assert wide.leave_out(files(UNET, NET))


def test_not_more_than_so_many_are_remembered():
    wide = WideParts()
    for version in range(KEPT + 1):
        wide.tried(files(UNET, version=version), is_enough=False)
    assert not wide.leave_out(files(UNET, version=0))
    assert wide.leave_out(files(UNET, version=KEPT))


def test_a_network_of_no_known_file_is_not_remembered_and_the_run_was_wide():
    wide, network, stranger = WideParts(), object(), object()
    (file,) = files(UNET)
    run = RunPrecision(wide, {id(network): file})
    run.tried([network, stranger], is_enough=False)
    assert run.was_wide
    assert not run.leaves_out([network])
    run.tried([network], is_enough=False)
    later = RunPrecision(wide, {id(network): file})
    assert not later.was_wide
    assert later.leaves_out([network])
    assert later.was_wide

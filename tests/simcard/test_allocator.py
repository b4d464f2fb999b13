"""What torch's caching allocator does with sizes, by its own rules."""

from __future__ import annotations

import random

import pytest

from tests.simcard.allocator import Block, CachingAllocator, OutOfRoom

MIB = 1 << 20


def allocator(room_bytes: int = 1 << 30) -> CachingAllocator:
    return CachingAllocator(lambda: room_bytes)


def test_small_blocks_share_a_segment_and_large_ones_have_their_own():
    it = allocator()
    small = [it.take(1) for _ in range(100)]
    assert (it.allocated_bytes, it.reserved_bytes) == (100 * 512, 2 * MIB)
    large = it.take(30 * MIB + 1)
    assert it.reserved_bytes == 34 * MIB
    for block in [*small, large]:
        it.give(block)
    assert it.allocated_bytes == 0
    assert it.reserved_bytes == 34 * MIB
    it.empty_cache()
    assert it.reserved_bytes == 0


def test_a_segment_with_one_block_in_use_stays():
    it = allocator()
    first, second = it.take(4 * MIB), it.take(4 * MIB)
    it.give(first)
    it.empty_cache()
    assert it.reserved_bytes == 20 * MIB
    it.give(second)
    it.empty_cache()
    assert it.reserved_bytes == 0


def test_what_is_unused_goes_back_before_room_runs_out():
    it = allocator(64 * MIB)
    it.give(it.take(40 * MIB))
    it.take(50 * MIB)
    assert it.reserved_bytes == 50 * MIB
    with pytest.raises(OutOfRoom):
        it.take(20 * MIB)


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_left_of_any_order_of_blocks(seed: int):
    draw, it = random.Random(seed), allocator(1 << 40)
    held: list[Block] = []
    for _ in range(2000):
        if held and draw.random() < 0.5:
            it.give(held.pop(draw.randrange(len(held))))
        else:
            held.append(it.take(draw.choice((700, 90_000, 3 * MIB, 40 * MIB))))
        assert it.allocated_bytes == sum(block.size_bytes for block in held)
        assert it.reserved_bytes >= it.allocated_bytes
    for block in held:
        it.give(block)
    it.empty_cache()
    assert it.reserved_bytes == it.allocated_bytes == 0

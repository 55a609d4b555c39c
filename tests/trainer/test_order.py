"""The order's laws: coverage, seeking, determinism."""

import hashlib
from collections.abc import Iterator
from itertools import islice, pairwise, takewhile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softlabel.trainer import order as order_module
from softlabel.trainer.order import (
    BLOCK_IMAGES,
    BUFFER_BLOCKS,
    WINDOW_TARS,
    Buffer,
    Order,
    view_numbers,
)

counts_strategy = st.lists(st.integers(0, 400), min_size=1, max_size=40).filter(any)


def images(order: Order, position: int) -> Iterator[tuple[int, int, int]]:
    """(epoch, tar, place) of each image from a position on."""
    for buffer in order.buffers(position):
        tar, place = buffer.images()
        skip = max(0, position - buffer.start)
        for t, p in zip(tar[skip:], place[skip:], strict=True):
            yield buffer.epoch, int(t), int(p)


def first_epoch(order: Order) -> Iterator[Buffer]:
    return takewhile(lambda buffer: buffer.epoch == 0, order.buffers(0))


@settings(deadline=None, max_examples=60)
@given(counts=counts_strategy, seed=st.integers(0, 2**63 - 1), number=st.integers(0, 5))
def test_every_image_comes_exactly_once_an_epoch(counts, seed, number):
    order = Order(counts, seed=seed)
    seen = list(islice(images(order, number * order.num_images), order.num_images))
    assert {e for e, _, _ in seen} == {number}
    wanted = [(t, p) for t, count in enumerate(counts) for p in range(count)]
    assert sorted((t, p) for _, t, p in seen) == wanted


@settings(deadline=None, max_examples=60)
@given(counts=counts_strategy, seed=st.integers(0, 2**63 - 1), data=st.data())
def test_seeking_equals_iterating(counts, seed, data):
    order = Order(counts, seed=seed)
    position = data.draw(st.integers(0, 2 * order.num_images))
    length = data.draw(st.integers(1, 2 * BLOCK_IMAGES))
    from_start = list(islice(images(order, 0), position, position + length))
    assert list(islice(images(Order(counts, seed=seed), position), length)) == from_start


@settings(deadline=None, max_examples=30)
@given(counts=counts_strategy, position=st.integers(0, 3000), sizes=st.lists(st.integers(1, 300)))
def test_the_stream_does_not_depend_on_how_it_is_cut_into_reads(counts, position, sizes):
    order = Order(counts, seed=1)
    whole = list(islice(images(order, position), sum(sizes)))
    parts, at = [], position
    for size in sizes:
        parts += islice(images(order, at), size)
        at += size
    assert parts == whole


@settings(deadline=None, max_examples=30)
@given(counts=counts_strategy, seed=st.integers(0, 2**63 - 1))
def test_reads_are_blocks_of_neighbours_and_buffers_of_one_window(counts, seed):
    order = Order(counts, seed=seed)
    windows = order.windows(0)
    at, tars = -1, frozenset()
    for buffer in first_epoch(order):
        if buffer.window != at:
            at, tars = buffer.window, frozenset(next(windows).tolist())
        assert len(tars) <= WINDOW_TARS
        assert set(buffer.tar.tolist()) <= tars
        assert len(buffer.tar) <= BUFFER_BLOCKS
        assert (buffer.first % BLOCK_IMAGES == 0).all()
        ends = np.minimum(buffer.first + BLOCK_IMAGES, np.array(counts)[buffer.tar])
        assert (buffer.first + buffer.count == ends).all()


def test_seeking_generates_no_image_outside_the_buffer_it_finds(monkeypatch):
    lengths = []
    real = order_module.permutation

    def counted(length, seed, level, epoch, index):
        lengths.append((level, length))
        return real(length, seed, level, epoch, index)

    order = Order([5000] * 300, seed=3)
    monkeypatch.setattr(order_module, "permutation", counted)
    buffer = next(order.buffers(order.num_images * 1000 + 1_234_567))
    assert buffer.start <= order.num_images * 1000 + 1_234_567 < buffer.start + len(buffer.shuffle)
    drawn = {kind: sum(n for level, n in lengths if level == kind) for kind in (1, 2, 3)}
    window_blocks = WINDOW_TARS * -(-5000 // BLOCK_IMAGES)
    assert drawn[1] == 300
    assert drawn[2] <= window_blocks
    assert drawn[3] == len(buffer.shuffle) <= BUFFER_BLOCKS * BLOCK_IMAGES


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [
        list(islice(images(Order([300, 200, 100], seed=seed), start), 600))
        for seed, start in ((0, 0), (0, 600), (1, 0))
    ]
    orders = [[(t, p) for _, t, p in order] for order in orders]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    # No run of neighbours is left: the chance of one is a few in 600.
    neighbours = sum(b == (a[0], a[1] + 1) for a, b in pairwise(orders[0]))
    assert neighbours < 12


def test_the_order_is_the_same_for_ever():
    order = Order([100, 0, 70, 130], seed=2026)
    first = [f"{t}:{p}" for _, t, p in islice(images(order, 0), 8)]
    later = [f"{t}:{p}" for _, t, p in islice(images(order, 12_345_678), 8)]
    assert first == ["3:2", "3:87", "0:36", "0:63", "3:33", "0:96", "3:73", "0:76"]
    # Three windows, several buffers each.
    order = Order([700 + 10 * tar for tar in range(40)], seed=2026)
    digest = hashlib.sha256()
    for buffer in islice(order.buffers(order.num_images), 30):
        digest.update(np.stack(buffer.images()).astype("<i8").tobytes())
    assert digest.hexdigest()[:16] == "ca20893cbdeea352"
    assert later == ["0:95", "0:81", "3:48", "3:128", "0:48", "3:94", "0:72", "2:50"]


@settings(deadline=None, max_examples=50)
@given(
    hashes=st.lists(st.integers(0, 2**64 - 1), min_size=1),
    views=st.integers(1, 9),
    first=st.integers(0, 10**6),
)
def test_as_many_epochs_as_views_show_each_view_once(hashes, views, first):
    keys = np.array(hashes, np.uint64)
    shown = [view_numbers(keys, epoch=first + e, views=views) for e in range(views)]
    assert (np.sort(np.stack(shown), axis=0) == np.arange(views)[:, None]).all()


def test_no_image_at_all_is_refused():
    with pytest.raises(ValueError, match="no tar has an image"):
        Order([0, 0], seed=0)

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softlabel.shards.philox import below, philox

WORDS = st.integers(0, 2**64 - 1)


def numpy_words(key, counter):
    """numpy counts up before the first draw, with a carry through all four words."""
    number = sum(word << 64 * place for place, word in enumerate(counter))
    number = (number - 1) % (1 << 256)
    before = [number >> 64 * place & (2**64 - 1) for place in range(4)]
    generator = np.random.Philox(
        key=np.array(key, dtype=np.uint64), counter=np.array(before, dtype=np.uint64)
    )
    return tuple(int(word) for word in generator.random_raw(4))


@given(st.tuples(WORDS, WORDS), st.tuples(WORDS, WORDS, WORDS, WORDS))
def test_words_are_numpys_raw_stream(key, counter):
    assert philox(key, counter) == numpy_words(key, counter)


def test_a_counter_of_zero_is_numpys_block_after_the_last_counter():
    assert philox((7, 9), (0, 0, 0, 0)) == numpy_words((7, 9), (0, 0, 0, 0))


def test_words_are_those_the_authors_of_philox_published():
    published = (0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B)
    assert philox((0, 0), (0, 0, 0, 0)) == published


@given(WORDS, st.integers(1, 2**32))
def test_a_bounded_integer_is_below_its_bound(word, bound):
    assert 0 <= below(word, bound) < bound


@pytest.mark.parametrize("bound", [1, 3, 9, 256])
def test_bounded_integers_are_uniform(bound):
    draws = [below(philox((1, 2), (n, 0, 0, 0))[0], bound) for n in range(3000)]
    counts = np.bincount(draws, minlength=bound)
    expected = 3000 / bound
    assert len(counts) == bound
    assert ((counts - expected) ** 2 / expected).sum() < bound + 5 * np.sqrt(2 * bound)

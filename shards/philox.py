"""Philox4x64-10, the counter-based random generator that every view is drawn from.

The raw stream equals numpy.random.Philox's, but is 64-bit integer arithmetic written out here:
no library's version can change a view that was labelled years ago.
Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
"""

_MASK = (1 << 64) - 1
_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_ROUNDS = 10

Words = tuple[int, int, int, int]


def philox(key: tuple[int, int], counter: Words) -> Words:
    """Four random 64-bit words, a pure function of two key words and four counter words.

    numpy increments its counter before the first draw: this is the block that
    `numpy.random.Philox(key=key, counter=counter - 1)` gives first.
    """
    k0, k1 = key
    c0, c1, c2, c3 = counter
    m0, m1 = _MULTIPLIERS
    w0, w1 = _WEYL
    for _ in range(_ROUNDS):
        p0, p1 = m0 * c0, m1 * c2
        c0, c1, c2, c3 = (p1 >> 64) ^ c1 ^ k0, p1 & _MASK, (p0 >> 64) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + w0) & _MASK, (k1 + w1) & _MASK
    return c0, c1, c2, c3


def below(word: int, bound: int) -> int:
    """An integer in [0, bound) from one random word; the bias is at most bound / 2**64."""
    return word * bound >> 64

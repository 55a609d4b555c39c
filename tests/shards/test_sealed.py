import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softlabel.shards.errors import StoreError
from softlabel.shards.sealed import checksum, seal, unseal

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
CONTENT = st.dictionaries(st.text().filter(lambda name: name != "checksum"), JSON, max_size=4)


@given(CONTENT)
def test_content_survives_and_equal_content_is_equal_bytes(content):
    data = seal(content)
    assert unseal(data, name="x") == content
    assert seal(dict(reversed(list(content.items())))) == data
    assert json.loads(data)["checksum"] == checksum(content)


@given(CONTENT, st.data())
def test_any_flipped_bit_is_found(content, data):
    sealed = bytearray(seal(content))
    position = data.draw(st.integers(0, len(sealed) - 1))
    sealed[position] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(StoreError, match="x: "):
        unseal(bytes(sealed), name="x")


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{}", b'{"checksum": 3}', b"\xff"])
def test_what_is_not_sealed_json_is_refused(data):
    with pytest.raises(StoreError):
        unseal(data, name="x")

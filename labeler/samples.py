"""Takes a few images out of tars, to look at."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from softlabel.shards.decoders import Decoder, Picture
from softlabel.shards.errors import ImageError, UsageError
from softlabel.shards.members import Member, count_members, members
from softlabel.shards.specs import is_local, open_tar, redacted
from softlabel.shards.tars import TarStream

_NUM_TARS = 4
_FIRST_MEMBERS = 512


@dataclass(frozen=True, kw_only=True)
class Sample:
    """An image to try recipes on."""

    key: str
    tar: str
    target: int
    picture: Picture


def take_samples(
    tars: Sequence[str], *, count: int, decoder: Decoder, image_ext: Sequence[str]
) -> list[Sample]:
    """Up to `count` images from up to four tars, evenly spread over the list.

    Within a local tar they are spread over its first 512 members; from others the first are taken.
    Images that can't be decoded are passed over.

    Raises:
        UsageError: no image could be decoded.
        TarError: a tar is damaged before its images were found.
    """
    last = len(tars) - 1
    places = sorted({round(i * last / (_NUM_TARS - 1)) for i in range(_NUM_TARS)})
    samples: list[Sample] = []
    for i, place in enumerate(places):
        wanted = -(-(count - len(samples)) // (len(places) - i))
        samples += islice(_samples_of(tars[place], wanted, decoder, image_ext), wanted)
    if not samples:
        names = ", ".join(redacted(tars[place]) for place in places)
        raise UsageError(f"--shards: wanted images to look at, found none that decodes in {names}")
    return samples


def _samples_of(
    tar: str, wanted: int, decoder: Decoder, image_ext: Sequence[str]
) -> Iterator[Sample]:
    stride = 1
    if is_local(tar):
        with open_tar(tar) as (file, size):
            num_members = count_members(TarStream(file, name=tar, size=size, hashed=False))
        stride = max(1, min(num_members, _FIRST_MEMBERS) // max(wanted, 1))
    name = redacted(tar)
    with open_tar(tar) as (file, size):
        due = 0
        for member in members(
            TarStream(file, name=name, size=size, hashed=False), image_ext=image_ext
        ):
            picture = _decoded(member, decoder) if member.ordinal >= due else None
            if picture is not None:
                due += stride
                yield Sample(key=member.key, tar=name, target=member.target, picture=picture)


def _decoded(member: Member, decoder: Decoder) -> Picture | None:
    if member.image is None:
        return None
    try:
        return decoder.decode(member.image)
    except ImageError:
        return None

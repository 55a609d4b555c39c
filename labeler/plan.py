"""What a labelling run is going to do, settled before anything is written."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from softlabel.labeler.config import DEFAULT_ROWS_PER_TAR, LabelConfig
from softlabel.labeler.metadata import read_class_names
from softlabel.labeler.session import resolve_provider
from softlabel.labeler.teacher import Teacher, open_teacher
from softlabel.shards.decoders import resolve_decoder
from softlabel.shards.errors import IdentityError, TarError, UsageError
from softlabel.shards.matching import match_tars
from softlabel.shards.members import count_members
from softlabel.shards.recipe import Recipe
from softlabel.shards.schema import INNER_ROWS, Manifest, differences
from softlabel.shards.specs import expand, is_local, local_path, open_tar, redacted
from softlabel.shards.store import Store, is_store, open_store
from softlabel.shards.tars import TarStream


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A settled run: teacher, recipe, manifest, tars, and the store if it exists already."""

    config: LabelConfig
    tars: tuple[str, ...]
    teacher: Teacher
    recipe: Recipe
    manifest: Manifest
    store: Store | None
    """The store to resume; None if it is to be made."""

    def my_tars(self) -> list[int]:
        """The tars of this run's part."""
        return [tar for tar in range(len(self.tars)) if self.config.my_part(tar)]

    def pending(self) -> list[int]:
        """The tars still to label, of this run's part."""
        if self.store is None:
            return self.my_tars()
        return [tar for tar in self.store.pending() if self.config.my_part(tar)]

    def likely_rows(self, tars: Sequence[int]) -> int:
        """Members to expect in some tars: at most R each, and a member is some 1 kB of tar."""
        sizes = tar_sizes(self)
        most = self.manifest.rows_per_tar
        return sum(min(most, (sizes[tar] or most << 10) >> 10) for tar in tars)


def make_plan(config: LabelConfig) -> Plan:
    """Settle everything that flags leave open; read, don't write.

    Raises:
        UsageError: no such shards, no recipe, a teacher that can't serve, sizes that don't fit.
        IdentityError: the store at --out was made by another teacher, recipe or shard list.
        MachineError: the provider or decoder asked for is not to be had.
    """
    tars = expand(config.shards, allow_pipe=config.allow_pipe)
    teacher = open_teacher(config.teacher, output=config.output, embedding=config.embedding)
    recipe = _recipe(config, teacher)
    if "://" in str(config.out) or str(config.out).startswith("s3:/"):
        raise UsageError(f"--out {config.out}: wanted a local folder, found a URL")
    store = open_store(config.out) if is_store(config.out) and not config.overwrite else None
    rows_per_tar = config.rows_per_tar or (
        store.manifest.rows_per_tar if store else find_rows_per_tar(tars)
    )
    manifest = _manifest(config, teacher, recipe, rows_per_tar)
    if store is not None:
        _refuse_other_store(config, store, manifest, tars)
    return Plan(
        config=config,
        tars=tuple(tars),
        teacher=teacher,
        recipe=recipe,
        manifest=manifest,
        store=store,
    )


def _recipe(config: LabelConfig, teacher: Teacher) -> Recipe:
    if config.recipe is not None:
        recipe = Recipe.from_file(config.recipe)
    elif teacher.recipe is not None:
        recipe = teacher.recipe
    else:
        raise UsageError(
            f"{config.teacher}: wanted a preprocessing recipe, found none in its metadata; give "
            "--recipe R.json (timm's pretrained_cfg), since a wrong guess would label in silence"
        )
    _, height, width = recipe.input_size
    for axis, wanted, found in (
        ("height", teacher.height, height),
        ("width", teacher.width, width),
    ):
        if wanted is not None and wanted != found:
            raise UsageError(
                f"recipe: the teacher takes images of {axis} {wanted}, input_size says {found}"
            )
    return recipe


def _manifest(config: LabelConfig, teacher: Teacher, recipe: Recipe, rows_per_tar: int) -> Manifest:
    return Manifest(
        teacher_sha256=teacher.sha256,
        teacher_output=teacher.output_name,
        teacher_output_kind=teacher.output_kind,
        embedding_output=teacher.embedding_name,
        recipe=recipe.to_dict(),
        decoder=_decoder(config),
        max_image_pixels=config.max_image_pixels,
        image_ext=tuple(ext.lower().lstrip(".") for ext in config.image_ext),
        provider=resolve_provider(config.providers),
        views=config.views,
        view_recipe=config.view_recipe,
        view_seed=config.seed,
        top_k=min(config.top_k, teacher.num_classes),
        temperatures=tuple(sorted(float(t) for t in config.temperatures)),
        num_classes=teacher.num_classes,
        class_names=_class_names(config, teacher),
        embedding_dim=teacher.embedding_dim,
        rows_per_tar=rows_per_tar,
    )


def _decoder(config: LabelConfig) -> str:
    if config.dry_run and config.decoder == "auto":
        # Answers at once: does not load torchvision, 8 seconds of it, to see whether it loads.
        return "torchvision" if find_spec("torchvision") else "pillow"
    return resolve_decoder(config.decoder)


def _class_names(config: LabelConfig, teacher: Teacher) -> tuple[str, ...] | None:
    if config.class_names is None:
        return teacher.class_names
    return read_class_names(config.class_names, num_classes=teacher.num_classes)


def find_rows_per_tar(tars: Sequence[str]) -> int:
    """R: local tars' largest member count rounded up to a power of two, remote ones' default.

    A tar that is damaged here is reported when it is labelled; a compressed one at once.
    """
    if not all(is_local(tar) for tar in tars):
        return DEFAULT_ROWS_PER_TAR
    most = max(_count(tar) for tar in tars)
    return max(INNER_ROWS, 1 << (most - 1).bit_length()) if most else INNER_ROWS


def _count(tar: str) -> int:
    with open_tar(tar) as (file, size):
        try:
            return count_members(TarStream(file, name=redacted(tar), size=size, hashed=False))
        except TarError as error:
            if "wanted a plain tar" in str(error):
                raise UsageError(str(error)) from None
            return 0


def _refuse_other_store(
    config: LabelConfig, store: Store, manifest: Manifest, tars: Sequence[str]
) -> None:
    ways_out = "use another --out, or --overwrite to start over"
    # K was clamped to C, so another --top-k can still be the same K.
    if different := differences(manifest, store.manifest):
        raise IdentityError(
            f"--out {config.out}: made otherwise: {'; '.join(different)}; {ways_out}"
        )
    names = [redacted(tar) for tar in tars]
    same = len(names) == len(store.tars)
    if same:
        try:
            same = match_tars(store.tars, tars) == list(range(len(tars)))
        except IdentityError:
            same = False
    if not same:
        pairs = zip(names, store.tars, strict=False)
        first = next((f"{a} where the store has {b}" for a, b in pairs if a != b), "the length")
        raise IdentityError(
            f"--out {config.out}: made from another shard list: --shards names {len(names)} tars, "
            f"the store has {len(store.tars)}; first difference: {first}; {ways_out}"
        )
    for tar, commit in store.commits().items():
        if not is_local(tars[tar]):
            continue
        size = Path(local_path(tars[tar])).stat().st_size
        if size != commit.tar_size:
            raise IdentityError(
                f"{tars[tar]}: labelled when it had {commit.tar_size:,} bytes, now it has "
                f"{size:,}; {ways_out}"
            )


def tar_sizes(plan: Plan) -> list[int | None]:
    """Bytes of each tar, where that is known without opening it."""
    return [Path(local_path(t)).stat().st_size if is_local(t) else None for t in plan.tars]

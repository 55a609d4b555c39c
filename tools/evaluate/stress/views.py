"""Which view of a picture each model takes, which one is degraded for all, and what follows."""

from collections.abc import Sequence
from dataclasses import dataclass

from softlabel.shards.recipe import Recipe
from softlabel.tools.evaluate.models import Model
from softlabel.tools.evaluate.teacher_session import TeacherOnImages


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """The pixels that a model gets of a picture: by its recipe, but mean and std, and decoder."""

    role: str
    recipe: Recipe
    decoder: str

    @property
    def pixels(self) -> tuple[object, ...]:
        """Equal for views that show the same."""
        recipe = self.recipe
        return (
            (recipe.height, recipe.width),
            (recipe.crop_pct, recipe.crop_mode, recipe.interpolation),
            self.decoder,
        )


def views_of(
    models: Sequence[Model], teacher: TeacherOnImages | None, *, decoder: str
) -> list[View]:
    """Each model's view, then the teacher's; `decoder` is that of the labels."""
    found = [
        View(role=m.role, recipe=m.described.recipe, decoder=m.decoder or decoder) for m in models
    ]
    if teacher is not None:
        found.append(View(role="teacher", recipe=teacher.recipe, decoder=decoder))
    return found


def largest(views: Sequence[View]) -> View:
    """The view of most pixels, the first among equals."""
    return max(views, key=lambda view: view.recipe.height * view.recipe.width)


def degraded_notes(views: Sequence[View]) -> list[str]:
    """Whose clean answers on degraded pictures' originals are not those of the other figures."""
    shown = largest(views)
    others = [view.role for view in views if view.pixels != shown.pixels]
    if not others:
        return []
    return [
        f"pictures are degraded as the {shown.role} takes them, {shown.recipe.height} x "
        f"{shown.recipe.width}, and resized for inputs of another size; size, crop, interpolation "
        f"or decoder of {_named(others)} differ, so the clean answers of {_named(others)} there "
        "are not those of the other groups"
    ]


def attacked_notes(views: Sequence[View]) -> list[str]:
    """On whose pictures the teacher's clean answers are not its labels."""
    teacher = [view.pixels for view in views if view.role == "teacher"]
    others = [view.role for view in views if teacher and view.pixels != teacher[0]]
    if not others:
        return []
    return [
        "the teacher sees attacked pictures, and the clean ones beside them, as the attacked "
        "student takes them, resized where its own input has another size; size, crop, "
        f"interpolation or decoder of {_named(others)} differ from the teacher's, so its clean "
        "answers there are not its labels"
    ]


def _named(roles: Sequence[str]) -> str:
    return " and ".join(f"the {role}" for role in roles)

"""What every section of a recipe has in common."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Strict by default: unknown keys are rejected, values are not coerced across types, records are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class PartialRecipe(BaseModel):
    """Some keys of a recipe, beside those of the section itself; they are validated once the recipe is complete."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    @property
    def recipe(self) -> dict[str, Any]:
        """The keys of a recipe, as they were written."""
        return dict(self.model_extra or {})

"""A plug-in of motet: importing this package registers the kind of act `masked_image` and its `entries`. No torch."""

import motet
from motet.core.act_kinds import ActKind
from motet_masked_image import entries as entries

motet.register(
    "act_kind",
    "masked_image",
    ActKind(
        makes="image",
        act="motet_masked_image.act:MaskedImage",
        settings="motet_masked_image.settings:MaskedSamplingConfig",
        loss={"loss": {"name": "grpo", "epsilon": 0.1}},
    ),
)

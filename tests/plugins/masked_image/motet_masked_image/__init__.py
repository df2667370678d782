"""The act kind `masked_image`, added to motet from outside: importing this package registers it. Imports no torch."""

import motet
from motet.core.act_kinds import ActKind

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

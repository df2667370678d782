"""A flow decoder of image tokens: a Janus draws them, and what it makes of them conditions the painted picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from motet.core.conversation import Conversation, ImagePart, Message
from motet.core.errors import ConfigError
from motet.policies.unified.conditioner import ConnectorConditioner, UnifiedConditionEncoding


class TokenConditioner(ConnectorConditioner):
    """Reads a drawn picture's tokens after the context that it was drawn in (BLIP3o-NEXT).

    The context of a drawing ends with the policy's own picture, which is painted anew. Its tokens are those that it was
    drawn with, or for a picture from a dataset those that the image tokenizer gives it. The gradient of the drawing
    reaches the language model and the tokens' embeddings, but not which tokens were chosen: that is the image act's.
    """

    def _encode(self, context: Conversation) -> UnifiedConditionEncoding:
        before, image = last_image_tokens(context)
        if image.image_token_ids is None:
            (codes,) = self.reader.encode_images([image.image])
        else:
            codes = torch.tensor(image.image_token_ids)
        room = len(codes) + 1  # an act's last token is never read, here it is
        return UnifiedConditionEncoding(self.reader.encoder.encode(before, kind="image", max_new_tokens=room), codes)

    def _hidden(self, encodings: Sequence[UnifiedConditionEncoding]) -> Float[Tensor, "B N D"]:
        codes = [encoding.tokens for encoding in encodings if encoding.tokens is not None]
        return self.reader.hidden_at([encoding.context for encoding in encodings], torch.stack(codes))


def last_image_tokens(context: Conversation) -> tuple[Conversation, ImagePart]:
    """The picture that a context ends with, and the context that it was drawn in. Raises ConfigError without one."""
    match context.messages:
        case (*before, Message("assistant", (ImagePart() as image,))):
            return Conversation(tuple(before)), image
    raise ConfigError(
        "A flow decoder paints the picture that its context ends with, and this context ends with none: "
        f"{context.text[-60:]!r}.",
        fix="draw image tokens first, and give GenerateImage a conversation that ends with as_image_turn(act).",
    )

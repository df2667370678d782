"""A flow decoder of image tokens: the hidden states of a Janus at its image tokens condition the generated image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from motet.core.conversation import Conversation, ImagePart, Message
from motet.core.errors import ConfigError
from motet.policies.janus import JanusPolicy
from motet.policies.unified.conditioner import ConnectorConditioner, UnifiedConditionEncoding


class TokenConditioner(ConnectorConditioner):
    """Conditions on hidden states at the tokens of an image, after the context that it was generated in (BLIP3o-NEXT).

    The context ends with an image of the policy, which is decoded with flow. Its tokens are those that were sampled, or
    for an image of a dataset those of the image tokenizer. The gradient of the denoising act
    reaches the language model and the tokens' embeddings, but not which tokens were chosen: that is the image act's.
    """

    reader: JanusPolicy

    text_policy: JanusPolicy

    def _encode(self, context: Conversation) -> UnifiedConditionEncoding:
        before, image = last_image_tokens(context)
        if image.image_token_ids is None:
            (codes,) = self.text_policy.encode_images([image.image])
        else:
            codes = torch.tensor(image.image_token_ids)
        room = len(codes) + 1  # an act's last token is never read, here it is
        return UnifiedConditionEncoding(
            self.text_policy.encoder.encode(before, kind="image", max_new_tokens=room), codes
        )

    def _hidden(self, encodings: Sequence[UnifiedConditionEncoding]) -> Float[Tensor, "B N D"]:
        codes = [encoding.tokens for encoding in encodings if encoding.tokens is not None]
        return self.text_policy.hidden_at([encoding.context for encoding in encodings], torch.stack(codes))


def last_image_tokens(context: Conversation) -> tuple[Conversation, ImagePart]:
    """The image that a context ends with, and the context before it. Raises ConfigError without one."""
    match context.messages:
        case (*before, Message("assistant", (ImagePart() as image,))):
            return Conversation(tuple(before)), image
    raise ConfigError(
        f"A flow decoder needs a context that ends with an image, but this one ends with text: {context.text[-60:]!r}.",
        fix="generate image tokens first, and give GenerateImage a conversation that ends with as_image_turn(act).",
    )

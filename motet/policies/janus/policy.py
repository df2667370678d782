"""The Janus policy: `JanusForConditionalGeneration` itself, generating and replaying text and images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from motet.core.conversation import Conversation
from motet.core.protocols import Features
from motet.core.trajectory import Encoding
from motet.policies.generation.policy import ImageTokenPolicy
from motet.policies.janus.adapter import JanusAdapter
from motet.policies.janus.features import features, hidden_at


class JanusPolicy(ImageTokenPolicy):
    """A Janus or Janus-Pro checkpoint. Also implements `motet.core.protocols.FeaturePolicy`."""

    adapter_type = JanusAdapter
    adapter: JanusAdapter

    @torch.no_grad()
    def features(self, conversations: Sequence[Conversation]) -> list[Features]:
        """Last hidden states of conversations, and where their parts lie in them; see
        `motet.core.protocols.Features`.
        """
        with self._autocasting():
            return features(self.adapter, conversations)

    def hidden_at(self, encodings: Sequence[Encoding], codes: Int[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
        """Last hidden states, normed, at the N image tokens that follow each of B contexts, with gradient.

        Each state depends on its own token and all before it. Encode with
        `encoder.encode(..., kind="image", max_new_tokens=N + 1)`.
        """
        with self._autocasting():
            return hidden_at(self.adapter, encodings, codes)

"""The trained part of GILL: what stands between a frozen language model, a frozen CLIP and an image generator."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import nn

from .heads import HEAD_KINDS, GILLMapper, HeadKind, LinearHead, MLPHead, TransformerEncoderHead


@dataclass(frozen=True)
class GILLSizes:
    """The sizes of GILL's trained part; the defaults are those of the released checkpoint on OPT-6.7B.

    Source: kohjingyu/gill 4600b71, checkpoints/gill_opt/model_args.json.
    """

    language: int = 4096
    """Width of the language model's hidden states."""
    vision: int = 1024
    """Width of what the vision encoder gives for a picture."""
    img_tokens: int = 8
    """[IMG0], [IMG1], … one behind the other stand for one picture."""
    visual_tokens: int = 4
    """What the language model reads of one picture."""
    retrieval: int = 256
    """Width of the embeddings that are compared when a picture is looked for."""
    text_rows: int = 77
    """Rows of the text states that the image generator takes."""
    text: int = 768
    """Their width: 768 for SD1.5."""
    head: HeadKind = "gill_mapper"
    head_width: int = 512
    head_layers: int = 4

    def __post_init__(self) -> None:
        for name in ("language", "vision", "img_tokens", "visual_tokens", "retrieval", "text_rows", "text"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.head not in HEAD_KINDS:
            raise ValueError(f"head must be one of {', '.join(HEAD_KINDS)}; got {self.head!r}")


class GILLParts(nn.Module):
    """Rows of the [IMG] tokens, the captioning layer, both retrieval layers and the generation head.

    The [IMG] rows are a parameter of their own, (8, d), and not the end of the language model's table of embeddings:
    there AdamW shrinks the frozen rows, since only their gradient is held at 0 and its weight decay is not.

    Source: kohjingyu/gill 4600b71, gill/models.py:90-130.
    """

    def __init__(self, sizes: GILLSizes) -> None:
        super().__init__()
        self.sizes = sizes
        s = sizes
        self.img_rows = nn.Parameter(torch.randn(s.img_tokens, s.language) * 0.02)
        self.visual_embeddings = nn.Linear(s.vision, s.language * s.visual_tokens)
        self.visual_fc = nn.Linear(s.vision, s.retrieval)
        self.retrieval_head = nn.Linear(s.language, s.retrieval)
        self.generation_head = make_head(s)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def visual_tokens(self, pooled: torch.Tensor) -> torch.Tensor:
        """What the language model reads of pictures: (B, vision) to (B, visual_tokens, language)."""
        return self.visual_embeddings(pooled).unflatten(-1, (self.sizes.visual_tokens, self.sizes.language))

    def picture_embedding(self, pooled: torch.Tensor) -> torch.Tensor:
        """What pictures are found by: (B, vision) to (B, retrieval), of length 1."""
        return nn.functional.normalize(self.visual_fc(pooled), dim=-1)

    def query_embedding(self, states: torch.Tensor) -> torch.Tensor:
        """What [IMG] states look for: (B, img_tokens, language) to (B, retrieval), of length 1; the first token's counts."""
        return nn.functional.normalize(self.retrieval_head(states[:, 0]), dim=-1)

    def conditioning(self, states: torch.Tensor) -> torch.Tensor:
        """Text states for the image generator: (B, img_tokens, language) to (B, text_rows, text)."""
        return self.generation_head(states, self.img_rows)

    def embedding_key(self) -> str:
        """What two embeddings of pictures must have in common to be compared: a digest of the pictures' retrieval layer and
        of the vision encoder's width."""
        digest = hashlib.sha256(str(self.sizes.vision).encode())
        for value in self.visual_fc.state_dict().values():
            digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def scale_img_rows(self, length: torch.Tensor) -> None:
        """Give every [IMG] row this length, as training does after each step (main.py:595-600)."""
        self.img_rows.mul_(length.to(self.img_rows) / self.img_rows.norm(dim=1, keepdim=True))


def make_head(sizes: GILLSizes) -> nn.Module:
    """The untrained generation head of these sizes.

    Raises:
        ValueError: its rows cannot be shared by the [IMG] tokens.
    """
    s = sizes
    if s.head == "gill_mapper":
        return GILLMapper(s.language, s.text_rows, s.text, s.head_width, s.head_layers)
    if s.head == "linear":
        return LinearHead(s.language, s.text_rows, s.text, s.img_tokens)
    if s.head == "mlp":
        return MLPHead(s.language, s.text_rows, s.text, s.img_tokens, s.head_width)
    return TransformerEncoderHead(s.language, s.text_rows, s.text, s.img_tokens, s.head_width, s.head_layers)


class DecisionModel(nn.Module):
    """Whether a picture is generated or retrieved, from the hidden state of [IMG0].

    Source: kohjingyu/gill 4600b71, gill/models.py:516-524: dropout 0.5 in training and one linear layer; 0 is
    generate, 1 retrieve.
    """

    GENERATE, RETRIEVE = 0, 1

    def __init__(self, language: int = 4096) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.linear = nn.Linear(language, 2)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Logits (B, 2) from hidden states (B, language)."""
        return self.linear(self.dropout(states))

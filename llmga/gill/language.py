"""A frozen language model that reads embeddings, with the [IMG] tokens behind its own vocabulary."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..chat.engines.transformers_names import cache_name, dtype_argument
from ..chat.folder_check import check_configs, check_tokenizer_files, one_kind_of_error
from ..chat.folder_copy import folder_copy
from ..chat.folders.loaded import LOCAL_ONLY, check_loaded
from ..files.header import header_of
from ..files.known_kinds import check_language_model
from ..files.tensors import model_files, read_model

_IMG = re.compile(r"\[IMG(\d{1,2})\]")
_WHITE_SPACE = re.compile(r"\s*")


@dataclass(frozen=True)
class Read:
    """What a language model made of a sequence.

    Args:
        hidden: the last layer's states after the final norm, (B, T, d).
        logits: (B, T, text_rows + [IMG] tokens).
        cache: keys and values to go on from, or None.
    """

    hidden: torch.Tensor
    logits: torch.Tensor
    cache: Any = None


class FrozenLanguage:
    """A causal language model of transformers, whose weights stay as they are.

    The ids of the [IMG] tokens begin at ``text_rows``: behind the tokenizer's ids and one more, which the released code
    gives to a token ``<|image|>`` that is never read nor written. For OPT they are 50266 … 50273.

    Their rows come from outside (``GILLParts.img_rows``) and serve as input embeddings and as the last layer, as the tied
    table of OPT does. For a model whose tables are not tied this is a choice of ours; the released code takes OPT alone.

    Attributes:
        net: the bare ``PreTrainedModel``, for the host to place.
        width: of its hidden states, d.
        text_rows: how many rows its own vocabulary has here.
    """

    def __init__(self, net: Any, tokenizer: Any, name: str) -> None:
        self.net = net.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        self._table = net.get_input_embeddings()
        self.text_rows = min(len(tokenizer) + 1, self._table.weight.shape[0])
        self.width = self._table.weight.shape[1]
        self._cache_name = cache_name()
        self.bos: list[int] = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        self.pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        if self.pad is None:
            raise ValueError(f"the language model {name!r} names neither a padding token nor an end token")

    @property
    def device(self) -> torch.device:
        return self._table.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self._table.weight.dtype

    def img_ids(self, count: int) -> list[int]:
        """The ids of [IMG0] … [IMG(count − 1)]."""
        return list(range(self.text_rows, self.text_rows + count))

    def token_ids(self, text: str, img_tokens: int) -> list[int]:
        """The ids of a text without a token before it; ``[IMG0]`` … are tokens, and white space beside them goes.

        Source: transformers 4.30.2's slow tokenizers, which strip both sides of an added token (the version that the
        released code is pinned to).
        """
        ids: list[int] = []
        end = 0
        for match in _IMG.finditer(text):
            if (number := int(match[1])) < img_tokens:
                ids += self._plain_ids(text[end : match.start()].rstrip())
                ids.append(self.text_rows + number)
                white = _WHITE_SPACE.match(text, match.end())
                end = white.end() if white else match.end()
        return ids + self._plain_ids(text[end:])

    def _plain_ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []

    def text_of(self, ids: list[int]) -> str:
        """The text of ids; control tokens are left out, [IMG] tokens are written as they are asked for."""
        parts: list[str] = []
        plain: list[int] = []
        for token in ids:
            if token < self.text_rows:
                plain.append(token)
                continue
            parts += [self._decoded(plain), f"[IMG{token - self.text_rows}]"]
            plain = []
        return "".join([*parts, self._decoded(plain)])

    def _decoded(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True) if ids else ""

    def embed(self, ids: torch.Tensor, img_rows: torch.Tensor) -> torch.Tensor:
        """Input embeddings (..., d) of ids (...), text and [IMG] tokens."""
        is_img = ids >= self.text_rows
        text = self._table(ids.masked_fill(is_img, 0))
        img = img_rows.to(text.dtype)[(ids - self.text_rows).clamp(min=0)]
        return torch.where(is_img[..., None], img, text)

    def read(
        self, embeddings: torch.Tensor, img_rows: torch.Tensor, cache: Any = None, keep_cache: bool = False
    ) -> Read:
        """Run the network over input embeddings (B, T, d), behind what ``cache`` holds.

        Raises:
            ValueError: the network reads fewer positions.
        """
        before = 0 if cache is None else cache.get_seq_length()
        self.check_length(before + embeddings.shape[1])
        output = self.net(
            inputs_embeds=embeddings.to(self.dtype),
            output_hidden_states=True,
            use_cache=keep_cache,
            **({} if cache is None else {self._cache_name: cache}),
        )
        hidden = output.hidden_states[-1]
        img_logits = hidden @ img_rows.to(hidden.dtype).T
        logits = torch.cat([output.logits[..., : self.text_rows], img_logits], -1)
        return Read(hidden, logits, output[self._cache_name] if keep_cache else None)

    @property
    def context(self) -> int:
        """How many tokens the network reads."""
        return getattr(self.net.config.get_text_config(), "max_position_embeddings", None) or 2**31

    def check_length(self, tokens: int) -> None:
        """Raise ``ValueError`` for more tokens than the network reads."""
        if tokens > self.context:
            raise ValueError(
                f"the conversation has {tokens} tokens with the reply, and the model {self.name!r} reads at most "
                f"{self.context}; shorten 'message' or 'history', or show fewer pictures in 'image'"
            )

    def mean_row_norm(self) -> torch.Tensor:
        """The mean length of the rows of its own vocabulary, to which training scales the [IMG] rows."""
        return self._table.weight[: self.text_rows].norm(dim=1).mean()


def load_language(folder: Path, dtype: torch.dtype | None = None) -> FrozenLanguage:
    """Load a causal language model from a folder as transformers has it; no chat template is needed.

    OPT is published as PyTorch files; nothing in them is run. A LLaVA or another vision-language model serves as well:
    it is given embeddings, and its own vision is not used.

    Raises:
        FileNotFoundError: the folder or one of its files is missing.
        ValueError: it must not or cannot be loaded; the text says why.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder.name!r} of a language model")
    check_configs(folder)
    check_tokenizer_files(folder)
    tensors = read_model(folder)
    check_language_model(model_files(folder)[0], header_of(tensors))
    import transformers

    with one_kind_of_error(folder), folder_copy(folder) as copy:
        config = transformers.AutoConfig.from_pretrained(copy, **LOCAL_ONLY)
        if type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
            auto: Any = transformers.AutoModelForCausalLM
        elif type(config) in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
            auto = transformers.AutoModelForImageTextToText
        else:
            raise ValueError(f"its model_type {config.model_type!r} is not a causal language model")
        network = auto._model_mapping[type(config)]
        net, info = network.from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            **{dtype_argument(): dtype or next(iter(tensors.values())).dtype},
            output_loading_info=True,
        )
        check_loaded(info)
        tokenizer = transformers.AutoTokenizer.from_pretrained(copy, **LOCAL_ONLY)
        return FrozenLanguage(net, tokenizer, folder.name)

"""Networks that metrics are computed with, each known by its name and the hash of its weights.

A network is named in a configuration as ``kind:path``, such as ``clip:/models/clip-vit-base-patch32``, or, for one of
your own, ``package.module:function:path``; the function gets the path and returns an ``Extractor`` or a ``Distance``.
Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..files.tensors import check_tensors, read_file
from .cache_keys import digest_of_files
from .named import named_function
from .preparation import CLIP, DINO, Preparation

Images = Sequence[Image.Image]


@dataclass(frozen=True, eq=False)
class Extractor:
    """A network that turns pictures, and optionally texts, into vectors.

    Args:
        name: what results call it.
        digest: the SHA-256 of its weights.
        preparation: in words, how a picture is resized and cropped.
        images: from B pictures to named outputs (B, d) float32 on the CPU: ``features``, and ``logits`` of a classifier.
        texts: from B texts to (B, d); None for a network that reads none.
    """

    name: str
    digest: str
    preparation: str
    images: Callable[[Images], dict[str, torch.Tensor]]
    texts: Callable[[Sequence[str]], torch.Tensor] | None = None


@dataclass(frozen=True, eq=False)
class Distance:
    """A perceptual distance of pairs of pictures.

    Args:
        name, digest, preparation: see ``Extractor``.
        pairs: from B pictures and B others of the same sizes to (B,) float32 on the CPU; all of one size.
    """

    name: str
    digest: str
    preparation: str
    pairs: Callable[[Images, Images], torch.Tensor]


Network = Extractor | Distance


def load_network(spec: str, device: torch.device | str = "cpu") -> Network:
    """The network that a configuration names; see the module.

    Raises:
        ValueError: the name is not of that form, the kind is unknown, or the weights are not of this network.
        FileNotFoundError: there is no such file or folder.
        ModuleNotFoundError: a library is missing; the extra ``evaluate`` brings it.
    """
    kind, colon, path = spec.partition(":")
    if not colon:
        raise ValueError(
            f"a network must be named as kind:path, got {spec!r}; kinds are {', '.join(NETWORK_KINDS)}"
        )
    if kind in NETWORK_KINDS:
        return NETWORK_KINDS[kind](_existing(Path(path)), torch.device(device))
    function, colon, inner = path.partition(":")
    if "." not in kind or not colon:
        raise ValueError(f"{kind!r} is not a kind of network; known are {', '.join(NETWORK_KINDS)}")
    return named_function(f"{kind}:{function}", "a network")(_existing(Path(inner)), torch.device(device))


def digest_of(path: Path) -> str:
    """The SHA-256 of a file, or of the weight files of a folder in the order of their names.

    Raises:
        FileNotFoundError: a folder holds no weights.
    """
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors")) or sorted(path.glob("*.bin"))
    if not files:
        raise FileNotFoundError(f"{path} holds no weights")
    return digest_of_files(files)


def inception(path: Path, device: torch.device) -> Extractor:
    """Inception-v3 as the FID and the IS are defined on it, from the file of weights that torch-fidelity publishes.

    torch-fidelity resizes pictures to 299 pixels as TensorFlow 1 does.

    Source: Obukhov et al., torch-fidelity; weights-inception-2015-12-05-6726825d.pth.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    read_file(path)  # torch-fidelity would run what a pickle says
    net = FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"], str(path)).to(
        device
    )

    @torch.no_grad()
    def images(pictures: Images) -> dict[str, torch.Tensor]:
        pixels = torch.from_numpy(np.stack([np.asarray(p.convert("RGB")) for p in pictures])).movedim(-1, 1)
        features, logits = net(pixels.contiguous().to(device))
        return {"features": features.cpu(), "logits": logits.cpu()}

    return Extractor("Inception-v3", digest_of(path), "299 as TensorFlow 1 resizes", images)


def clip(path: Path, device: torch.device) -> Extractor:
    """A CLIP model, from a transformers folder; images and texts."""
    from transformers import AutoTokenizer, CLIPModel

    net: Any = CLIPModel.from_pretrained(path, local_files_only=True)
    net = net.to(device).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(path, local_files_only=True)
    length = net.config.text_config.max_position_embeddings
    size = net.config.vision_config.image_size
    preparation = Preparation(size, size, CLIP.mean, CLIP.std)

    @torch.no_grad()
    def images(pictures: Images) -> dict[str, torch.Tensor]:
        seen = net.vision_model(pixel_values=preparation.tensor(pictures).to(device)).pooler_output
        return {"features": net.visual_projection(seen).float().cpu()}

    @torch.no_grad()
    def texts(lines: Sequence[str]) -> torch.Tensor:
        tokens = tokenizer(
            list(lines), padding=True, truncation=True, max_length=length, return_tensors="pt"
        ).to(device)
        return net.text_projection(net.text_model(**tokens).pooler_output).float().cpu()

    return Extractor("CLIP", digest_of(path), str(preparation), images, texts)


def dino(path: Path, device: torch.device) -> Extractor:
    """A DINO vision transformer, from a transformers folder (facebook/dino-vits16): the normalised class token."""
    from transformers import ViTModel

    net: Any = ViTModel.from_pretrained(path, add_pooling_layer=False, local_files_only=True)
    net = net.to(device).eval()
    side = net.config.image_size
    preparation = Preparation(round(side * DINO.resize / DINO.crop), side, DINO.mean, DINO.std)  # type: ignore[operator]

    @torch.no_grad()
    def images(pictures: Images) -> dict[str, torch.Tensor]:
        states = net(pixel_values=preparation.tensor(pictures).to(device)).last_hidden_state  # (B, 1 + hw, d)
        return {"features": states[:, 0].float().cpu()}

    return Extractor("DINO", digest_of(path), str(preparation), images)


def lpips_vgg(path: Path, device: torch.device) -> Distance:
    """LPIPS with VGG16, from torchvision's file of weights; the linear layers come with the library ``lpips``."""
    return _lpips("vgg", path, device)


def lpips_alex(path: Path, device: torch.device) -> Distance:
    """LPIPS with AlexNet; see ``lpips_vgg``."""
    return _lpips("alex", path, device)


def _lpips(net: str, path: Path, device: torch.device) -> Distance:
    import lpips

    metric = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    trunk = {key: value for key, value in read_file(path).items() if key.startswith("features.")}
    # The library keeps torchvision's layers by their numbers, in slices.
    names = {name: f"features.{name.partition('.')[2]}" for name in metric.net.state_dict()}
    expected = {names[name]: value.shape for name, value in metric.net.state_dict().items()}
    check_tensors(trunk, expected, str(path))
    metric.net.load_state_dict({name: trunk[stored] for name, stored in names.items()})
    metric = metric.to(device).eval()

    @torch.no_grad()
    def pairs(some: Images, others: Images) -> torch.Tensor:
        a, b = (
            torch.from_numpy(np.stack([np.asarray(p.convert("RGB")) for p in pictures])).movedim(-1, 1)
            for pictures in (some, others)
        )
        return metric(a.to(device) / 127.5 - 1, b.to(device) / 127.5 - 1).flatten().cpu()

    return Distance(f"LPIPS-{net}", digest_of(path), "own size", pairs)


NETWORK_KINDS: Mapping[str, Callable[[Path, torch.device], Network]] = {
    "inception": inception,
    "clip": clip,
    "dino": dino,
    "lpips-vgg": lpips_vgg,
    "lpips-alex": lpips_alex,
}
"""The networks of the paper's metrics."""


def _existing(path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; nothing is downloaded: put the weights there")
    return path

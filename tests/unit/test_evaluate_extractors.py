"""The networks of the paper's metrics, in their official layouts with random weights, give what their own libraries give."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.real_files import photograph
from support.tiny_clip import config as text_config

from llmga.evaluate.extractors import Distance, Extractor, digest_of, load_network
from llmga.evaluate.metrics import frechet_distance, inception_parts, inception_score
from llmga.evaluate.preparation import CLIP, DINO, Preparation
from llmga.evaluate.tasks.text_to_image import inception_estimate

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    """Real photographs of different sizes, portrait and landscape."""
    first = Image.open(photograph("chelsea.png")).convert("RGB")
    return [
        first.resize(size, Image.Resampling.BICUBIC)
        for size in ((301, 227), (224, 333), (97, 64), (256, 256))
    ]


@pytest.mark.parametrize("preparation", [CLIP, DINO], ids=["clip", "dino"])
def test_pictures_are_prepared_as_torchvision_does(
    photos: list[Image.Image], preparation: Preparation
) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    reference = transforms.Compose(
        [
            transforms.Resize(preparation.resize, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(preparation.crop),
            transforms.ToTensor(),
            transforms.Normalize(preparation.mean, preparation.std),
        ]
    )
    for photo in photos:
        torch.testing.assert_close(preparation.tensor([photo])[0], reference(photo), rtol=1e-6, atol=1e-6)


def test_without_a_crop_sizes_must_agree(photos: list[Image.Image]) -> None:
    with pytest.raises(ValueError, match="different sizes"):
        Preparation(None, None, CLIP.mean, CLIP.std).tensor(photos)


def write_clip(folder: Path) -> Path:
    from transformers import CLIPConfig, CLIPModel

    from llmga.text import clip_tokenizer

    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    torch.manual_seed(0)
    net = CLIPModel(CLIPConfig(text_config=text_config(16), vision_config=vision, projection_dim=12))
    net.save_pretrained(folder)
    clip_tokenizer().save_pretrained(folder)
    return folder


def test_clip_gives_what_transformers_own_model_gives(tmp_path: Path, photos: list[Image.Image]) -> None:
    from transformers import CLIPModel

    from llmga.text import clip_tokenizer

    network = load_network(f"clip:{write_clip(tmp_path)}")
    assert isinstance(network, Extractor) and network.texts is not None
    net: Any = CLIPModel.from_pretrained(tmp_path).eval()
    pixels = Preparation(32, 32, CLIP.mean, CLIP.std).tensor(photos)
    texts = ["a fox", "a red fox in the snow, " * 40]
    tokens = clip_tokenizer()(texts, padding=True, truncation=True, max_length=77, return_tensors="pt")
    with torch.no_grad():
        # Normalised features, which transformers 4 and 5 both give.
        output = net(pixel_values=pixels, **tokens)
    images = torch.nn.functional.normalize(network.images(photos)["features"])
    torch.testing.assert_close(images, output.image_embeds, rtol=1e-5, atol=1e-6)
    words = torch.nn.functional.normalize(network.texts(texts))
    torch.testing.assert_close(words, output.text_embeds, rtol=1e-5, atol=1e-6)


def test_dino_gives_the_normalised_class_token(tmp_path: Path, photos: list[Image.Image]) -> None:
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    net = ViTModel(
        ViTConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=28,
            patch_size=7,
        ),
        add_pooling_layer=False,
    ).eval()
    net.save_pretrained(tmp_path)
    network = load_network(f"dino:{tmp_path}")
    assert isinstance(network, Extractor) and network.preparation == "shorter side 32 bicubic, centre 28"
    pixels = Preparation(32, 28, DINO.mean, DINO.std).tensor(photos)
    with torch.no_grad():
        expected = net(pixels).last_hidden_state[:, 0]
    torch.testing.assert_close(network.images(photos)["features"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_gives_what_the_library_gives(tmp_path: Path, net: str, photos: list[Image.Image]) -> None:
    lpips = pytest.importorskip("lpips", reason="the extra 'evaluate' brings it")
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    trunk = (models.alexnet if net == "alex" else models.vgg16)(weights=None)
    features = {f"features.{name}": value for name, value in trunk.features.state_dict().items()}
    torch.save(features, tmp_path / "trunk.pth")
    network = load_network(f"lpips-{net}:{tmp_path / 'trunk.pth'}")
    assert isinstance(network, Distance)
    reference = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    stored = reference.net.state_dict()
    reference.net.load_state_dict({name: features[f"features.{name.split('.', 1)[1]}"] for name in stored})
    some, others = ([photo.resize((72, 72)) for photo in part] for part in (photos[:2], photos[2:]))
    images = [
        torch.stack([torch.from_numpy(np.asarray(p).copy()).movedim(-1, 0) / 127.5 - 1 for p in part])
        for part in (some, others)
    ]
    with torch.no_grad():
        expected = reference(*images).flatten()
    torch.testing.assert_close(network.pairs(some, others), expected, rtol=1e-5, atol=1e-7)
    del features["features.0.bias"]
    torch.save(features, tmp_path / "trunk.pth")
    with pytest.raises(ValueError, match=r"features\.0\.bias"):
        load_network(f"lpips-{net}:{tmp_path / 'trunk.pth'}")


def test_fid_and_is_are_torch_fidelitys(tmp_path: Path, photos: list[Image.Image]) -> None:
    """Inception-v3 at full size with random weights; FID on few of its features, for a covariance needs many pictures."""
    fidelity = pytest.importorskip("torch_fidelity", reason="the extra 'evaluate' brings it")
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric

    path = tmp_path / "weights-inception.pth"
    write_inception(path)
    network = load_network(f"inception:{path}")
    assert isinstance(network, Extractor) and fidelity.__version__
    net = FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"], str(path))
    photo = photos[0]
    with torch.no_grad():
        features, logits = net(torch.from_numpy(np.asarray(photo).copy()).movedim(-1, 0)[None])
    found = network.images([photo])
    torch.testing.assert_close(found["features"], features, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found["logits"], logits, rtol=1e-5, atol=1e-6)

    draw = torch.Generator().manual_seed(0)
    a, b = (
        torch.randn(80, 12, generator=draw).double(),
        1.5 * torch.randn(90, 12, generator=draw).double() + 0.3,
    )
    statistics = [fid_features_to_statistics(x) for x in (a, b)]
    expected = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-5)
    one = isc_features_to_metric(4 * a, splits=1, shuffle=False)["inception_score_mean"]
    assert inception_estimate(4 * a, 1).value == pytest.approx(one, rel=1e-5)


def test_the_error_of_an_inception_score_divides_by_the_parts_that_were_made() -> None:
    pytest.importorskip("torchmetrics")
    logits = 3 * torch.randn(23, 5, generator=torch.Generator().manual_seed(1)).double()
    assert inception_parts(23, 10) == len(torch.arange(23).chunk(10)) == 8
    assert all(
        inception_parts(n, splits) == len(torch.arange(n).chunk(splits))
        for splits in range(1, 9)
        for n in range(2 * splits, 40)
    )
    found = inception_estimate(logits, 10)
    value, spread = inception_score(logits, torch.nn.Identity(), 10)
    assert found.value == value and found.error == pytest.approx(spread / 8**0.5)
    for count, splits in ((19, 10), (1, 1), (4, 0)):
        with pytest.raises(ValueError, match=f"got {count} pictures and splits {splits}"):
            inception_estimate(logits[:count], splits)


def write_inception(path: Path) -> None:
    """A file of random weights as torch-fidelity reads it."""
    from unittest.mock import patch

    from torch_fidelity import feature_extractor_inceptionv3 as module

    # The library's class loads weights as it is made; ours are its own first ones.
    torch.manual_seed(0)
    with patch.object(module.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None):
        torch.save({}, path)
        net = module.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(path))
    torch.save(net.state_dict(), path)


def test_a_pickle_that_would_run_something_is_refused(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "harmed",)

    torch.save({"fc.weight": Harm()}, tmp_path / "weights.pth")
    for kind in ("inception", "lpips-vgg"):
        pytest.importorskip("torch_fidelity" if kind == "inception" else "lpips")
        with pytest.raises(ValueError, match=r"weights\.pth"):
            load_network(f"{kind}:{tmp_path / 'weights.pth'}")
    assert not (tmp_path / "harmed").exists()


def test_a_digest_is_of_the_weights_alone(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    before = digest_of(tmp_path)
    assert before == hashlib.sha256(b"weights").hexdigest()
    (tmp_path / "README.md").write_text("words")
    assert digest_of(tmp_path) == before
    (tmp_path / "model.safetensors").write_bytes(b"others")
    assert digest_of(tmp_path) != before
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        digest_of(tmp_path)

"""What an artist sees of the nodes: schema, words, help, languages, templates, and that the shipped workflows run.

``LLMGA_RENEW=1`` writes what the schema of today says into ``object_info.json`` and ``locales/en/nodeDefs.json``.
"""

from __future__ import annotations

import json
import os
import re
import urllib.error
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tools import ROOT
from tools.comfy_client import PromptRejectedError
from tools.comfy_server import PACK_FOLDER, ComfyServer
from tools.demo import STORY
from tools.props import load_prompt
from tools.template_list import NAMES
from tools.templates import PIXEL_SPACE

SNAPSHOT = Path(__file__).with_name("object_info.json")
LOCALES = ROOT / "locales"
RENEW = os.environ.get("LLMGA_RENEW") == "1"
HINT = "run the test again with LLMGA_RENEW=1 in the environment, then look at the difference that git shows"
NODES = (
    "LLMGA_AttentionMaps",
    "LLMGA_CaptionFolder",
    "LLMGA_Chat",
    "LLMGA_ChatPerPicture",
    "LLMGA_CropEachRegion",
    "LLMGA_CropForPainting",
    "LLMGA_DiffRIRLoader",
    "LLMGA_DiffRIRRestore",
    "LLMGA_EditInstruction",
    "LLMGA_Endpoint",
    "LLMGA_FlowEdit",
    "LLMGA_GILLChat",
    "LLMGA_GILLLoader",
    "LLMGA_HostLanguageModel",
    "LLMGA_InversionEdit",
    "LLMGA_Invert",
    "LLMGA_Judge",
    "LLMGA_KeepTheRest",
    "LLMGA_LoadHistory",
    "LLMGA_LongCLIPEncode",
    "LLMGA_ModelLoader",
    "LLMGA_PictureIndex",
    "LLMGA_PrepareMask",
    "LLMGA_PromptToPromptOptions",
    "LLMGA_SaveHistory",
    "LLMGA_SceneAssess",
    "LLMGA_ScenePlan",
    "LLMGA_ScenePreview",
    "LLMGA_SceneSynthesis",
    "LLMGA_SeamReport",
    "LLMGA_StitchPainting",
    "LLMGA_StitchRegions",
    "LLMGA_UNetLoader",
)
LANGUAGES = ("en", "zh")
FIELDS = (  # a host may add others of its own
    "input",
    "input_order",
    "output",
    "output_is_list",
    "output_name",
    "output_tooltips",
    "display_name",
    "description",
    "category",
    "output_node",
    "search_aliases",
    "deprecated",
    "experimental",
)
# Combos whose options are the files and records of a machine.
FILES = {("LLMGA_ModelLoader", "model"), ("LLMGA_Endpoint", "endpoint"), ("LLMGA_LoadHistory", "name")}
FILES |= {("LLMGA_GILLLoader", widget) for widget in ("language", "gill", "vision", "decision")}
FILES |= {("LLMGA_UNetLoader", "unet"), ("LLMGA_DiffRIRLoader", "restorer_file")}
FILE_INPUTS = (
    "ckpt_name unet_name clip_name vae_name control_net_name model endpoint name restorer_file image "
    "language gill vision decision".split()
)
NOT_HERE = {("value_not_in_list", name) for name in FILE_INPUTS}
FILE_LOADERS = ("CheckpointLoaderSimple", "UNETLoader", "CLIPLoader", "VAELoader", "ControlNetLoader")
LINKS = re.compile(r"\]\(https://(?:huggingface\.co|github\.com|ollama\.com)/[^)\s]*\)")
TEMPLATES = sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))
PROMPTS = sorted(path.stem for path in (ROOT / "workflows" / "api").glob("*.json"))


@pytest.fixture(scope="module")
def infos(server: ComfyServer) -> dict[str, Any]:
    """Every node's entry of /object_info."""
    return server.object_info()


@pytest.fixture(scope="module")
def ours(infos: dict[str, Any]) -> dict[str, Any]:
    return {name: infos[name] for name in NODES}


def inputs_of(info: dict[str, Any]) -> dict[str, Any]:
    """name -> (type, options); without the hidden ones, which nobody sees."""
    return {**info["input"].get("required", {}), **info["input"].get("optional", {})}


def normalised(name: str, info: dict[str, Any]) -> dict[str, Any]:
    kept = json.loads(json.dumps({field: info[field] for field in FIELDS}))
    for widget, spec in inputs_of(kept).items():
        if (name, widget) in FILES:
            spec[1]["options"] = "what this machine has"
    return kept


def definition(info: dict[str, Any]) -> dict[str, Any]:
    """A node's entry of nodeDefs.json."""
    return {
        "display_name": info["display_name"],
        "description": info["description"],
        "inputs": {
            name: {"name": name, "tooltip": spec[1]["tooltip"]} for name, spec in inputs_of(info).items()
        },
        "outputs": {
            str(i): {"name": name, "tooltip": tooltip}
            for i, (name, tooltip) in enumerate(
                zip(info["output_name"], info["output_tooltips"], strict=True)
            )
        },
    }


def keys(value: Any) -> Any:
    return {key: keys(inner) for key, inner in value.items()} if isinstance(value, dict) else None


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def renew(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def test_the_nodes_are_as_recorded(ours: dict[str, Any]) -> None:
    found = {name: normalised(name, info) for name, info in ours.items()}
    if RENEW:
        renew(SNAPSHOT, found)
    recorded = read(SNAPSHOT)
    changed = [name for name in NODES if found[name] != recorded.get(name)]
    assert not changed, f"{', '.join(changed)} differ from {SNAPSHOT.name}; if that is meant, {HINT}"
    assert recorded.keys() == found.keys()


def test_every_node_input_and_output_is_explained(ours: dict[str, Any]) -> None:
    silent = [name for name, info in ours.items() if not info["description"]]
    for name, info in ours.items():
        silent += [f"{name}.{one}" for one, spec in inputs_of(info).items() if not spec[1].get("tooltip")]
        tooltips = info["output_tooltips"] or [""] * len(info["output_name"])
        silent += [
            f"{name}→{one}" for one, said in zip(info["output_name"], tooltips, strict=True) if not said
        ]
    assert silent == []


def test_no_output_is_named_as_an_input_of_another_kind(ours: dict[str, Any]) -> None:
    for name, info in ours.items():
        kinds = {one: spec[0] for one, spec in inputs_of(info).items()}
        for output, kind in zip(info["output_name"], info["output"], strict=True):
            assert kinds.get(output, kind) == kind, f"{name}: output {output}"


@pytest.mark.parametrize("name", NODES)
def test_the_help_page_is_served_and_explains_every_socket(
    server: ComfyServer, ours: dict[str, Any], name: str
) -> None:
    page = server.request(f"/extensions/{PACK_FOLDER}/docs/{name}.md").decode("utf-8")
    sockets = [*inputs_of(ours[name]), *ours[name]["output_name"]]
    assert [one for one in sockets if f"**{one}**" not in page] == []
    assert page.startswith(f"# {ours[name]['display_name']}\n")
    for heading in ("## Inputs", "## Outputs", "## Example", "## When it fails"):
        assert heading in page, f"{name}.md has no {heading!r}"
    for picture in re.findall(
        r"!\[.+?\]\((.+?)\)", page
    ):  # the help panel takes it from the folder of the pages
        assert server.request(f"/extensions/{PACK_FOLDER}/docs/{picture}").startswith(b"\xff\xd8")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_word_has_a_translation(server: ComfyServer, ours: dict[str, Any], language: str) -> None:
    wanted = {name: definition(info) for name, info in ours.items()}
    if RENEW and language == "en":
        renew(LOCALES / "en" / "nodeDefs.json", wanted)
    stored = read(LOCALES / language / "nodeDefs.json")
    assert keys(stored) == keys(wanted), (
        f"locales/{language}/nodeDefs.json lacks or has too many keys; {HINT}"
    )
    if language == "en":
        assert stored == wanted, f"the English words differ from the schema; {HINT}"
    else:
        latin = [one for one in texts(stored) if not re.search(r"[\u4e00-\u9fff]", one)]
        assert set(latin) <= {"seed", "temperature", "top_p", "LLMGA"} | {"CLIP"}, latin
    assert keys(read(LOCALES / language / "main.json")) == keys(read(LOCALES / "en" / "main.json"))
    served = server.get("/i18n")[language]
    if not RENEW:  # the host reads them once
        assert stored.items() <= served["nodeDefs"].items()
    assert served["nodeCategories"]["LLMGA"]


def texts(value: Any) -> list[str]:
    return [one for inner in value.values() for one in texts(inner)] if isinstance(value, dict) else [value]


def test_the_extension_is_loaded_once(server: ComfyServer) -> None:
    scripts = [one for one in server.get("/extensions") if one.endswith("/llmga.js")]
    assert scripts == [f"/extensions/{PACK_FOLDER}/js/llmga.js"]
    assert b"registerExtension" in server.request(scripts[0])


def test_every_template_is_offered_with_its_picture(server: ComfyServer) -> None:
    offered = server.get("/workflow_templates")[PACK_FOLDER]
    assert sorted(offered) == TEMPLATES == sorted(NAMES)
    assert sorted(NAMES.values()) == PROMPTS
    for name in map(quote, offered):
        workflow = json.loads(server.request(f"/api/workflow_templates/{PACK_FOLDER}/{name}.json"))
        assert workflow["version"] == 0.4 and workflow["extra"]["linearData"]["outputs"]
        picture = server.request(f"/api/workflow_templates/{PACK_FOLDER}/{name}.jpg")
        assert picture.startswith(b"\xff\xd8") and len(picture) <= 60_000
    with pytest.raises(urllib.error.HTTPError):
        server.request(f"/api/workflow_templates/{PACK_FOLDER}/no_such.json")


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_is_tidy_and_holds_nothing_private(infos: dict[str, Any], name: str) -> None:
    nodes = read(ROOT / "workflows" / f"{name}.json")["nodes"]
    assert {node["type"] for node in nodes} - infos.keys() == {"MarkdownNote"}
    for node in nodes:
        if node["type"] in NODES:
            assert node["properties"]["cnr_id"] == "llmga" and node["properties"]["ver"]
        for value in node.get("widgets_values") or ():
            if node["type"] == "MarkdownNote":
                value = LINKS.sub("", str(value))
            private = r"https?://|[A-Za-z]:\\|(?<![\w/])/(?:home|root|tmp|Users|work)\b|\bsk-|(?:KEY|TOKEN)="
            assert not re.search(private, str(value)), f"{node['type']}: {value}"
    loaders = (node for node in nodes if node["type"] in FILE_LOADERS)
    for loader in (one for one in loaders if one["widgets_values"] != [PIXEL_SPACE]):
        (model,) = loader["properties"]["models"]
        assert model["name"] in loader["widgets_values"] and model["url"].endswith(model["name"])
    (note,) = (node["widgets_values"][0] for node in nodes if node["type"] == "MarkdownNote")
    assert "**Try next:**" in note and ("](https://" in note or "no language model" in note or "Mask" in note)
    boxes = [(*node["pos"], *node["size"]) for node in nodes]
    apart = [
        x + w <= u or u + s <= x or y + h <= v - 30 or v + t <= y - 30
        for i, (x, y, w, h) in enumerate(boxes)
        for u, v, s, t in boxes[:i]
    ]
    assert all(apart), "nodes overlap"


@pytest.mark.parametrize("name", PROMPTS)
def test_a_shipped_prompt_is_whole(infos: dict[str, Any], name: str) -> None:
    prompt = read(ROOT / "workflows" / "api" / f"{name}.json")
    for node in prompt.values():
        assert node["_meta"]["title"]
        known = inputs_of(infos[node["class_type"]])
        required = infos[node["class_type"]]["input"].get("required", {})
        given = {name.partition(".")[0] for name in node["inputs"]}  # "images.image0" is one of "images"
        assert given <= known.keys(), node["class_type"]
        assert required.keys() <= given, node["class_type"]


def test_every_node_occurs_in_a_shipped_prompt() -> None:
    prompts = [read(ROOT / "workflows" / "api" / f"{name}.json") for name in PROMPTS]
    assert set(NODES) <= {node["class_type"] for prompt in prompts for node in prompt.values()}


def test_the_shipped_prompts_run(server: ComfyServer) -> None:
    """In the demo's order: one loads the conversation that another saves."""
    runnable = sorted(set(PROMPTS) - STORY.keys())
    assert set(STORY) <= set(PROMPTS)
    for name in [*STORY, *runnable]:
        prompt = load_prompt(ROOT / "workflows" / "api" / f"{name}.json")
        entry = server.run(prompt)
        savers = [node_id for node_id, node in prompt.items() if node["class_type"] == "SaveImage"]
        pictures = [picture for saver in savers for picture in entry["outputs"][saver]["images"]]
        several = {"picture_book": 4, "similar_images": 2, "talk_and_change": 2, "language_or_embedding": 2}
        several["caption_folder"] = 0
        assert len(pictures) == several.get(name, 1), name
        assert all(server.view(picture).startswith(b"\x89PNG") for picture in pictures), name
        shown = [node_id for node_id, node in prompt.items() if node["class_type"] == "PreviewAny"]
        assert all(entry["outputs"][node_id]["text"][0] for node_id in shown), name


@pytest.mark.parametrize("name", PROMPTS)
def test_comfyui_takes_every_shipped_prompt(infos: dict[str, Any], server: ComfyServer, name: str) -> None:
    """As it is shipped: all that the server may object to are files and records that are not here."""
    with pytest.raises(PromptRejectedError) as caught:
        server.queue(read(ROOT / "workflows" / "api" / f"{name}.json"))
    errors = [one for node in caught.value.body["node_errors"].values() for one in node["errors"]]
    assert errors and {(one["type"], one["extra_info"]["input_name"]) for one in errors} <= NOT_HERE


def test_the_blueprints_are_offered(infos: dict[str, Any], server: ComfyServer) -> None:
    offered = server.get("/global_subgraphs")
    ours = {
        one["name"]: key for key, one in offered.items() if one["info"]["node_pack"].endswith(PACK_FOLDER)
    }
    assert set(ours) == {"Refine prompt", "Edit by words", "Paint a hole"}
    for name, key in ours.items():
        graph = json.loads(server.get(f"/global_subgraphs/{key}")["data"])
        (subgraph,) = graph["definitions"]["subgraphs"]
        assert subgraph["name"] == name and graph["extra"]["BlueprintDescription"]
        assert {node["type"] for node in subgraph["nodes"]} <= infos.keys()
        assert {"clip", "instruction"} & {slot["name"] for slot in subgraph["inputs"]}

"""LLMGA GILL Chat: text and pictures in, words and a picture out, generated from an embedding or found in an index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from comfy_api.latest import io

from ..llmga.chat import Conversation, Picture, Turn
from ..llmga.chat.conversation import MAX_PICTURES
from ..llmga.gill.transcript import TRANSCRIPT_STYLES, prompt_of
from ..llmga.images import from_pil, read_picture, to_pil
from . import check, host, host_gill, panel
from .gill import GILLType, HostIndex, IndexType
from .host_live_text import live_text
from .types import History, seed_input

if TYPE_CHECKING:
    from ..llmga.gill import GILLReply, ReplyOptions, ReplyPicture

PICTURES = ("auto", "always", "never")
RECORD = "llmga_gill"
"""Of what the panel shows, in the node's ``ui``."""
MAX_TOKENS = 1024
MAX_SCALE = 100_000.0
MAX_MATCHES = 16


class GILLChat(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGA_GILLChat",
            display_name="LLMGA GILL Chat",
            category="LLMGA/gill",
            description="Talks to GILL about text and pictures. It answers with words, and with a picture as an embedding: "
            "conditioning for SD1.5 without a text prompt, or pictures found in an index. A model decides which of both.",
            is_output_node=True,
            search_aliases=["GILL", "visual story", "multimodal chat", "image retrieval", "embedding prompt"],
            inputs=[
                GILLType.Input("gill", tooltip="From LLMGA GILL Loader."),
                io.String.Input(
                    "message",
                    multiline=True,
                    default="",
                    optional=True,
                    tooltip="What you say. Empty is allowed where a picture or a history is connected.",
                ),
                io.Combo.Input(
                    "picture",
                    options=list(PICTURES),
                    default="auto",
                    optional=True,
                    tooltip="auto: where GILL itself writes a picture. always: right behind your message, "
                    "without words before "
                    "it. never: words alone.",
                ),
                io.Combo.Input(
                    "transcript",
                    options=list(TRANSCRIPT_STYLES),
                    default="questions",
                    optional=True,
                    tooltip="questions: your message stands between Q: and A:, for a dialogue. plain: as it "
                    "is, for captions "
                    "and stories.",
                ),
                seed_input("Of the words that are drawn; at temperature 0 nothing is drawn."),
                io.Float.Input(
                    "temperature",
                    default=0.0,
                    optional=True,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="0 always takes the likeliest word, as GILL was evaluated; higher is more varied.",
                ),
                io.Int.Input(
                    "max_tokens",
                    default=32,
                    optional=True,
                    min=1,
                    max=MAX_TOKENS,
                    tooltip="The longest reply in tokens; a picture counts as one. A reply ends with its line.",
                ),
                io.Float.Input(
                    "picture_scale",
                    default=1.3,
                    optional=True,
                    min=0.0,
                    max=MAX_SCALE,
                    step=0.1,
                    tooltip="Above 1 GILL writes pictures more readily: the logit of [IMG0] becomes its "
                    "magnitude times this.",
                ),
                io.Boolean.Input(
                    "decide",
                    default=True,
                    optional=True,
                    tooltip="on: only the output that the decision model chose goes on, positive or "
                    "retrieved. off: both do.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="Pictures that you show with your message; of a batch all.",
                ),
                History.Input(
                    "history",
                    optional=True,
                    tooltip="What was said before: the history of another LLMGA GILL Chat, or of LLMGA Load History.",
                ),
                IndexType.Input(
                    "index",
                    optional=True,
                    tooltip="From LLMGA Picture Index. Without one every picture is generated.",
                ),
                io.Int.Input(
                    "matches",
                    default=1,
                    min=1,
                    max=MAX_MATCHES,
                    optional=True,
                    advanced=True,
                    tooltip="How many pictures of the index are given out, the best first.",
                ),
                io.Float.Input(
                    "top_p",
                    default=1.0,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    advanced=True,
                    tooltip="Draws only from the likeliest words whose probability together reaches it; needs a temperature "
                    "above 0. The published demonstration uses 0.95.",
                ),
                io.Int.Input(
                    "min_tokens",
                    default=0,
                    min=0,
                    max=MAX_TOKENS,
                    optional=True,
                    advanced=True,
                    tooltip="So many tokens come before the first picture may.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="text", tooltip="The words of the reply."),
                io.String.Output(
                    display_name="decision",
                    tooltip="generate, retrieve, or no picture where the reply has none.",
                ),
                io.Float.Output(
                    display_name="probability",
                    tooltip="How sure the decision model is, 0.5 to 1; 1 without one.",
                ),
                io.Conditioning.Output(
                    display_name="positive",
                    tooltip="The picture's embedding for SD1.5, 77 rows. Encode an empty text for negative. Where there is "
                    "none, what hangs on it does not run.",
                ),
                io.Image.Output(
                    display_name="retrieved",
                    is_output_list=True,
                    tooltip="The pictures that were found, the best first. Where there are none, what hangs on it does not "
                    "run.",
                ),
                History.Output(display_name="history", tooltip="The conversation with this exchange."),
                io.String.Output(
                    display_name="readout",
                    tooltip="What was decided and why, scores, and words that were cut.",
                ),
            ],
        )

    @classmethod
    @host.guarded
    def execute(
        cls, gill, message, picture, transcript, seed, temperature, max_tokens, picture_scale, decide,
        image=None, history=None, index=None, matches=1, top_p=1.0, min_tokens=0,
    ) -> io.NodeOutput:  # fmt: skip
        from ..llmga.gill import GILL, GILLReply, ReplyOptions, answer
        from ..llmga.gill.answer import read_picture_states

        check.instance("gill", gill, GILL, "LLMGA GILL Loader")
        check.choice("picture", picture, PICTURES)
        check.choice("transcript", transcript, TRANSCRIPT_STYLES)
        check.flag("decide", decide)
        options = ReplyOptions(
            max_tokens=check.integer("max_tokens", max_tokens, 1, MAX_TOKENS),
            min_tokens=MAX_TOKENS
            if picture == "never"
            else check.integer("min_tokens", min_tokens, 0, MAX_TOKENS),
            temperature=check.number("temperature", temperature, 0.0, 2.0),
            top_p=check.number("top_p", top_p, 0.01, 1.0),
            seed=check.integer("seed", seed, 0, 2**64 - 1),
            retrieval_scale=check.number("picture_scale", picture_scale, 0.0, MAX_SCALE),
        )
        check.integer("matches", matches, 1, MAX_MATCHES)
        found = None if index is None else check.instance("index", index, HostIndex, "LLMGA Picture Index")
        conversation = asked(message, image, history)
        prompt = prompt_of(gill, conversation, transcript)
        searched = None if found is None else found.index
        if picture == "always":
            host.raise_if_cancelled()
            shown = read_picture_states(gill, gill.picture_states(prompt), searched, matches)
            reply = GILLReply((shown,), (), gill.img_text)
        else:
            reply = answer(gill, prompt, options, index=searched, matches=matches, on_reply=live_text())
        return packed(reply, conversation, found, decide, why_no_picture(picture, options, reply))


def why_no_picture(picture: str, options: ReplyOptions, reply: GILLReply) -> str:
    """What to change where a reply has no picture, for the readout."""
    if picture == "never":
        return "picture is set to never"
    if reply.ended == "context":
        return "one may not have fitted any more"
    if options.min_tokens >= options.max_tokens:
        return (
            f"min_tokens is {options.min_tokens} and max_tokens {options.max_tokens}: lower min_tokens, or raise "
            "max_tokens"
        )
    return "raise picture_scale, or set picture to always"


def asked(message: Any, image: Any, history: Any) -> Conversation:
    """The conversation so far with this message.

    Raises:
        ValueError: there is nothing in it, or a socket holds something else.
    """
    before = (
        Conversation()
        if history is None
        else check.instance("history", history, Conversation, "LLMGA GILL Chat")
    )
    text = check.optional_text("message", message)
    pictures = () if image is None else tuple(map(Picture.from_pil, to_pil(check.image("image", image))))
    if not text and not pictures and not before.turns:
        raise ValueError("there is nothing to read: write a 'message', or connect 'image' or 'history'")
    shown = len(before.pictures)
    if shown + len(pictures) > MAX_PICTURES:
        raise ValueError(
            f"image holds {len(pictures)} pictures and history {shown}, and a conversation at most {MAX_PICTURES}; show "
            "fewer in 'image', or connect a shorter 'history'"
        )
    return before.say("user", text, pictures) if text or pictures else before


def packed(
    reply: GILLReply, conversation: Conversation, found: HostIndex | None, decide: bool, missing: str
) -> io.NodeOutput:
    from ..llmga.gill.answer import ENDINGS

    shown = reply.pictures[0] if reply.pictures else None
    lines = [f"said: {reply.text or '(no words)'}"]
    lines += [f"left out: {words!r:.200}" for words in reply.cut]
    if reply.ended:
        lines.append(ENDINGS[reply.ended])
    decision, probability = "no picture", 1.0
    positive: Any = host_gill.blocked()
    retrieved: list[torch.Tensor] = []
    if shown is None:
        lines.append(f"GILL wrote no picture; {missing}")
    else:
        decision, probability = shown.decision.source, shown.decision.probability
        lines.append(f"{decision}, probability {probability:.3f}: {shown.decision.reason}")
        if not decide or decision == "generate":
            positive = [[shown.conditioning[None], {}]]
        if found is not None and (not decide or decision == "retrieve"):
            retrieved = read_matches(shown, found, lines)
    whole = conversation.say("assistant", reply.turn_text)
    readout = "\n".join(lines)
    return io.NodeOutput(
        reply.text, decision, probability, positive, retrieved or [host_gill.blocked()], whole, readout,
        ui={"text": [readout], RECORD: [exchange(reply, conversation.turns[-1], retrieved, lines[1:])]},
    )  # fmt: skip


def exchange(
    reply: GILLReply, asked: Turn, retrieved: list[torch.Tensor], remarks: list[str]
) -> dict[str, Any]:
    """What the panel shows of a run: the message, and the reply with each picture where it stands between the words.

    A picture that is painted is not here: the panel takes it from the node that shows it. The pictures that were found
    are named by the hash of their pixels, as those of a turn are; where one cannot be shown, the reply is still given.
    """
    notes: dict[str, None] = {}
    found = tuple(Picture.from_pil(one) for image in retrieved for one in to_pil(image))
    shown = panel.as_json(Turn("user", "", found), notes)["images"]
    pieces: list[dict[str, Any]] = []
    for piece in reply.pieces:
        if isinstance(piece, str):
            pieces.append({"text": piece})
            continue
        decided = {"source": piece.decision.source, "probability": round(piece.decision.probability, 4)}
        pieces.append({**decided, "images": shown})
        shown = []  # the outputs hold the reply's first picture alone
    return {
        "asked": panel.as_json(asked, notes),
        "pieces": pieces,
        "remarks": remarks,
        "notes": list(notes),
    }


def read_matches(shown: ReplyPicture, found: HostIndex, lines: list[str]) -> list[torch.Tensor]:
    """The pictures that were found, (1, H, W, 3) each; one that cannot be read is named in ``lines``."""
    from ..llmga.gill.index_building import picture_file

    pictures = []
    for match in shown.matches:
        try:
            pictures.append(from_pil([read_picture(picture_file(found.pictures, match.path), "white")]))
            lines.append(f"found {match.path}, score {match.score:.3f}")
        except (OSError, ValueError) as error:
            lines.append(f"found {match.path}, score {match.score:.3f}, but: {error}")
    return pictures


NODES = [GILLChat]

"""The words of the presets: the design expert, the picture book, and every task in Chinese.

LLMGA was trained on design and story requests and on Chinese ones; the phrasings here keep that intent in our own
words, and say enough that a general model knows what a good logo or poster is. ``{instruction}`` is where the user's
words go, ``{pages}`` the number of pages.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

LANGUAGES = ("en", "zh")
MAX_PAGES = 12

# What a designer would settle before drawing; it stands after the request, so that the request stays the first thing.
_BRIEFS = {
    "logo": (
        "Think as a logo designer: one simple mark that is read at the size of a thumbnail, at most three flat colours, "
        "clean edges, centred on a plain background, no photograph and no small detail."
    ),
    "poster": (
        "Think as a poster designer: one strong subject, a clear hierarchy, a limited palette, an eye-catching "
        "composition in portrait format with calm room for a title."
    ),
    "character": (
        "Think as a character designer: face, hair, build, clothes with their materials, posture and expression, one "
        "thing to remember the character by; the full figure, from the front, on a plain background."
    ),
    "tshirt": (
        "Think as a T-shirt designer: one compact motif for the chest, bold outlines, few flat colours that print well, "
        "isolated on a plain background, seen as the print alone and not on a person."
    ),
    "infographic": (
        "Think as an infographic designer: a clear grid, a few flat icons that tell the facts in reading order, one "
        "accent colour, much empty space, and no small lettering."
    ),
}
_REQUESTS = {
    "logo": (
        "Design a logo: {instruction}",
        "I need a logo. {instruction}",
        "Create the image of a logo for this: {instruction}",
    ),
    "poster": (
        "Design a poster: {instruction}",
        "I need a poster. {instruction}",
        "Create the image of a poster for this: {instruction}",
    ),
    "character": (
        "Design a character: {instruction}",
        "I am looking for a character. {instruction}",
        "Create the image of a character from this: {instruction}",
    ),
    "tshirt": (
        "Design a print for a T-shirt: {instruction}",
        "I need the motif of a T-shirt. {instruction}",
        "Create the image of a T-shirt print for this: {instruction}",
    ),
    "infographic": (
        "Design an infographic: {instruction}",
        "I need an infographic. {instruction}",
        "Create the image of an infographic about this: {instruction}",
    ),
}
DESIGN: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        name: tuple(f"{request}\n{_BRIEFS[name]}" for request in requests)
        for name, requests in _REQUESTS.items()
    }
)
PICTURE_BOOK = (
    "Write a picture book of exactly {pages} pages: {instruction}\nFor each page write two or three sentences of the "
    "story, then one image of the page. Repeat the looks of the characters and the style in every image.",
    "Make a picture book from this: {instruction}\nIt has exactly {pages} pages; each is a short text followed by one "
    "image, and the characters look the same in every image.",
    "{instruction}\nTell this as a picture book with exactly {pages} pages, a short text and then one image per page, "
    "all in one style.",
)

_SCENE_FORM = (
    'Answer with one JSON object and nothing else: {"objects": [{"name": …, "box": [x, y, width, height], "descriptions": '
    '[…, …, …]}, …], "background": …, "negative": …}. A box is in parts of the picture, 0 to 1, with 0, 0 at the top left; '
    "each object has three descriptions; the background names no object; the negative prompt says what must not be seen."
)
SCENE = (
    "Plan the scene of this picture: {instruction}\n" + _SCENE_FORM,
    "Lay out a picture with boxes: {instruction}\n" + _SCENE_FORM,
    "{instruction}\nPlan this as a scene of objects in boxes. " + _SCENE_FORM,
)

_SCENE_FORM_ZH = (
    '只回答一个 JSON 对象：{"objects": [{"name": …, "box": [x, y, width, height], "descriptions": […, …, …]}, …], '
    '"background": …, "negative": …}。方框以画面的几分之几表示，从 0 到 1，左上角为 0, 0；每个物体写三种描述；背景不提物体；'
    "最后一项写画面中不应出现的东西。文字用英文。"
)

CHINESE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "refine": (
            "请根据这个想法生成一张细节丰富的图像：{instruction}",
            "我想要这样一幅画面：{instruction}\n请设计并生成这张图像。",
            "请把下面的文字变成一张完整的图像：{instruction}",
        ),
        "similar": (
            "请生成一张与这张相似的图像。{instruction}",
            "请照着这张图片的场景再生成一张新的图像。{instruction}",
            "请重新创作这张图片，生成一张新的图像。{instruction}",
        ),
        "inpaint": (
            "请修补这张图像。{instruction}",
            "请补全图片中黑色的部分。{instruction}",
            "这张图像缺了一块，请想象那里应有的内容并补全。{instruction}",
        ),
        "outpaint": (
            "请扩展这张图像。{instruction}",
            "请把画面延伸到黑色的边框中。{instruction}",
            "请想象这张图片四周的景物，把画面向外扩展。{instruction}",
        ),
        "edit": (
            "请编辑这张图像：{instruction}",
            "请只作一处改动，重新生成这张图片：{instruction}",
            "请按下面的要求修改图像，其余保持不变：{instruction}",
        ),
        "describe": (
            "请详细描述这张图像。{instruction}",
            "这张图片里有什么？{instruction}",
            "请从主体到背景说明这张图片的内容。{instruction}",
        ),
        "story": (
            "请写一个短故事，并为每个部分生成一张图像：{instruction}",
            "请用几个场景讲一个带插图的故事，每个场景一张图像：{instruction}",
            "请创作一段叙事，并配上插图：{instruction}",
        ),
        "logo": (
            "请设计一个标志：{instruction}\n要求：图形简洁，最多三种纯色，边缘清晰，居中，背景单一，缩小后仍可辨认。",
        ),
        "poster": (
            "请设计一张海报：{instruction}\n要求：竖幅，主体突出，层次分明，色彩克制，并为标题留出空白。",
        ),
        "character": (
            "请设计一个角色：{instruction}\n要求：写明面貌、发型、体态、服装与材质、神情和一处令人难忘的特征；正面全身，背景单一。",
        ),
        "tshirt": (
            "请设计一件 T 恤的印花：{instruction}\n要求：图案紧凑，轮廓粗，颜色少而纯，背景单一，只画图案。",
        ),
        "infographic": (
            "请设计一张信息图：{instruction}\n要求：版面清楚，扁平图标不多，一种强调色，多留白，没有小字。",
        ),
        "picture_book": (
            "请创作一本正好 {pages} 页的绘本：{instruction}\n每页先写两三句故事，再生成一张图像；"
            "每张图像都写明人物的样貌和画风。",
            "请把下面的内容写成正好 {pages} 页的绘本，每页一段短文，随后一张图像，画风和人物前后一致：{instruction}",
        ),
        "change": (
            "请再生成一次刚才的画面，只作下面的改动，其余保持不变：{instruction}",
            "画面和之前一样，但要这样改：{instruction}\n请重新生成整张图像。",
            "请在上一张图像的基础上修改，只改这一点：{instruction}",
        ),
        "scene": (
            "请规划这幅画面的场景：{instruction}\n" + _SCENE_FORM_ZH,
            "请用方框安排这幅画面：{instruction}\n" + _SCENE_FORM_ZH,
        ),
    }
)

import pytest
from support.waiting import growth

from llmga.chat.refusal import is_refusal

REFUSALS = [
    "I'm sorry, but I can't help with that.",
    "I’m sorry, I can’t assist with that request.",
    "Sorry, I can't help you with this.",
    "I am sorry, but I cannot fulfill this request.",
    "I'm sorry. I can't do that.",
    "I cannot generate images.",
    "I can't create that image for you.",
    "I can't see any image in your message, could you upload it again?",
    "I'm unable to create images of real people.",
    "I am not able to generate visual content, but I can describe a sunset in words.",
    "I won't create this content.",
    "I don't have the ability to draw pictures.",
    "I'm not comfortable creating that image.",
    "As an AI language model, I cannot generate images.",
    "As an AI, I'm not able to draw pictures, but I can help you in other ways.",
    "As a text-based assistant, I do not have the capability to produce illustrations.",
    "I'm just a text-based AI and cannot generate images.",
    "I apologize, but I can't provide that description.",
    "My apologies, but I cannot comply with your request.",
    "Unfortunately, I am unable to assist with this request.",
    "I'm afraid I can't do that.",
    "I must respectfully decline to write this.",
    "I have to decline this request.",
    "I understand you'd like a picture of the mayor, but I can't create images of public figures.",
    "While I'd love to paint this for you, I cannot produce such content.",
    "Thank you for the idea! Unfortunately I can't make that picture.",
    "This request violates our content policy.",
    "I'm sorry, but that would go against my guidelines.",
    "That is not something I can help with.",
    "Unable to comply with this request.",
    "Hello! I'm sorry, but I can't edit images.",
    "\n\n  I'm   sorry,\tbut I can't help with that.",
    "对不起，我无法生成图片。",
    "很抱歉，我不能帮助您完成这个请求。",
    "抱歉，我没有办法为您绘制这张图像。",
    "作为一个人工智能语言模型，我无法直接生成图像。",
    "我无法满足您的要求。",
    "非常抱歉。我不能提供这样的内容。",
    "抱歉，您的请求违反了内容政策。",
    "對不起，我無法為您繪製這張圖片。",
]

PROMPTS = [
    "a sign that says 'I can't'",
    'A weathered wooden sign that reads "Sorry, I can\'t help with that request" at the edge of a forest.',
    "a portrait of a person who cannot see the picture in front of them",
    "Sorry! movie poster, two clowns under a red umbrella",
    "Sorry, we are closed: a shop window at night, neon light",
    "'I can't help with that' printed on a coffee mug",
    "I can't help falling in love with you, album cover, soft pink clouds",
    "I can't wait to show you this: a lighthouse in a storm, oil on canvas.",
    "I can't do this anymore, breakup album cover, torn photographs",
    "This is a portrait of a man that cannot see the picture behind him.",
    "I can't breathe, protest mural on a brick wall, wide shot",
    "I can't sleep, a lonely figure at a kitchen table at three in the morning",
    "Unable to sleep, a woman looks out over the wet city.",
    "Unfortunately named cat Mister Sorrow on a velvet cushion, studio light",
    "An AI assistant robot that cannot draw pictures, sitting at an easel, melancholic",
    "As an astronaut drifts past Saturn, the rings cannot hide the tiny sun.",
    "As a model of elegance, a woman in a silver gown walks the runway.",
    "A robot refuses to follow its guidelines, comic panel, bold ink",
    "A rule book that goes against all standards, burning on an altar",
    "A knight must decline the crown; candles, a cathedral, long shadows.",
    "The court painter apologizes to the queen, rococo interior",
    "I am Groot, a tree creature in a mossy forest, cinematic light",
    "I have a dream, a choir on marble steps, golden hour",
    "No Entry sign covered in ivy, macro photograph",
    "This is a watercolor of three foxes that cannot be seen at first glance.",
    "It is against the blue wall that the red bicycle stands out, hard noon light.",
    "We cannot see the end of the misty road; pines on both sides, dawn.",
    "A black cat sits on a sill. It cannot reach the bird. Rain runs down the glass.",
    "A mime who is unable to speak, holding a picture frame, black and white",
    "That which cannot be described: a cosmic horror rises from the sea.",
    "Hello Kitty themed birthday cake with strawberries, pastel kitchen",
    "While the city sleeps, a baker cannot stop kneading, warm light from one window.",
    "A long shot of dunes at dusk. A caravan. The wind. A voice says: I'm sorry, but I can't help with that.",
    "A long shot of dunes at dusk. A caravan. The wind. A tired guide. I can't help with that.",
    "对不起，我爱你，电影海报，雨夜的街道",
    "一个无法行走的男孩坐在窗边，柔和的光线",
    "我不能停止想你，专辑封面，粉色的云",
    "一块写着“抱歉，我们已打烊”的牌子挂在门上",
    "一只猫，作为国王的助手，不能离开王座，油画",
    "",
]


@pytest.mark.parametrize("text", REFUSALS)
def test_refusal_is_recognised(text: str) -> None:
    assert is_refusal(text)


@pytest.mark.parametrize("text", PROMPTS)
def test_prompt_is_not_taken_for_a_refusal(text: str) -> None:
    assert not is_refusal(text)


@pytest.mark.parametrize(
    "piece", ["I'm sorry, but ", "I can't ", "I ", ", ", "抱歉", "as an ", "I can't make a ", " ", "\n"]
)
def test_hostile_length_is_cheap(piece: str) -> None:
    small, large = piece * 800, piece * 20_000
    assert growth(lambda: is_refusal(small), lambda: is_refusal(large), 100) < 100  # 25 times the text

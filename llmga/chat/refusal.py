"""Tells a refusal from a prompt, so that no policy paints "I'm sorry, but I can't help with that".

A missed refusal costs one odd picture, a false alarm costs a good prompt. So a refusal must open one of the
first sentences in a way in which language models open it, and say there, in the first person or about the
request, what is declined.
"""

from __future__ import annotations

import re

_SENTENCES = 3
_READ_CHARS = 16_000
_SENTENCE_CHARS = 2_000
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])\s*|\n+")

_SORRY = r"(?:(?:so\ |very\ |really\ )?sorry | (?:my\ |our\ )?apologies | unfortunately | regrettably)"
_OPENING = rf"""(?:
    i | we | {_SORRY} | as\ an? | while | although | though | as\ much\ as | thank | thanks
    | hi | hello | hey | oh | well | no | at\ this\ time | this | that | it | your | the\ request )\b"""
_CANNOT = r"""(?:
    can(?:'t|\ ?not) | could(?:n't|\ not) | won't | will\ not
    | (?:(?:'m|'re|\ am|\ are)\ (?:\w{1,40}\ )?)?
      (?:unable\ to | not\ (?:able|allowed|permitted|designed|going)\ to | not\ (?:capable\ of|comfortable))
    | (?:do\ not|don't)\ have\ (?:the\ |any\ )?(?:ability|capability|means|permission)\ (?:to|of)
    | (?:(?:must|have\ to|need\ to)\ )?(?:\w{1,30}ly\ )?(?:decline|refuse)(?:\ to)? )"""
# "I can't make this any clearer" declines nothing: the pronoun has to end its clause.
_CLAUSE_END = r"""\s{0,20}(?:[^\w\s'"]|$)"""
_THING = rf"""(?:
    (?:[\w'-]{{1,40}}\ ){{0,7}}? (?:(?:image | picture | photo | photograph | illustration | drawing | artwork
        | visual | caption | description | prompt | request | depiction)s? | content | material)\b
    | (?:that|this|it|one|those|so)\b (?={_CLAUSE_END} | \s(?:for\ you|because|as|due|since)\b) )"""
_DO_IT = rf"""(?:\w{{1,30}}ly\ )?(?:
    comply\b | (?:proceed|continue|engage)\ (?:with|in)\b
    | (?:help|assist)(?:ing)?(?:\ you)? (?:\ (?:with|in|to\ create|create)\b | {_CLAUSE_END})
    | (?:fulfil{{1,2}} | accommodat | process | complet | generat | creat | mak | produc | draw | paint | design
        | provid | describ | depict | show | edit | modify | see | view | access | analyz | analys | render
        | writ | do | offer)
      (?:e|ing)?\ (?:you\ (?:with\ )?)?{_THING} )"""
_ENGLISH = (
    # "I'm sorry, but I can't make that.", "As an AI, I am not able to generate images."
    rf"(?:{_OPENING} (?:.{{0,200}}? (?:[,;:—–-]\s{{0,20}} | \b(?:but|and|that|sorry|afraid)\ ))?\ ?)?"
    rf"(?:but\ )?(?:i|we)\ ?{_CANNOT}\ {_DO_IT}",
    # "Unable to comply with this request."
    rf"(?:{_SORRY}[\s,]{{1,20}})?(?:but\ )?(?:unable\ to|can't|can\ ?not)\ {_DO_IT}",
    # "I am a text-based assistant and cannot draw pictures."
    rf"i(?:'m|\ am)\ .{{0,60}}? \b(?:ai|model|assistant)\b .{{0,60}}? \b{_CANNOT}\ {_DO_IT}",
    # "I must decline."
    r"(?:i|we)\ (?:must|have\ to|need\ to)\ (?:\w{1,30}ly\ )?(?:decline|refuse)\b",
    # "Your request violates our content policy.", "I'm sorry, but that would go against my guidelines."
    rf"(?:{_OPENING} .{{0,200}}? [,;—–-]\s{{0,20}} (?:but\ )?)?"
    r"(?:(?:this|that|the|your)\ (?:request|prompt|content|topic)\b .{0,60}? | this | that | it)"
    r"(?:\ would)?\ ?"
    r"(?:violat(?:e|es|ing) | (?:goes|go|is|'s)\ against | is\ not\ (?:allowed|permitted))"
    r".{0,60}? \b(?:polic(?:y|ies) | guidelines | rules | terms | standards | principles | programming)\b",
    # "That's not something I can help with."
    r"(?:this|that|it|image\ generation)(?:\ is|'s)\ (?:not\ something\ (?:that\ )?(?:i|we)\ can\b"
    r" | something\ (?:that\ )?(?:i|we)\ can(?:'t|\ ?not))",
)

_ZH_SORRY = "(?:很|非常|十分|真的|实在|實在)?(?:抱歉|对不起|對不起|遗憾|遺憾|不好意思)"
_ZH_CANNOT = "(?:无法|無法|不能|没法|沒法|没有?办法|沒有?辦法|没有能力|沒有能力|不可以|不便|拒绝|拒絕)"
_ZH_DO_IT = (
    "(?:直接|继续|繼續)?(?:[为為给給帮幫][您你])?(?:直接)?"
    "(?:帮助|幫助|协助|協助|满足|滿足|提供|生成|创建|創建|创作|創作|绘制|繪製|画图|畫圖|制作|製作|完成|处理|處理|回答|描述"
    "|执行|執行|查看|看到|讨论|討論|帮[您你]|幫[您你]|这样做|這樣做)"
)
_CHINESE = (
    # 抱歉，我无法生成图片 · 作为人工智能，我不能… · 我没有办法满足…
    rf"(?:{_ZH_SORRY}|[作身][为為]|我).{{0,40}}?{_ZH_CANNOT}{_ZH_DO_IT}",
    # 您的请求违反了内容政策
    rf"(?:{_ZH_SORRY}.{{0,10}}?)?(?:[这這该該此]|您的|你的).{{0,8}}?(?:请求|請求|要求|内容|內容).{{0,10}}?"
    "(?:[违違][反背]|不符合)",
)
_REFUSALS = tuple(re.compile(pattern, re.IGNORECASE | re.VERBOSE) for pattern in (*_ENGLISH, *_CHINESE))


def is_refusal(text: str) -> bool:
    """Whether a reply that should hold a prompt declines instead, in English or Chinese.

    Ask it of a prompt, or of a reply without one: a reply that says "I can't draw, but here is the prompt"
    and gives it in tags is no refusal.
    """
    plain = text.strip()[:_READ_CHARS].replace("’", "'")
    sentences = _SENTENCE_END.split(re.sub(r"[^\S\n]+", " ", plain), _SENTENCES)[:_SENTENCES]
    return any(pattern.match(sentence[:_SENTENCE_CHARS]) for sentence in sentences for pattern in _REFUSALS)

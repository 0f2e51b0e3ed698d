"""Recognition of editors and generators by the names of programs."""

import re

_EDITORS = re.compile(
    r"photoshop|lightroom|camera raw|\bgimp\b|affinity|pixelmator|snapseed|facetune|meitu|picsart"
    r"|capture one|darktable|rawtherapee|luminar|paint\.net|paintshop|\bcanva\b|polarr|\bvsco\b"
    r"|photoscape|\bfotor\b|pixlr|photopea|\bkrita\b|acorn|\bdxo\b|aurora hdr|figma|coreldraw",
    re.IGNORECASE,
)
# Patterns of the names that generators write, and their display names.
_GENERATORS = (
    (r"\bdall[-·.]?\s?e\b", "DALL·E"),
    (r"chatgpt|gpt-?4o|gpt-image|openai", "OpenAI"),
    (r"adobe firefly|\bfirefly\b", "Adobe Firefly"),
    (r"made with google ai|edited with google ai|google (generative )?ai|gemini|nano.?banana"
     r"|\bimagen\b", "Google AI"),
    (r"midjourney", "Midjourney"),
    (r"novelai", "NovelAI"),
    (r"invokeai", "InvokeAI"),
    (r"comfyui", "ComfyUI"),
    (r"fooocus", "Fooocus"),
    (r"swarmui|stableswarm", "SwarmUI"),
    (r"easy diffusion", "Easy Diffusion"),
    (r"draw things", "Draw Things"),
    (r"automatic1111|stable.?diffusion.?web.?ui|sd\.next", "Stable Diffusion web UI"),
    (r"stable.?diffusion|stability ai|dreamstudio|\bsdxl\b", "Stable Diffusion"),
    (r"black forest labs|\bflux\.?[12]\b", "FLUX"),
    (r"imagined with ai|meta ai", "Meta AI"),
    (r"bing image creator|microsoft designer|image creator from", "Microsoft Designer"),
    (r"\bgrok\b|\bxai\b", "Grok"),
    (r"ideogram", "Ideogram"),
    (r"leonardo\.?\s?ai", "Leonardo.Ai"),
    (r"recraft", "Recraft"),
    (r"\bkrea\b", "Krea"),
    (r"runway(ml)?\b", "Runway"),
    (r"seedream|jimeng|doubao|dreamina", "Seedream"),
    (r"qwen-?image|tongyi wanxiang", "Qwen-Image"),
    (r"hunyuan", "Hunyuan"),
    (r"nightcafe", "NightCafe"),
    (r"craiyon", "Craiyon"),
    (r"artbreeder", "Artbreeder"),
    (r"\breve\.?(art|ai)\b", "Reve"),
)  # fmt: skip
_GENERATOR = re.compile(
    "|".join(f"(?P<g{number}>{pattern})" for number, (pattern, _) in enumerate(_GENERATORS)),
    re.IGNORECASE,
)


def is_editor(program: str) -> bool:
    """Whether a program's name is that of an editor."""
    return bool(_EDITORS.search(program)) and generator(program) is None


def generator(program: str) -> str | None:
    """Display name of the generator in a program's name, a credit or an author; None if none."""
    found = _GENERATOR.search(program)
    if found is None or found.lastgroup is None:
        return None
    return _GENERATORS[int(found.lastgroup[1:])][1]

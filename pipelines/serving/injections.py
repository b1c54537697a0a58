"""Instructions to the model inside a user's text: known turns of phrase and the marks of chat templates.

These are well-known attacks and their variations, no proof against a new one; the suites' `injection_obedience_rate`
measures what a model does with those that get through.
"""

from __future__ import annotations

from pipelines.serving.detectors import Detector, compiled
from pipelines.serving.exchange import Action

GAP = r"[^a-z0-9]{1,4}"
WORDS = rf"(?:[a-z0-9]{{1,16}}{GAP})"
BEGIN, END = r"(?<![a-z0-9])", r"(?![a-z0-9])"
INSTRUCTIONS = (
    "(?:instructions?|directions?|directives?|prompts?|rules?|guidelines?|commands?|restrictions?|policy|policies)"
)
LIMITS = "(?:rules|restrictions|limits|limitations|filters|guidelines|censorship|safety)"
PATTERNS = (
    rf"{BEGIN}(?:ignore|disregard|forget|override|bypass|neglect|violate){GAP}{WORDS}{{0,5}}"
    rf"(?:previous|prior|above|earlier|preceding|system|safety|your|all|the|these|those){GAP}(?:{INSTRUCTIONS}|context){END}",
    rf"{BEGIN}(?:ignore|disregard|forget){GAP}(?:everything|all|anything|what){GAP}{WORDS}{{0,4}}"
    rf"(?:above|before|previously|said|told|so{GAP}far){END}",
    rf"{BEGIN}(?:reveal|show|print|repeat|output|tell|display|leak|give|write|what{GAP}(?:is|are)){GAP}{WORDS}{{0,5}}"
    rf"(?:system|developer|initial|hidden|secret|original){GAP}(?:{INSTRUCTIONS}|messages?){END}",
    rf"{BEGIN}(?:new|updated|real|actual|true){GAP}(?:system{GAP})?(?:instructions?|prompt|rules)\s{{0,2}}:",
    rf"{BEGIN}you{GAP}are{GAP}{WORDS}{{0,3}}"
    rf"(?:dan|jail{GAP}?broken|unrestricted|unfiltered|uncensored|(?:developer|god){GAP}mode){END}",
    rf"{BEGIN}do{GAP}anything{GAP}now{END}",
    rf"{BEGIN}(?:jailbreak|(?:developer|god|debug){GAP}mode){GAP}(?:is{GAP})?(?:enabled|on|activated){END}",
    rf"{BEGIN}(?:pretend|act|behave|respond|answer|reply){GAP}{WORDS}{{0,6}}(?:no|without){GAP}(?:any{GAP})?{LIMITS}{END}",
    r"<\|(?:im_start|im_end|system|user|assistant|endoftext|eot_id|begin_of_text|start_header_id|end_header_id)\|>",
    r"\[/?INST\]|<</?SYS>>|(?:^|\n)\s{0,3}#{1,4}\s{0,2}(?:system|instructions?)\s{0,2}:",
    rf"{BEGIN}(?:ignorieren?|vergiss|missachte|umgehe){GAP}{WORDS}{{0,5}}"
    rf"(?:anweisung(?:en)?|instruktion(?:en)?|regeln|befehle|vorgaben|systemprompt){END}",
    rf"{BEGIN}(?:ignorez|ignore|oubliez?){GAP}{WORDS}{{0,4}}(?:consignes?|instructions?{GAP}(?:precedentes?|anterieures?)){END}",
    rf"{BEGIN}(?:ignora|olvida){GAP}{WORDS}{{0,4}}(?:instrucciones|reglas|ordenes|istruzioni){END}",
)


def detectors(action: Action) -> list[Detector]:
    """Return what looks for instructions to the model."""
    return [Detector("injection", action, "", compiled(pattern)) for pattern in PATTERNS]

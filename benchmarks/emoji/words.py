"""The words of EmojiCIR: sentence templates of every family and the phrases that fill them.

This module does not know which emoji exist or which queries are made; `families.py` finds the pairs and
`build_queries.py` chooses among the templates. Every template has one `{}` for the phrase of the change.
"""

from __future__ import annotations

from typing import NamedTuple


class Templates(NamedTuple):
    """Sentences of one family. Training queries use only `trained`, the held-out splits use both."""

    trained: tuple[str, ...]
    unseen: tuple[str, ...]


TEMPLATES: dict[str, Templates] = {
    "skin_tone": Templates(
        (
            "the same {}", "this one, but {}", "identical, only {}", "{}", "same picture {}",
            "keep everything, but {}", "now {}", "exactly this {}",
        ),
        (
            "change nothing except the skin: {}", "I would like it {}", "could you show this {}?",
        ),
    ),
    "gender": Templates(
        (
            "the {} version of this", "the same, but {}", "same role and skin, {}", "now {}", "make it {}",
            "identical except that the figure is {}", "{} instead", "this one as a {} figure",
        ),
        (
            "swap the gender: {}", "I am looking for the {} counterpart", "show what it looks like when {}",
        ),
    ),
    "hair": Templates(
        (
            "the same {}", "this one {}", "same face {}", "same skin and gender, {}", "now {}", "but {}",
            "{} instead", "keep the face, only {}",
        ),
        (
            "after a visit to the hairdresser: {}", "I am looking for this face {}", "could it be {}?",
        ),
    ),
    "role": Templates(
        (
            "the same person {}", "this one, but {}", "keep the gender and the skin, but {}", "{} instead",
            "now {}", "same look, {}", "imagine them {}", "someone just like this {}",
        ),
        (
            "what would they look like {}?", "show that very person {}", "another life for this figure: {}",
        ),
    ),
    "expression": Templates(
        (
            "the same, but {}", "this one {}", "now {}", "{} instead", "same hand that drew it, {}",
            "change the look: {}", "but {}", "keep the style, only {}",
        ),
        (
            "what if the mood changes: {}", "I am looking for it {}", "show it {}",
        ),
    ),
    "colour": Templates(
        (
            "the same {}", "this one {}", "but {}", "{} instead", "now {}", "exactly this, only {}",
            "make it {}", "same drawing {}",
        ),
        (
            "could I have it {}?", "repaint or reshape it: {}", "I would rather have it {}",
        ),
    ),
    "clock": Templates(
        (
            "{}", "the same clock {}", "this clock, {}", "what it shows {}", "move the hands: {}",
            "the time {}", "now {}", "same dial {}",
        ),
        (
            "the hands as they would stand {}", "if you looked at it {}", "wind the clock: {}",
        ),
    ),
    "direction": Templates(
        (
            "the same, {}", "this one {}", "but {}", "now {}", "{} instead", "same drawing, {}",
            "keep it, only {}", "exactly this, {}",
        ),
        (
            "change where it is heading: {}", "I need it {}", "could you give me this {}?",
        ),
    ),
    "moon_phase": Templates(
        (
            "the moon {}", "the same moon {}", "{}", "what it looks like {}", "this moon, {}", "now {}",
            "this night's moon {}", "same moon, {}",
        ),
        (
            "follow the lunar cycle: {}", "how it would appear {}", "another page of the lunar calendar: {}",
        ),
    ),
    "style": Templates(
        (
            "the same thing {}", "this one {}", "same emoji, {}", "redrawn {}", "now {}",
            "keep the subject, but {}", "{} instead", "the same motif {}",
        ),
        (
            "another artist's take: {}", "I want this {}", "translate the artwork: {}",
        ),
    ),
}  # fmt: skip

FAMILIES = tuple(TEMPLATES)

TONE_PHRASES = {
    "light": "with light skin", "medium-light": "with medium-light skin", "medium": "with medium skin",
    "medium-dark": "with medium-dark skin", "dark": "with dark skin", "none": "in the default yellow",
}  # fmt: skip
COUPLE_TONE_PHRASES = {
    "light": "both with light skin", "medium-light": "both with medium-light skin",
    "medium": "both with medium skin", "medium-dark": "both with medium-dark skin",
    "dark": "both with dark skin", "none": "both in the default yellow",
}  # fmt: skip
TONE_STEPS = {
    1: "with skin one shade darker", 2: "with skin two shades darker",
    -1: "with skin one shade lighter", -2: "with skin two shades lighter",
}  # fmt: skip

GENDER_PHRASES = {"man": "male", "woman": "female", "person": "gender-neutral"}

HAIR_PHRASES = {
    ": red hair": "with red hair", ": curly hair": "with curly hair", ": white hair": "with white hair",
    ": bald": "with no hair at all", ": blond hair": "with blond hair", ": beard": "with a beard",
}  # fmt: skip

ROLE_PHRASES = {
    "health worker": "as a doctor or nurse", "student": "on graduation day",
    "teacher": "teaching at a blackboard", "judge": "as a judge in court", "farmer": "as a farmer",
    "cook": "as a chef in the kitchen", "mechanic": "as a mechanic with a wrench",
    "factory worker": "as a welder in a factory", "office worker": "as an office worker",
    "scientist": "as a scientist in the laboratory", "technologist": "working at a laptop",
    "singer": "as a rock singer", "artist": "as a painter with a palette", "pilot": "as an airline pilot",
    "astronaut": "as an astronaut", "firefighter": "as a firefighter",
    "police officer": "as a police officer", "detective": "as a detective", "guard": "as a royal guard",
    "construction worker": "as a construction worker", "crown": "wearing a crown",
    "wearing turban": "wearing a turban", "in tuxedo": "dressed in a tuxedo",
    "with veil": "with a bridal veil", "feeding baby": "feeding a baby", "superhero": "as a superhero",
    "supervillain": "as a supervillain", "mage": "as a wizard", "fairy": "as a fairy with wings",
    "vampire": "as a vampire", "mer": "with the tail of a fish", "elf": "as an elf",
    "claus": "dressed for Christmas", "getting massage": "having a head massage",
    "getting haircut": "having a haircut", "walking": "walking to the left", "standing": "just standing",
    "kneeling": "on their knees, facing left", "with white cane": "finding the way to the left with a cane",
    "in motorized wheelchair": "driving a motorized wheelchair to the left",
    "in manual wheelchair": "pushing a manual wheelchair to the left", "running": "running to the left",
    "climbing": "climbing a rock", "golfing": "playing golf", "surfing": "surfing a wave",
    "rowing boat": "rowing a boat", "swimming": "swimming", "bouncing ball": "bouncing a ball",
    "lifting weights": "lifting weights", "biking": "riding a bike on the road",
    "mountain biking": "riding a bike in the mountains", "cartwheeling": "turning a cartwheel",
    "playing water polo": "playing water polo", "playing handball": "playing handball",
    "juggling": "juggling", "in lotus position": "meditating cross-legged",
}  # fmt: skip

# Expressions of the body; these people are references and targets of the family `expression`.
GESTURE_PHRASES = {
    "frowning": "frowning", "gesturing NO": "with arms crossed in refusal",
    "gesturing OK": "with arms forming a circle overhead", "raising hand": "with one hand raised",
    "bowing": "bowing deeply", "facepalming": "with a palm against the face", "shrugging": "shrugging",
    "pouting": "sulking", "tipping hand": "holding out a flat palm beside the head",
}  # fmt: skip

# Faces whose look can be described so that no other face fits. Those that cannot (the five kinds of grin,
# the seven of frown) are references, but never targets of these phrases.
EXPRESSION_PHRASES = {
    "upside-down face": "turned on its head", "melting face": "melting into a puddle",
    "winking face": "giving a wink with the mouth closed",
    "smiling face with halo": "with an angel's ring overhead",
    "face with tears of joy": "upright and laughing until tears come",
    "cat with tears of joy": "upright and laughing until tears come",
    "rolling on the floor laughing": "tipped over sideways with laughter",
    "smiling face with hearts": "surrounded by little hearts",
    "smiling face with heart-eyes": "with hearts for eyes",
    "smiling cat with heart-eyes": "with hearts for eyes", "star-struck": "with stars for eyes",
    "face blowing a kiss": "sending a kiss with a small heart",
    "kissing face with closed eyes": "blushing with puckered lips",
    "kissing cat": "blushing with puckered lips", "smiling face with tear": "smiling with a single tear",
    "face savoring food": "licking the lips", "money-mouth face": "with banknotes or dollars on the mind",
    "smiling face with open hands": "offering a hug with both palms",
    "face with hand over mouth": "giggling behind a palm with closed eyes",
    "face with open eyes and hand over mouth": "gasping behind a palm, wide-eyed",
    "face with peeking eye": "peeping through the fingers",
    "shushing face": "asking for silence with one finger", "thinking face": "rubbing the chin in thought",
    "saluting face": "greeting like a soldier", "zipper-mouth face": "with the lips zipped",
    "face with raised eyebrow": "lifting one brow in doubt", "face without mouth": "with the mouth missing",
    "dotted line face": "fading into an outline of dots", "face in clouds": "lost in fog",
    "smirking face": "with a sly one-sided smile", "cat with wry smile": "with a sly one-sided smile",
    "face with rolling eyes": "looking upward in annoyance", "grimacing face": "baring clenched teeth",
    "face exhaling": "sighing out a puff of air", "lying face": "with a nose grown long from lies",
    "shaking face": "trembling so much that it blurs", "sleepy face": "drowsy with a bubble at the nose",
    "drooling face": "with saliva running down", "sleeping face": "fast asleep with floating letters",
    "face with medical mask": "wearing a surgical mask", "face with thermometer": "measuring a fever",
    "face with head-bandage": "with a wounded, wrapped forehead", "nauseated face": "turned green and queasy",
    "face vomiting": "throwing up", "sneezing face": "blowing the nose",
    "hot face": "red and sweating from the heat", "cold face": "frozen blue with icicles",
    "woozy face": "tipsy with a wavy mouth",
    "face with crossed-out eyes": "knocked out, eyes like the letter X",
    "face with spiral eyes": "hypnotised with whirling eyes",
    "exploding head": "with the mind blown to pieces", "cowboy hat face": "wearing a western hat",
    "partying face": "celebrating with a hat and a blower",
    "disguised face": "hidden behind fake glasses and moustache",
    "smiling face with sunglasses": "cool in dark shades", "nerd face": "geeky with buck teeth",
    "face with monocle": "inspecting through a single lens", "flushed face": "wide-eyed with deep red cheeks",
    "pleading face": "begging with puppy eyes", "face screaming in fear": "screaming, cheeks held in horror",
    "weary cat": "screaming, cheeks held in horror", "crying face": "shedding one sad tear",
    "crying cat": "shedding one sad tear", "loudly crying face": "bawling streams of tears",
    "face with steam from nose": "huffing from the nostrils",
    "face with symbols on mouth": "swearing behind a bar of symbols",
    "yawning face": "gaping from tiredness behind a hand",
    "downcast face with sweat": "downhearted with a cold bead on the brow",
}  # fmt: skip

# Pairs of faces that differ in one feature: the reference, the target, the feature. The reference determines
# which of the faces with that feature is meant.
FEATURES = (
    ("grinning face with big eyes", "grinning face with smiling eyes", "with happily curved eyes"),
    ("grinning cat", "grinning cat with smiling eyes", "with happily curved eyes"),
    ("grinning face with smiling eyes", "grinning face with big eyes", "with both eyes wide open"),
    ("grinning cat with smiling eyes", "grinning cat", "with both eyes wide open"),
    ("kissing face with smiling eyes", "kissing face", "with both eyes wide open"),
    ("face with hand over mouth", "face with open eyes and hand over mouth", "with both eyes wide open"),
    ("grinning face with smiling eyes", "grinning face with sweat", "with a drop of sweat"),
    ("pensive face", "downcast face with sweat", "with a drop of sweat"),
    ("fearful face", "anxious face with sweat", "with a drop of sweat"),
    ("winking face", "winking face with tongue", "with the tongue out"),
    ("slightly smiling face", "face with tongue", "with the tongue out"),
    ("grinning squinting face", "squinting face with tongue", "with the tongue out"),
    ("smiling face with smiling eyes", "smiling face with horns", "with the horns of a devil"),
    ("angry face", "angry face with horns", "with the horns of a devil"),
    ("smiling face with horns", "angry face with horns", "in a bad temper"),
    ("grinning cat", "pouting cat", "in a bad temper"),
    ("see-no-evil monkey", "hear-no-evil monkey", "covering the ears"),
    ("speak-no-evil monkey", "hear-no-evil monkey", "covering the ears"),
    ("hear-no-evil monkey", "see-no-evil monkey", "covering the eyes"),
    ("speak-no-evil monkey", "see-no-evil monkey", "covering the eyes"),
    ("see-no-evil monkey", "speak-no-evil monkey", "covering the mouth"),
    ("hear-no-evil monkey", "speak-no-evil monkey", "covering the mouth"),
)
# The cat that makes the same face.
CATS = {
    "grinning face with big eyes": "grinning cat",
    "grinning face with smiling eyes": "grinning cat with smiling eyes",
    "face with tears of joy": "cat with tears of joy",
    "smiling face with heart-eyes": "smiling cat with heart-eyes", "smirking face": "cat with wry smile",
    "kissing face with closed eyes": "kissing cat", "face screaming in fear": "weary cat",
    "crying face": "crying cat", "angry face": "pouting cat",
}  # fmt: skip
AS_CAT = "on a cat, with the same feeling"
AS_FACE = "on a round yellow head without ears, with the same feeling"

CLOCK_PHRASES = {
    1: "half an hour later", 2: "an hour later", 3: "an hour and a half later", 4: "two hours later",
    6: "three hours later", 8: "four hours later", 12: "six hours later", -1: "half an hour earlier",
    -2: "an hour earlier", -3: "an hour and a half earlier", -4: "two hours earlier",
    -6: "three hours earlier", -8: "four hours earlier",
}  # fmt: skip
MOON_PHRASES = {
    1: "one phase later", 2: "two phases later", 3: "three phases later", 4: "half a cycle later",
    5: "five phases later", -1: "one phase earlier", -2: "two phases earlier", -3: "three phases earlier",
    -4: "half a cycle earlier", -5: "five phases earlier",
}  # fmt: skip
MOON_MIRRORED, MOON_FACE, MOON_PLAIN = "lit from the other side", "with a face", "without a face"

TURN_PHRASES = {
    45: "turned clockwise by an eighth", 90: "turned clockwise by a quarter",
    135: "turned clockwise by three eighths", 180: "pointing the opposite way",
    225: "turned counter-clockwise by three eighths", 270: "turned counter-clockwise by a quarter",
    315: "turned counter-clockwise by an eighth",
}  # fmt: skip
POINTING_PHRASES = {
    0: "pointing up", 45: "pointing up and to the right", 90: "pointing to the right",
    135: "pointing down and to the right", 180: "pointing down", 225: "pointing down and to the left",
    270: "pointing to the left", 315: "pointing up and to the left",
}  # fmt: skip
FACING_PHRASES = {90: "facing right", 270: "facing left"}
FACING_OTHER_WAY = "facing the other way"

SHAPE_PHRASES = {
    "heart": "as a heart of the same colour", "circle": "as a solid circle of the same colour",
    "square": "as a large square of the same colour",
    "large diamond": "as a large diamond of the same colour", "book": "as a book of the same colour",
}  # fmt: skip

STYLE_PHRASES = {
    "noto": "in the style of Noto", "twemoji": "drawn flat, in the style of Twemoji",
    "fluent": "as a glossy 3D render",
}  # fmt: skip

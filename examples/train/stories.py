"""A small grammar of children's stories: endless text to train and to test the example model on.

A plot is a text with one beat per line and the alternatives of a beat separated by `` | ``. A story takes one
alternative of every beat and fills its fields. Every field is drawn once a story, so names, pronouns, objects and
places stay consistent from the first sentence to the moral. Same seed, same stories.
"""

import random
import re
from collections.abc import Iterator

GIRLS = ["Lily", "Mia", "Anna", "Rosie", "Lucy", "Zoe", "Ella", "Nora"]
BOYS = ["Tom", "Ben", "Max", "Sam", "Leo", "Tim", "Jack", "Finn"]
ANIMALS = ["fox", "rabbit", "bear", "mouse", "frog", "duck", "cat", "dog", "bird", "pig"]

SHE = {"he": "she", "him": "her", "his": "her", "He": "She", "His": "Her"}
HE = {"he": "he", "him": "him", "his": "his", "He": "He", "His": "His"}

# One value of each is drawn for a story.
CHOICES = {
    "adj": ["little", "kind", "happy", "brave", "shy", "funny", "clever"],
    "paladj": ["small", "friendly", "wise", "young", "gray", "quiet"],
    "colour": ["red", "blue", "green", "yellow", "pink", "white"],
    "toy": ["ball", "kite", "hat", "boat", "drum", "doll", "truck", "book"],
    "food": ["cake", "pie", "pear", "cookie", "sandwich", "peach"],
    "place": ["forest", "garden", "park", "river", "hill", "beach", "farm", "field"],
    "weather": ["sunny", "warm", "cold", "windy", "bright"],
    "family": ["mom", "dad", "sister", "brother", "grandma"],
    "treasure": ["cup", "plate", "lamp", "vase", "clock"],
    "trap": ["in the mud", "in a net", "in a deep hole", "under a log"],
    "tool": ["stick", "rope", "branch"],
    "plant": ["flower", "tree", "pumpkin", "rose"],
}

# One row of each is drawn for a story: its fields belong together.
ROWS = {
    ("skill", "skilled"): [
        ("climb the tall tree", "climbed the tall tree"),
        ("swim in the lake", "swam in the lake"),
        ("jump over the stream", "jumped over the stream"),
        ("walk into the dark cave", "walked into the dark cave"),
        ("ride the big bike", "rode the big bike"),
        ("sing for the village", "sang for the village"),
    ],
    ("made", "part", "need"): [
        ("kite", "paper", "string"),
        ("boat", "wood", "cloth"),
        ("swing", "wood", "rope"),
        ("crown", "paper", "glue"),
        ("blanket", "cloth", "string"),
    ],
    ("accident", "repair"): [
        ("it broke", "fixed it"),
        ("it fell in the mud", "washed it"),
        ("it fell in the water", "dried it in the sun"),
    ],
}

# Two different ones are drawn for a story: {spot} and {spot2}.
SPOTS = ["under a bush", "behind a tree", "in the tall grass", "under a rock", "near the pond", "on top of a log"]

OPENING = """
Once upon a time, there was a {adj} {kind} named {name}. | Once upon a time, there was a {adj} {kind}. \
{His} name was {name}. | Once upon a time, a {adj} {kind} named {name} lived near the {place}. | \
There once was a {adj} {kind} named {name}.
"""

PLOTS = {
    "lost": """
{name} had a {colour} {toy} and loved it very much. | {name} loved to play with a {colour} {toy}.
One {weather} day, {name} took the {toy} to the {place}. | One day, {he} went to the {place} with the {toy}.
But then the {toy} was gone! | {He} fell asleep, and when {he} woke up, the {toy} was gone.
A {paladj} {palkind} named {pal} came by and asked, "What is wrong?" | A {palkind} named {pal} heard {him} and came \
to help.
"I lost my {colour} {toy}," said {name}. | "I can not find my {colour} {toy}," {name} said.
They looked {spot}, but the {toy} was not there. | First they looked {spot}, but they did not see it.
Then they looked {spot2}, and there it was! | At last, {pal} found the {colour} {toy} {spot2}.
"Thank you, {pal}!" said {name} with a big smile. | {name} was so happy and gave {pal} a big hug.
From that day on, {name} and {pal} were best friends. | {name} learned that a good friend always helps.
""",
    "share": """
One {weather} day, {his} {family} gave {him} a sweet {food}. | One day, {name} made a big {food}.
Just then, a {paladj} {palkind} named {pal} came by. | Then {he} saw a {paladj} {palkind} named {pal}.
{pal} looked very hungry. | "I am so hungry," said {pal}.
{name} wanted to eat it all, but {he} felt sorry for {pal}. | {name} looked at the {food} and thought for a moment.
"We can share my {food}," said {name}. | "Come and sit with me. You can have half of my {food}," said {name}.
The next day, {pal} came back with a gift for {name}. It was a {colour} {toy}! | "Thank you, {name}. You are very \
kind," said {pal}.
{name} learned that it is good to share. | {name} was happy, because sharing is fun.
""",
    "brave": """
{name} wanted to {skill}, but {he} was afraid. | More than anything, {name} wanted to {skill}.
One {weather} day, {he} met a {palkind} named {pal}. | {He} had a friend, a {paladj} {palkind} named {pal}.
"I am too scared to {skill}," said {name}. | "I can not do it. It is too hard," {he} said.
"You can do it. I will stay with you," said {pal}. | "Do not be afraid. I will help you," said {pal}.
{name} took a deep breath and tried. | So {name} closed {his} eyes and tried.
It was hard, but {he} tried again and again. | It was hard, but {pal} said, "Try again!"
At last, {name} {skilled}! | Then {he} did it! {name} {skilled}!
{name} learned to be brave and never give up. | From that day on, {name} was not afraid any more.
""",
    "stuck": """
One {weather} day, {name} went for a walk to the {place}. | One day, {name} was playing near the {place}.
Suddenly, {he} heard a small voice. | Then {he} heard a loud cry.
It was a {paladj} {palkind} named {pal}, stuck {trap}. | A {palkind} named {pal} was stuck {trap}.
{name} ran and found a long {tool}. | "Do not worry," said {name}, and {he} found a strong {tool}.
{name} pulled and pulled, and at last {pal} was free. | {He} pulled very hard, and soon {pal} was free.
Later that day, it got dark, and {name} could not find the way home. | That night, {name} got lost in the dark.
But {pal} saw {him} and showed {him} the way. | {pal} came with a light and took {him} home.
{name} learned that being kind always comes back. | From that day on, {name} and {pal} were best friends.
""",
    "quarrel": """
{name} had a friend, a {paladj} {palkind} named {pal}. | {His} best friend was a {palkind} named {pal}.
One {weather} day, they found a {colour} {toy} {spot}. | One day, they saw a {colour} {toy} near the {place}.
"It is mine!" said {name}. | "I want to play with the {toy}," said {name}.
"No, it is mine! I saw it first," said {pal}. | "No, I want it," said {pal}.
They pulled and pulled, and {accident}. | They both pulled at the {toy}, and {accident}.
Soon {name} felt bad. "I am sorry, {pal}," {he} said. | "I am sorry," said {name}.
Together they took the {toy} and {repair}. | They picked up the {toy} and {repair}.
Then they took turns and played all day. | After that, they played with the {colour} {toy} together.
{name} and {pal} learned to take turns. | They learned that a friend is better than any toy.
""",
    "make": """
{name} wanted to make a {colour} {made} for {his} {family}. | One {weather} day, {name} wanted to make a {made} for \
{his} {family}.
{He} had some {part}, but {he} had no {need}. | {He} found some {part}, but {he} needed {need} too.
So {he} went to the {place} and met a {palkind} named {pal}. | So {name} went to see {his} friend {pal}, a {paladj} \
{palkind}.
"Do you have any {need}?" asked {name}. | "I need some {need} for my {made}," said {name}.
"Yes, I have a lot of {need}. Let me help you," said {pal}. | "Yes, I have some {need}. Can I help you?" asked {pal}.
They worked hard all day with the {part} and the {need}. | When the sun went down, the {made} was done.
{His} {family} saw the {made} and said, "It is so pretty!" | {name} gave the {made} to {his} {family}, who loved it.
{name} learned that work is more fun with a friend. | They all were very happy that night.
""",
    "truth": """
One {weather} day, {name} was playing with a {toy} in the house. | One day, {name} and {his} friend {pal} played with \
a {toy} in the house.
The {toy} hit the {colour} {treasure}, and the {treasure} fell and broke. | {name} ran too fast and broke the \
{colour} {treasure}.
{name} was scared and hid the {treasure} under the bed. | "Oh no! What will I do?" said {name}.
{His} friend {pal} said, "You must tell the truth." | "You should say that you are sorry," said {pal}.
{name} went to {his} {family} and said, "I broke it. I am sorry." | "I broke your {treasure}. I am very sorry," \
{he} told {his} {family}.
"Thank you for telling the truth," said {his} {family}. | {His} {family} was not angry and gave {him} a big hug.
{name} learned to always tell the truth. | From that day on, {name} always told the truth.
""",
    "seed": """
One {weather} day, {name} found a tiny seed near the {place}. | One day, {his} {family} gave {name} a tiny seed.
{He} put the seed in the ground {spot}. | {name} dug a hole {spot} and put the seed in it.
A {palkind} named {pal} came by and asked, "What are you doing?" | {He} told {his} friend {pal}, a {paladj} {palkind}, \
about the seed.
"That seed is too small to grow," said {pal}. | {pal} laughed and said, "It will never grow."
But {name} gave it water every day. | Every day, {name} came back with water.
Then one morning, there was a big {colour} {plant}! | At last, a pretty {colour} {plant} came up.
"Wow! You were right," said {pal}. | {pal} saw the {plant} and said, "It is so pretty!"
{name} learned that good things take time. | From that day on, {name} and {pal} took care of the {plant} together.
""",
}


def _beats(text: str) -> list[list[str]]:
    return [line.split(" | ") for line in text.strip().splitlines()]


_OPENING = _beats(OPENING)
_PLOTS = {name: _beats(text) for name, text in PLOTS.items()}


def _character(rng: random.Random) -> tuple[str, str, dict[str, str]]:
    """Name, kind and pronouns of a character: half of them children, half animals."""
    girl = rng.random() < 0.5
    kind = ("girl" if girl else "boy") if rng.random() < 0.5 else rng.choice(ANIMALS)
    return rng.choice(GIRLS if girl else BOYS), kind, SHE if girl else HE


def _fields(rng: random.Random) -> dict[str, str]:
    """One value for every field; hero and friend differ in name and in kind of animal."""
    name, kind, pronouns = _character(rng)
    pal, palkind, palpronouns = _character(rng)
    while pal == name or palkind == kind:
        pal, palkind, palpronouns = _character(rng)
    fields = {"name": name, "kind": kind, "pal": pal, "palkind": palkind, **pronouns}
    fields |= {"palhe": palpronouns["he"], "palhis": palpronouns["his"]}
    fields |= {field: rng.choice(values) for field, values in CHOICES.items()}
    for names, rows in ROWS.items():
        fields |= zip(names, rng.choice(rows), strict=True)
    fields["spot"], fields["spot2"] = rng.sample(SPOTS, 2)
    return fields


def story(rng: random.Random) -> str:
    """One story: a paragraph of about eleven sentences."""
    beats = _OPENING + _PLOTS[rng.choice(list(_PLOTS))]
    fields = _fields(rng)
    return " ".join(rng.choice(beat).format(**fields) for beat in beats)


def stories(seed: str) -> Iterator[str]:
    """Endless stories of a seed, the same on every machine."""
    rng = random.Random(seed)
    while True:
        yield story(rng)


def split_words(text: str) -> list[str]:
    """Words of a text in lower case, without punctuation."""
    return re.findall(r"[a-z']+", text.lower())


def words() -> set[str]:
    """Every word that a story can hold, in lower case."""
    texts = [re.sub(r"\{\w+\}", " ", text) for text in (OPENING, *PLOTS.values())]
    texts += GIRLS + BOYS + ANIMALS + SPOTS + ["girl boy", *SHE.values(), *HE.values()]
    texts += [value for values in CHOICES.values() for value in values]
    texts += [value for rows in ROWS.values() for row in rows for value in row]
    return {word for text in texts for word in split_words(text)}

"""Folds the wires that Yosys numbers into the expressions that use them, so that emitted Verilog reads as expressions.

Yosys writes one assignment for each cell; most of them feed one other expression only. Folded, the text is shorter
and simulators have fewer signals to schedule.
"""

import re
from collections import Counter

LONGEST = 100
"""Characters of an expression beyond which nothing more is folded into it."""

_NAME = r"(?:\\\S+|[A-Za-z_][\w$]*)"
_DECLARATION = re.compile(rf"^  (?:input|output|wire|reg) (signed )?(?:\[(\d+):(\d+)\] )?({_NAME}) *;$")
_ASSIGNMENT = re.compile(r"^  assign (_\d+_) = (.*);$")
_USES = [re.compile(pattern) for pattern in (
    r"^(  assign [^=]* = )(.*)(;)$",
    r"^( +if \()(.*)(\) [^ ].* <= \d+'[bdh]\w+;)$",
    r"^( +(?:else )?[^ ].* <= )(.*)(;)$",
)]
_NUMBERED = re.compile(r"(?<![\w$.'\\])_\d+_(?![\w$])(?! ?\[)")
_TOKEN = re.compile(
    rf"\s*({_NAME} ?(?:\[\d+(?::\d+)?\])?|\d+'s?[bdh][0-9a-fxz]+|\d+|[=!<>]=|&&|\|\||<<<?|>>>?|~[&|^]|\S)"
)
_SEALED = {"==", "!=", "<", "<=", ">", ">=", "&&", "||"}
_BITWISE = {"&", "|", "^"}
_REDUCTIONS = {"|", "&", "^", "!"}


def fold(text: str) -> str:
    """`text`, the Verilog of one module as Yosys writes it, with expressions in place of numbered wires.

    An expression takes the place of its wire only where both are worth the same in a context of any width: it has a
    width of its own (comparison, reduction, concatenation), or extends by zeros (and, or, exclusive or, multiplexer).
    """
    lines = text.split("\n")
    places = [_use(line) for line in lines]
    widths = dict(filter(None, map(_declared, lines)))
    mentions = Counter(re.findall(r"(?<![\w$])_\d+_(?![\w$])", text))
    whole = Counter(name for place in places if place for name in _NUMBERED.findall(place[1]))
    inner = {}
    for line in lines:
        # a wire that is declared, assigned and used once, there as a whole
        if (own := _ASSIGNMENT.match(line)) and mentions[own[1]] == 3 and whole[own[1]] == 1:
            expression = _foldable(own[2], widths, widths[own[1]][0])
            if expression:
                inner[own[1]] = expression
    folded, left = set(), {}

    def expanded(expression):
        room = LONGEST - len(expression)

        def place(match):
            nonlocal room
            name = match[0]
            if name not in inner:
                return name
            content = expanded(inner[name])
            if len(content) > room:
                left[name] = content
                return name
            room -= len(content)
            folded.add(name)
            return content if _is_primary(content) else f"({content})"

        return _NUMBERED.sub(place, expression)

    written = [line if place is None or (own := _ASSIGNMENT.match(line)) and own[1] in inner
               else place[0] + expanded(place[1]) + place[2] for line, place in zip(lines, places, strict=True)]
    return "\n".join(line for line in (_left(line, folded, left) for line in written) if line is not None)


def _left(line, folded, left):
    """A line after folding: None if its wire has gone, what is left of an expression for which there was no room."""
    if own := _ASSIGNMENT.match(line):
        if own[1] in folded:
            return None
        return f"  assign {own[1]} = {left[own[1]]};" if own[1] in left else line
    declared = _DECLARATION.match(line)
    return None if declared and declared[4] in folded else line


def _use(line):
    """(before, expression, after) of an assignment or a condition."""
    return next((match.groups() for match in (pattern.match(line) for pattern in _USES) if match), None)


def _declared(line):
    """(name, (width, signed)) of a declaration of anything but a memory."""
    if match := _DECLARATION.match(line):
        return match[4], (abs(int(match[2]) - int(match[3])) + 1 if match[2] else 1, bool(match[1]))
    return None


def _foldable(expression, widths, width):
    """An expression `width` bits wide in the form that may take its wire's place, or None.

    Yosys writes a primary, or one operator with primaries.
    """
    tokens = _TOKEN.findall(expression)
    if tokens[0] in _REDUCTIONS or tokens[0] == "~" and width == 1:
        operand, rest = _primary(tokens[1:], widths)
        if operand is None or rest or tokens[0] == "~" and operand != 1:
            return None
        return "!" + expression[1:] if tokens[0] == "~" else expression
    operands, operators = [], []
    while tokens:
        operand, tokens = _primary(tokens, widths)
        operands.append(operand)
        operators += tokens[:1]
        tokens = tokens[1:]
    if None in operands:
        return None
    if operators == ["?", ":"]:
        return expression if max(operands[1:]) == width else None
    if not operators or len(operators) == 1 and operators[0] in _BITWISE:
        return expression if max(operands) == width else None
    return expression if len(operators) == 1 and operators[0] in _SEALED else None


def _primary(tokens, widths):
    """(bits of the unsigned primary that `tokens` begin with, or None; the tokens after it)."""
    token, *rest = tokens or [""]
    if token == "{":
        total = 0
        while token != "}":
            bits, rest = _primary(rest, widths)
            if bits is None or not rest:
                return None, []
            total += bits
            token, *rest = rest
        return total, rest
    if constant := re.match(r"(\d+)'[bdh]", token):
        return int(constant[1]), rest
    name, select = re.fullmatch(r"(.*?) ?(?:\[([\d:]+)\])?", token).groups()
    if name not in widths:
        return None, []
    if select:
        high, _, low = select.partition(":")
        return int(high) - int(low or high) + 1, rest
    bits, signed = widths[name]
    return (None if signed else bits), rest


def _is_primary(expression):
    return re.fullmatch(rf"{_NAME} ?(\[[\d:]+\])?|\{{[^{{}}]*\}}|\d+'[bdh]\w+", expression) is not None

"""What all names in emitted Verilog must be."""

import re

from hwgen.emit.names import KEYWORDS

_USED = {
    "always", "assign", "begin", "case", "casez", "default", "else", "end", "endcase", "endgenerate", "endmodule",
    "for", "generate", "genvar", "if", "initial", "input", "integer", "localparam", "module", "output", "parameter",
    "posedge", "reg", "signed", "wire",
}
"""Words of the language that emitted Verilog says."""
_NO_NAMES = re.compile(r"\"[^\"]*\"|//.*|/\*.*?\*/|`\w+|\$[a-z]+|\d*'s?[bdh][0-9a-fxz]+", re.DOTALL | re.IGNORECASE)


def check_names(text):
    """Every identifier is plain and no keyword, and no two things of a module have one name."""
    assert "\\" not in text
    code = re.sub(r"//.*", "", text)
    code = _NO_NAMES.sub(" ", code)
    words = re.findall(r"[^\W\d][\w$]*|\$\S*", code)
    assert not [word for word in words if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", word)]
    assert set(words) & KEYWORDS <= _USED
    for module in re.findall(r"^module .*?^endmodule", code, re.DOTALL | re.MULTILINE):
        declared = re.findall(r"^  (?:wire|reg|integer) (?:signed )?(?:\[[^]]*\] )?(\w+)(?: \[[^]]*\])?;", module, re.M)
        declared += re.findall(r"^  (?!else\b|module\b)\w+ (\w+) \($", module, re.M)
        assert len(declared) == len(set(declared))

"""Plain identifiers for Verilog: no escapes, so that constraints, netlists and people can name everything."""

import re

_KEYWORDS = """
accept_on alias always always_comb always_ff always_latch and assert assign assume automatic before begin bind bins
binsof bit break buf bufif0 bufif1 byte case casex casez cell chandle checker class clocking cmos config const
constraint context continue cover covergroup coverpoint cross deassign default defparam design disable dist do edge
else end endcase endchecker endclass endclocking endconfig endfunction endgenerate endgroup endinterface endmodule
endpackage endprimitive endprogram endproperty endsequence endspecify endtable endtask enum event eventually expect
export extends extern final first_match for force foreach forever fork forkjoin function generate genvar global highz0
highz1 if iff ifnone ignore_bins illegal_bins implements implies import incdir include initial inout input inside
instance int integer interconnect interface intersect join join_any join_none large let liblist library local
localparam logic longint macromodule matches medium modport module nand negedge nettype new nexttime nmos nor
noshowcancelled not notif0 notif1 null or output package packed parameter pmos posedge primitive priority program
property protected pull0 pull1 pulldown pullup pulsestyle_ondetect pulsestyle_onevent pure rand randc randcase
randsequence rcmos real realtime ref reg reject_on release repeat restrict return rnmos rpmos rtran rtranif0 rtranif1
s_always s_eventually s_nexttime s_until s_until_with scalared sequence shortint shortreal showcancelled signed small
soft solve specify specparam static string strong strong0 strong1 struct super supply0 supply1 sync_accept_on
sync_reject_on table tagged task this throughout time timeprecision timeunit tran tranif0 tranif1 tri tri0 tri1 triand
trior trireg type typedef union unique unique0 unsigned until until_with untyped use uwire var vectored virtual void
wait wait_order wand weak weak0 weak1 while wildcard wire with within wor xnor xor
"""
KEYWORDS = frozenset(_KEYWORDS.split())
"""Of SystemVerilog (IEEE 1800-2017), which has all of Verilog-2005's."""

_WORD = re.compile(
    r'"(?:[^"\\]|\\.)*"|//.*'  # strings and comments
    r"|\.(?:\\(?P<port>\S+) ?|\w+)"  # of another module
    r"|\\(?P<escaped>\S+) ?"
    r"|(?<![\w$'])(?:(?P<dollar>[A-Za-z_]\w*\$[\w$]*) ?|(?P<plain>[A-Za-z_]\w*))", re.ASCII)
"""What may hold a name. Of one that is or was escaped the space that ended the escape is part."""


def plain(name: str) -> str:
    """The plain identifier next to `name`: `a[3]` is a_3, `a.b` a_b, `part$a` of a flattened part part__a."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        name = re.sub(r"\$+(?=[A-Za-z_])", "__", name)
        name = re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_")
    if not name or name[0].isdigit():
        name = f"n_{name}"
    return f"{name}_" if name in KEYWORDS else name


def with_plain_names(text: str) -> str:
    """`text`, the Verilog of one module, with every identifier plain; those that are plain already keep their names.

    Where two would have one name, the later gets a number: name, name_2, name_3.
    """
    words = [match.groupdict() for match in _WORD.finditer(text)]
    taken = {word["plain"] for word in words}
    names = {}
    for word in words:
        name = word["escaped"] or word["dollar"]
        if name and name not in names:
            names[name] = _free(plain(name), taken)
            taken.add(names[name])

    def renamed(match):
        if match["port"]:
            return f".{plain(match['port'])}"
        return names.get(match["escaped"] or match["dollar"], match[0])

    return _WORD.sub(renamed, text)


def _free(name, taken):
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free

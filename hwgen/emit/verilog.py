"""Amaranth components as plain Verilog-2005, one file per distinct module."""

import gc
import inspect
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from amaranth.back import rtlil
from amaranth.hdl import ClockSignal, Elaboratable, Fragment, Instance, ResetSignal, Value
from amaranth.lib.wiring import In

from hwgen.emit.fold import fold
from hwgen.emit.names import plain, with_plain_names
from sim_tb.workplace import scratch_folder

HEADER = "// Plain Verilog-2005. Registers have no initial value: hold rst high for one clock edge first.\n"

# Processes become multiplexers and flip-flops with synchronous reset, so no `always @*` (which Icarus 11 would not run
# at time 0) is left. Initial values go, as synthesis drops them: a missing reset then shows as X in Icarus.
_PASSES = """
proc
flatten -separator $
attrmap -remove init
opt_expr
opt_merge
opt_clean -purge
opt_dff -nodffe
opt_clean -purge
pmuxtree
memory_collect
memory_map -rom-only
select -set written t:$mem_v2 r:WR_PORTS>0 %i
setparam -set INIT 1'x @written
select -clear
opt_clean -purge
"""
_NO_CHECKS = "\nchformal -remove"
_RUNNER = """
import sys
from pyosys import libyosys
design = libyosys.Design()
for line in sys.stdin.read().splitlines():
    libyosys.run_pass(line, design)
"""
_ASSERT = re.compile(r'\$write\("(.*?)"\);\n +assert \(\S+\);')
"""What Yosys writes for a check, after `if (!condition)`."""
_NEEDLESS_ESCAPE = re.compile(r"\\([A-Za-z_]\w*\$[\w$]*) ", re.ASCII)
"""An escaped identifier that is legal without its escape, but for keywords."""


def module_name(component):
    """Name of a component's module: its class and configuration, e.g. `vector_unit_lanes4_vlen32`.

    The configuration is what the component keeps of its constructor's parameters where it is not the default.
    """
    kind = re.sub(r"(?<!^)(?=[A-Z])", "_", type(component).__name__).lower()
    values = []
    for key, parameter in inspect.signature(type(component).__init__).parameters.items():
        value = getattr(component, key, None)
        if value in (None, parameter.default):
            continue
        if isinstance(value, str):
            values.append(value)
        else:
            short = key.removesuffix("_bits").removesuffix("_address")
            values.append(f"{short}{int(value)}")
    return plain("_".join([kind, *values]))


def instance_of(component, name):
    """Instance of module `name` with the component's interface; `component` serves as the interface only."""
    component._MustUse__used = True  # stands for a module that is emitted elsewhere: it is used, though not elaborated
    ports = {"i_clk": ClockSignal(), "i_rst": ResetSignal()}
    for path, member, value in component.signature.flatten(component):
        prefix = "i_" if member.flow == In else "o_"
        ports[prefix + plain("__".join(map(str, path)))] = Value.cast(value)
    return Instance(name, **ports)


class Library:
    """Amaranth platform under which a component places its parts by name, so that each is emitted once."""

    def __init__(self, components):
        self._waiting, self._placed = dict(components), {}
        self.modules = {}
        """Module name -> elaborated component, of all components and the parts they place."""
        while self._waiting:
            name, component = self._waiting.popitem()
            self.modules[name] = _Elaborated(component, Fragment.get(component, self))

    def place(self, component):
        """Instance of the module of `component`, which joins the library."""
        name = module_name(component)
        same = self._placed.setdefault(name, component)
        if same.signature != component.signature:
            raise RuntimeError(f"Module {name} stands for two components with different ports")
        if same is component:
            self._waiting[name] = component
        return instance_of(component, name)


class _Elaborated(Elaboratable):
    """A component whose parts are known: its interface and its fragment."""

    def __init__(self, component, fragment):
        self.signature, self._component, self._fragment = component.signature, component, fragment
        self._MustUse__used = True  # in a worker

    def __getattr__(self, name):
        return getattr(self._component, name)

    def elaborate(self, platform):
        return self._fragment


def module_files(components, *, checks=False):
    """Verilog of all `components` (module name -> Component) and of the parts they place: {"NAME.v": text}.

    With `checks` their assertions become statements that print a message and `$stop` a simulation; without, nothing is
    left of them. Same components, same bytes; the order and number of components do not matter. Modules are converted
    in parallel.
    """
    global _modules, _passes
    _modules, _passes = Library(components).modules, _PASSES if checks else _NO_CHECKS + _PASSES
    try:
        # forked, as components cannot be sent; the parts placed last are the largest
        context, processes = multiprocessing.get_context("fork"), min(len(_modules), os.cpu_count())
        with scratch_folder() as scratch, context.Pool(processes, _start_worker) as pool:
            texts = dict(pool.imap_unordered(partial(_convert, scratch), reversed(_modules)))
    finally:
        _modules = {}
    return {f"{name}.v": texts[name] for name in sorted(texts)}


_modules, _passes = {}, ""
"""What forked workers convert, and how."""


def _start_worker():
    # an interrupt is the parent's business, which ends its workers, each with the Yosys that it waits for
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))
    gc.disable()


def _convert(scratch, name):
    text = _verilog(name, rtlil.convert(_modules[name], name=name, emit_src=False), scratch)
    # names last: what is folded depends on the length of expressions
    return name, with_plain_names(fold(_plain(text)))


def _verilog(name, module, scratch):
    """Verilog text of one RTLIL text."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        Path(folder, "in.il").write_text(module)
        script = f"read_rtlil in.il\n{_passes.strip()}\nwrite_verilog -noattr out.v"
        # a process of its own: Yosys numbers its objects from a counter that only a new process sets back
        run = subprocess.run([sys.executable, "-c", _RUNNER], input=script, cwd=folder, capture_output=True, text=True)
        if run.returncode:
            raise RuntimeError(f"Yosys failed on {name}: {(run.stdout + run.stderr)[-2000:]}")
        return Path(folder, "out.v").read_text()


def _plain(text):
    """Yosys's Verilog without its version line, needless escapes and vendor comments."""
    text = re.sub(r"\A/\*.*?\*/\n\n?", HEADER, text, flags=re.S)
    text = text.replace(" // synopsys parallel_case", "")
    text = _ASSERT.sub(r'begin $display("\1"); $stop; end', text)
    return _NEEDLESS_ESCAPE.sub(r"\1 ", text)

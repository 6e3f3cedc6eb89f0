// One router between neighbours that keep the credit protocol, held in every cycle to its laws.
//
// Arguments key=value: cycles (of each run), seed, mutant (number on the input of that name, 0: none).
// For each place of the mesh, idle pattern and back-pressure pattern one run, each from one cycle of reset; then one run
// for each way to break the protocol, which `fault` must report.
// Prints {"flits": N, "runs": N}, or {"error": "..."} at the first law that is broken and ends with status 1.
#include <array>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

#include "Vtop.h"
#include "verilated.h"

struct Field { int at, bits; };
struct Case { int x0, y0, x1, y1, host; };  // a destination
// of the router; DESTINATIONS; ROUTES[class][place][port][destination]: mask of outputs; FORKS[class]: carries multicast
#include "parameters.h"

constexpr int PORTS = 5, BYTES = FLIT_BITS / 8, WORDS = FLIT_BITS / 32;
enum { LOCAL, NORTH, EAST, SOUTH, WEST };
static const char* const NAMES[PORTS] = {"local", "north", "east", "south", "west"};
using Flit = std::array<uint32_t, WORDS>;

struct Random {
  uint64_t state;
  uint32_t next() {
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return uint32_t((z ^ (z >> 31)) >> 32);
  }
  int below(int n) { return int(uint64_t(next()) * unsigned(n) >> 32); }
  bool chance(int percent) { return below(100) < percent; }
};

struct Moving {  // a flit inside the router
  Flit data;
  bool head, last, several;
  int routes, length;  // outputs that its packet may take (several: takes), flits left that a multicast needs room for
  int case_;
};

struct Input {  // one channel of an input
  std::deque<Moving> held;
  int outputs = 0;  // that its packet has, 0 before its first flit has left
  std::array<int, PORTS> lanes{};  // channel of each of these outputs
  int left = 0, case_ = 0, length = 0;  // flits that its source still sends of a packet
  uint64_t served = 0;
};
struct Output { int held = 0; int owner = -1; };  // one channel: flits without a credit back, input * CHANNELS + channel

static std::string what;
struct Broken {};
[[noreturn]] static void fail(const std::string& text) { what = text; throw Broken(); }

class Bench {
 public:
  Bench(int mutant, uint64_t seed) : random{seed} {
    SET_MUTANT(mutant);
    connect();
  }
  void run(int place, int cycles, int idle, int rest);
  void flood(int at, int port, int channel);
  void stray_credit(int at, int port, int channel);
  void lost_packet(int at, int port, int channel, int to);
  uint64_t flits = 0, runs = 0;

 private:
  struct Port { CData *valid, *last, *vc, *credit; void* data; };
  std::array<Port, PORTS> in, out;
  std::array<std::array<Input, CHANNELS>, PORTS> inputs;
  std::array<std::array<Output, CHANNELS>, PORTS> outputs, before;  // before: at the start of the cycle
  std::array<std::array<uint64_t, PORTS>, PORTS> served;  // when each output served each input; one order if MULTICAST
  Vtop top;
  Random random;
  uint64_t cycle = 0, started = 0;
  int place = 0;

  void connect();
  void send(int port, int channel, int to);
  bool faults(int cycles);
  void reset(int at);
  void drive(int port, int idle);
  void settle() { top.clk = 0; top.eval(); }
  void tick() { top.clk = 1; top.eval(); cycle++; }
  void check();
  int leave(int port, int channel, std::array<bool, PORTS>& used);
  int ready(int port, int channel) const;
  int tree(int at, int port, int to) const;
  void put_route(Flit& flit, int port, int channel, int to) const;
  Flit onward(const Moving& flit, int channel, int output) const;
  int credits(int output, int channel) const { return DEPTH - before[output][channel].held; }
  int roomiest(int output, int channel_class) const;
  Flit random_flit() { Flit f; for (auto& word : f) word = random.next(); return f; }
  std::string name(int port, int channel) const {
    return std::string(NAMES[port]) + (CHANNELS > 1 ? " channel " + std::to_string(channel) : "");
  }
};

static void put(Flit& flit, Field field, int value) {
  for (int i = 0; i < field.bits; i++) {
    uint32_t& word = flit[(field.at + i) / 32];
    word = (word & ~(1u << (field.at + i) % 32)) | uint32_t(value >> i & 1) << (field.at + i) % 32;
  }
}

// What the header tells router `at` of its outputs: those of a packet to (0, 0) if it goes to the host.
int Bench::tree(int at, int port, int to) const {
  if (at < 0 || at >= WIDTH * HEIGHT) return 0;
  const int routes = ROUTES[sizeof FORKS - 1][at][port][to];  // a class that forks is the last
  return at == 0 && DESTINATIONS[to].host && routes ? 1 << LOCAL : routes;
}

// What the router before has found, of a packet of a class that forks; where it enters anything may stand there.
void Bench::put_route(Flit& flit, int port, int channel, int to) const {
  const bool enters = port == LOCAL || (port == WEST && place % WIDTH == 0);
  if (FORKS[CLASS_OF[channel]] && !enters) put(flit, ROUTE, tree(place, port, to));
}

// A flit as it leaves by an output: the first one of a packet that can fork tells the next router its outputs.
Flit Bench::onward(const Moving& flit, int channel, int output) const {
  Flit sent = flit.data;
  if (!flit.head || !FORKS[CLASS_OF[channel]]) return sent;
  const bool ends = output == LOCAL || (output == WEST && place % WIDTH == 0);
  const int next[PORTS] = {0, place - WIDTH, place + 1, place + WIDTH, place - 1};
  const int from[PORTS] = {LOCAL, SOUTH, WEST, NORTH, EAST};
  put(sent, ROUTE, ends ? 0 : tree(next[output], from[output], flit.case_));
  return sent;
}

static CData no_channel;
#if CHANNELS > 1
#define VC(link) &top.link##___05Fvc
#else
#define VC(link) &no_channel
#endif
// Verilator writes the second of two underscores as __05F
#define LINK(link) Port{&top.link##___05Fvalid, &top.link##___05Flast, VC(link), &top.link##___05Fcredit, &top.link##___05Fdata}
void Bench::connect() {
  in = {LINK(local_in), LINK(north_in), LINK(east_in), LINK(south_in), LINK(west_in)};
  out = {LINK(local_out), LINK(north_out), LINK(east_out), LINK(south_out), LINK(west_out)};
}

void Bench::reset(int at) {
  place = at;
  top.my_x = at % WIDTH, top.my_y = at / WIDTH, top.rst = 1;
  for (int p = 0; p < PORTS; p++) {
    *in[p].valid = random.chance(50), *in[p].last = random.chance(50), *out[p].credit = 0;
    Flit flit = random_flit();
    std::memcpy(in[p].data, flit.data(), BYTES);
  }
  settle(), tick();
  top.rst = 0;
  inputs = {}, outputs = {}, served = {};
  for (int p = 0; p < PORTS; p++) {
    *in[p].valid = 0;
    for (auto& order : served) order[p] = PORTS - 1 - p;  // at first the last goes first
    for (int c = 0; c < CHANNELS; c++) inputs[p][c].served = CHANNELS - 1 - c;
  }
  started = cycle;
}

// Maybe send a flit: of a packet under way or a new one, that may come to this router by this port.
void Bench::drive(int port, int idle) {
  *in[port].valid = 0;
  if (random.chance(idle)) return;
  const int channel = random.below(CHANNELS);
  Input& input = inputs[port][channel];
  if (int(input.held.size()) == DEPTH) return;
  const int (&routes)[CASES] = ROUTES[CLASS_OF[channel]][place][port];
  const bool head = !input.left;
  if (head) {
    int tries = 0;
    do input.case_ = random.below(CASES); while (!routes[input.case_] && ++tries < 400);
    if (!routes[input.case_]) return;
    const Case& c = DESTINATIONS[input.case_];
    const bool several = c.x0 != c.x1 || c.y0 != c.y1;
    input.length = input.left = 1 + random.below(several ? DEPTH : random.chance(70) ? 3 : 9);
  }
  const Case& c = DESTINATIONS[input.case_];
  Moving flit{random_flit(), head, input.left == 1, c.x0 != c.x1 || c.y0 != c.y1, routes[input.case_], 1, input.case_};
  if (head) {
    put(flit.data, X0, c.x0), put(flit.data, Y0, c.y0), put(flit.data, HOST, c.host);
    if (MULTICAST) {
      put(flit.data, X1, c.x1), put(flit.data, Y1, c.y1), put(flit.data, FLITS, flit.several ? input.length - 1 : 0);
      put_route(flit.data, port, channel, input.case_);
      if (flit.several) flit.length = input.length;
    }
  }
  input.left--;
  *in[port].valid = 1, *in[port].last = flit.last, *in[port].vc = channel;
  std::memcpy(in[port].data, flit.data.data(), BYTES);
  input.held.push_back(flit);
  flits++;
}

// Of a class's channels at an output the free one with most credits, the lowest of several; -1: none is free.
int Bench::roomiest(int output, int channel_class) const {
  int best = -1;
  for (int c = 0; c < CHANNELS; c++)
    if (CLASS_OF[c] == channel_class && before[output][c].owner < 0 && (best < 0 || credits(output, c) > credits(output, best)))
      best = c;
  return best;
}

// Outputs that the flit at the front of an input's channel could take in this cycle if it were alone: of those that its
// packet may take where there is most room; of a multicast all or none.
int Bench::ready(int port, int channel) const {
  const Input& input = inputs[port][channel];
  const Moving& flit = input.held.front();
  const int all = flit.head ? flit.routes : input.outputs, needed = flit.several && flit.head ? flit.length : 1;
  int mask = 0, most = 0;
  for (int o = 0; o < PORTS; o++) {
    if (!(all >> o & 1)) continue;
    const int lane = flit.head ? roomiest(o, CLASS_OF[channel]) : input.lanes[o];
    const int room = lane < 0 ? 0 : credits(o, lane);
    if (room < needed || (!flit.several && room < most)) continue;
    if (!flit.several && room > most) mask = 0;
    mask |= 1 << o, most = room;
  }
  return flit.several && mask != all ? 0 : mask;
}

// The front flit of an input's channel has left: it must be at each of its outputs, which no other flit uses. Returns these.
int Bench::leave(int port, int channel, std::array<bool, PORTS>& used) {
  Input& input = inputs[port][channel];
  const Moving flit = input.held.front();
  int seen = 0;
  for (int o = 0; o < PORTS; o++) {
    if (!*out[o].valid || used[o] || std::memcmp(out[o].data, onward(flit, channel, o).data(), BYTES)) continue;
    used[o] = true, seen |= 1 << o;
    if (*out[o].last != flit.last) fail(name(port, channel) + ": the end of a packet is lost or new at " + NAMES[o]);
    const int lane = CHANNELS > 1 ? *out[o].vc : 0;
    if (lane >= CHANNELS || CLASS_OF[lane] != CLASS_OF[channel]) fail(name(port, channel) + ": a packet leaves its class");
    Output& output = outputs[o][lane];
    const int self = port * CHANNELS + channel;
    if (flit.head ? output.owner >= 0 : output.owner != self || input.lanes[o] != lane)
      fail(name(port, channel) + ": packets mix at " + NAMES[o]);
    if (flit.head && lane != roomiest(o, CLASS_OF[channel])) fail(name(port, channel) + ": not the channel with most room");
    if (credits(o, lane) < 1) fail(name(port, channel) + ": a flit without a credit at " + NAMES[o]);
    output.held++, input.lanes[o] = lane;
    output.owner = flit.last ? -1 : self;
  }
  const bool one = seen && !(seen & (seen - 1));
  if (flit.head ? (flit.several ? seen != flit.routes : !one || (seen & ~flit.routes)) : seen != input.outputs)
    fail(name(port, channel) + ": a flit is lost or goes elsewhere");
  input.outputs = flit.last ? 0 : seen;
  input.held.pop_front();
  return seen;
}

void Bench::check() {
  if (top.fault) fail("a fault that is none");
  before = outputs;
  std::array<std::array<int, CHANNELS>, PORTS> able{};
  std::array<int, PORTS> popped, wanted{}, chosen;
  popped.fill(-1), chosen.fill(-1);
  for (int p = 0; p < PORTS; p++)
    for (int c = 0; c < CHANNELS; c++) {
      // the last flit of `held` may have come only in this cycle
      const Input& input = inputs[p][c];
      const bool fresh = *in[p].valid && *in[p].vc == c;
      const bool there = int(input.held.size()) > int(fresh);
      if (there) able[p][c] = ready(p, c);
      if (able[p][c] && (chosen[p] < 0 || input.served < inputs[p][chosen[p]].served)) chosen[p] = c;
      if (!(*in[p].credit >> c & 1)) continue;
      if (!there) fail(name(p, c) + ": a credit for no flit");
      if (popped[p] >= 0) fail(name(p, c) + ": two flits leave one input");
      popped[p] = c;
    }
  std::array<bool, PORTS> used{};
  std::array<int, PORTS> taken{};
  for (int p = 0; p < PORTS; p++)
    if (chosen[p] >= 0) wanted[p] = able[p][chosen[p]];
  for (int p = 0; p < PORTS; p++)
    if (popped[p] >= 0) {
      if (popped[p] != chosen[p]) fail(name(p, popped[p]) + ": goes before a channel served less recently, or without room");
      taken[p] = leave(p, popped[p], used);
      if (taken[p] & ~wanted[p]) fail(name(p, popped[p]) + ": a flit goes where there is less room");
    }
  for (int o = 0; o < PORTS; o++)
    if (*out[o].valid && !used[o]) fail(std::string("a flit from nowhere at ") + NAMES[o]);
  // the input served least recently goes first
  for (int p = 0; p < PORTS; p++) {
    bool yields = false;
    for (int q = 0; q < PORTS; q++)
      for (int o = 0; o < PORTS; o++) {
        if (chosen[q] < 0 || served[o][q] >= served[o][p] || !(wanted[p] >> o & 1)) continue;
        yields |= (MULTICAST ? wanted[q] : taken[q]) >> o & 1;
        // where packets have a choice, the one that was first may have gone elsewhere
        if (!ADAPTIVE && wanted[q] & taken[p] & 1 << o)
          fail(std::string(NAMES[p]) + ": goes before an input served less recently");
      }
    if (chosen[p] >= 0 && popped[p] < 0 && !yields) fail(name(p, chosen[p]) + ": a flit rests that could go");
  }
  for (int p = 0; p < PORTS; p++)
    if (popped[p] >= 0) inputs[p][popped[p]].served = (cycle + 1) * CHANNELS;
  // inputs served together keep their order
  for (int o = 0; o < PORTS; o++) {
    const auto order = served[o];
    const auto takes = [&](int p) { return MULTICAST ? popped[p] >= 0 : bool(taken[p] >> o & 1); };
    for (int p = 0; p < PORTS; p++)
      if (takes(p)) {
        served[o][p] = (cycle - started + 1) * PORTS;
        for (int q = 0; q < PORTS; q++) served[o][p] += takes(q) && order[q] < order[p];
      }
  }
}

void Bench::run(int at, int cycles, int idle, int rest) {
  reset(at);
  runs++;
  const int spell = 1 + random.below(12);
  bool asleep[PORTS] = {}, blocked[PORTS] = {};
  for (int i = 0; i < cycles; i++) {
    const bool draining = i > cycles * 9 / 10;
    for (int p = 0; p < PORTS; p++) {
      if (i % spell == 0) asleep[p] = random.chance(idle), blocked[p] = random.chance(rest);
      drive(p, draining && !inputs[p][0].left ? 100 : asleep[p] ? 90 : idle / 4);
      *out[p].credit = 0;
      const int c = random.below(CHANNELS);
      if (outputs[p][c].held && (draining || !random.chance(blocked[p] ? 95 : rest / 4)))
        *out[p].credit = CData(1 << c), outputs[p][c].held--;
    }
    settle();
    // a credit that comes in this cycle counts from the next
    for (int p = 0; p < PORTS; p++)
      for (int c = 0; c < CHANNELS; c++) outputs[p][c].held += *out[p].credit >> c & 1;
    check();
    for (int p = 0; p < PORTS; p++)
      for (int c = 0; c < CHANNELS; c++) outputs[p][c].held -= *out[p].credit >> c & 1;
    tick();
  }
}

// Send a packet of one flit.
void Bench::send(int port, int channel, int to) {
  Flit flit = random_flit();
  const Case& c = DESTINATIONS[to];
  put(flit, X0, c.x0), put(flit, Y0, c.y0), put(flit, HOST, c.host);
  put(flit, X1, c.x1), put(flit, Y1, c.y1), put(flit, FLITS, 0), put_route(flit, port, channel, to);
  *in[port].valid = 1, *in[port].last = 1, *in[port].vc = channel;
  std::memcpy(in[port].data, flit.data(), BYTES);
  settle(), tick();
  *in[port].valid = 0;
}

bool Bench::faults(int cycles) {
  bool seen = false;
  while (cycles--) settle(), seen |= top.fault, tick();
  return seen;
}

// Flits without a credit: `fault` comes once the buffers behind the router's outputs and its own are full.
void Bench::flood(int at, int port, int channel) {
  const int (&routes)[CASES] = ROUTES[CLASS_OF[channel]][at][port];
  int to = 0;
  while (to < CASES && !routes[to]) to++;
  if (to == CASES) return;
  reset(at), runs++;
  for (int i = 0; i < DEPTH; i++) send(port, channel, to);
  if (faults(3)) fail(name(port, channel) + ": a fault although the buffer holds what came");
  for (int i = 0; i < (2 * CHANNELS + 1) * DEPTH; i++) send(port, channel, to);
  if (!faults(3)) fail(name(port, channel) + ": no fault although flits have come without a credit");
}

// A credit for a flit that was never sent.
void Bench::stray_credit(int at, int port, int channel) {
  reset(at), runs++;
  if (faults(2)) fail("a fault after reset");
  *out[port].credit = CData(1 << channel);
  settle(), tick();
  *out[port].credit = 0;
  if (!faults(3)) fail(name(port, channel) + ": no fault although a credit came that was not out");
}

// A packet that may never come here: it leaves somewhere, or `fault` tells of it.
void Bench::lost_packet(int at, int port, int channel, int to) {
  if (ROUTES[CLASS_OF[channel]][at][port][to]) return;
  reset(at), runs++;
  send(port, channel, to);
  settle();
  const bool leaves = *in[port].credit >> channel & 1;
  tick();
  if (faults(2) == leaves) fail(name(port, channel) + ": a packet without a route is kept, without a fault");
}

int main(int count, char** arguments) {
  int cycles = 400, mutant = 0;
  uint64_t seed = 0;
  for (int i = 1; i < count; i++) {
    const std::string text = arguments[i], key = text.substr(0, text.find('=')), value = text.substr(key.size() + 1);
    if (key == "cycles") cycles = std::atoi(value.c_str());
    if (key == "mutant") mutant = std::atoi(value.c_str());
    if (key == "seed") seed = std::strtoull(value.c_str(), nullptr, 10);
  }
  Verilated::randReset(2);
  Verilated::randSeed(int(seed % 1000000) + 1);
  Bench bench(mutant, seed);
  try {
    for (int pattern = 0; pattern < 9; pattern++)
      for (int place = 0; place < WIDTH * HEIGHT; place++)
        bench.run(place, cycles, (pattern % 3) * 30, (pattern / 3) * 30);
    for (int place = 0; place < WIDTH * HEIGHT; place++)
      for (int port = 0; port < PORTS; port++)
        for (int channel = 0; channel < CHANNELS; channel++) {
          bench.flood(place, port, channel), bench.stray_credit(place, port, channel);
          for (int to = 0; to < CASES; to++) bench.lost_packet(place, port, channel, to);
        }
  } catch (Broken&) {
    std::printf("{\"error\": \"run %" PRIu64 ": %s\"}\n", bench.runs, what.c_str());
    return 1;
  }
  std::printf("{\"flits\": %" PRIu64 ", \"runs\": %" PRIu64 "}\n", bench.flits, bench.runs);
  return 0;
}

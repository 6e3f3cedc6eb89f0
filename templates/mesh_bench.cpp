// Traffic, sinks and a scoreboard at the local ports of a mesh of routers.
//
// Arguments key=value:
//   pattern   uniform, transpose, bit-complement, hotspot, neighbour, all-gather (one multicast to the whole mesh),
//             mixed (random lengths, destinations and rectangles),
//             gather-multicast, gather-unicast (every node sends `flits` flits to all, once, from cycle 0)
//   load      flits that arrive per sending node and cycle if all are accepted; Bernoulli arrivals of packets
//   flits     of a packet, header included (of a message in gather-*)
//   piece     flits of a packet at most, in gather-multicast
//   warm, cycles, drain   cycles before and of the window; drain=0 ends with the window
//   idle, backpressure, spell   chance that a source or sink rests for a spell, and its longest length
//   seed; break, at       drop, corrupt, repeat or misdeliver arriving flit number `at`
// Prints one JSON object, {"error": ...} at the first thing wrong, and then ends with status 1.
#include <algorithm>
#include <array>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "Vtop.h"
#include "verilated.h"

struct Field { int at, bits; };
#include "parameters.h"  // of the mesh, and which virtual channels a packet may enter on

constexpr int NODES = WIDTH * HEIGHT, WORDS = FLIT_BITS / 32, BYTES = FLIT_BITS / 8;
constexpr int PATIENCE = 10000;   // cycles without any arrival after which packets count as stuck
constexpr int LENGTH_BITS = 5;
using Flit = std::array<uint32_t, WORDS>;

static uint64_t mix(uint64_t z) {
  z += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

struct Random {
  uint64_t state;
  uint64_t next() { return mix(state++); }
  uint32_t below(uint32_t n) { return uint32_t((next() >> 32) * n >> 32); }
  bool chance(double p) { return double(next() >> 11) < p * 9007199254740992.0; }
};

[[noreturn]] static void fail(uint64_t cycle, const std::string& what) {
  std::printf("{\"error\": \"cycle %" PRIu64 ": %s\"}\n", cycle, what.c_str());
  std::exit(1);
}

// Ports are vectors; bit or byte i of one is bit or byte i of its memory (on little-endian machines).
template <class Port> uint8_t* bytes(Port& port) { return reinterpret_cast<uint8_t*>(&port); }
template <class Port> bool bit(Port& port, int i) { return bytes(port)[i / 8] >> i % 8 & 1; }
template <class Port> void set(Port& port, int i, bool value) {
  uint8_t& byte = bytes(port)[i / 8];
  byte = uint8_t((byte & ~(1 << i % 8)) | int(value) << i % 8);
}

static void put(Flit& flit, Field field, uint32_t value) {
  for (int i = 0; i < field.bits; i++) {
    uint32_t& word = flit[(field.at + i) / 32];
    const int at = (field.at + i) % 32;
    word = (word & ~(1u << at)) | (value >> i & 1) << at;
  }
}
static uint32_t get(const Flit& flit, Field field) {
  uint32_t value = 0;
  for (int i = 0; i < field.bits; i++) value |= (flit[(field.at + i) / 32] >> (field.at + i) % 32 & 1) << i;
  return value;
}

struct Packet {
  uint64_t created = 0;
  int length = 1, x0 = 0, y0 = 0, x1 = 0, y1 = 0, left = 0;  // left: nodes that still wait for it
  uint32_t channels = 0;                                      // its class, a bit for each virtual channel
  bool started = false;
  std::vector<bool> got;                                      // by node, multicast only
  bool several() const { return x0 != x1 || y0 != y1; }
  int nodes() const { return (x1 - x0 + 1) * (y1 - y0 + 1); }
  bool covers(int node) const {
    const int x = node % WIDTH, y = node / WIDTH;
    return x0 <= x && x <= x1 && y0 <= y && y <= y1;
  }
};

// Every bit that routers do not read tells source, number and place in the packet, or is random but known from these.
constexpr Field header_source{ROUTING_BITS, SOURCE_BITS}, header_number{ROUTING_BITS + SOURCE_BITS, NUMBER_BITS};
static Flit flit_of(const Packet& packet, int source, uint32_t number, int index) {
  Flit flit;
  for (int i = 0; i < WORDS; i++)
    flit[i] = uint32_t(mix(mix(uint64_t(source) << 40 | uint64_t(number) << 8 | unsigned(index)) + unsigned(i)));
  if (index) {
    put(flit, {0, SOURCE_BITS}, source);
    put(flit, {SOURCE_BITS, LENGTH_BITS}, index);
    put(flit, {SOURCE_BITS + LENGTH_BITS, NUMBER_BITS}, number);
    return flit;
  }
  put(flit, X0, packet.x0), put(flit, X1, packet.x1), put(flit, Y0, packet.y0), put(flit, Y1, packet.y1);
  put(flit, HOST, 0), put(flit, FLITS, packet.several() ? packet.length - 1 : 0), put(flit, ROUTE, 0);
  put(flit, header_source, source), put(flit, header_number, number);
  return flit;
}

// Awake, or at rest for a random spell.
struct Spells {
  int left = 0;
  bool rests = false;
  bool step(Random& random, double chance, int longest) {
    if (chance <= 0) return false;
    if (left-- <= 0) left = int(random.below(longest)), rests = random.chance(chance);
    return rests;
  }
};

struct Channel {  // of a source: the packet under way
  bool busy = false;
  uint32_t number = 0;
  int index = 0, credits = DEPTH;
};

struct Source {
  std::deque<Packet> packets;  // created and not yet arrived everywhere; the first is number `base`
  uint32_t base = 0, next = 0;  // next: number of the first that has not been started
  std::array<Channel, CHANNELS> channels;
  Spells spells;
  uint32_t end() const { return base + uint32_t(packets.size()); }
  Packet& at(uint32_t number) { return packets[number - base]; }
};

struct Arrival {  // of a sink, in one virtual channel
  bool busy = false;
  int source = 0, index = 0, held = 0;
  uint32_t number = 0;
};

struct Sink {
  std::array<Arrival, CHANNELS> channels;
  Spells spells;
  int turn = 0;
};

struct Settings {
  std::string pattern = "uniform", broken;
  double load = 0.1, idle = 0, backpressure = 0;
  int flits = 1, piece = DEPTH, spell = 16;
  uint64_t warm = 1000, cycles = 10000, drain = 1, seed = 0, at = 1000;
};

class Bench {
 public:
  explicit Bench(const Settings& settings) : s(settings), chance{mix(settings.seed)}, rest{mix(settings.seed + 1)} {
    if (CHECK_ORDER) latest.assign(size_t(NODES) * NODES, {});
  }
  void run();

 private:
  void reset();
  void create(int source);
  void start(int source, Packet packet);
  bool choose(int source, Packet& packet);
  void gather();
  void drive(int node);
  void sample(int node);
  void arrive(int node, int channel, Flit flit, bool last);
  void begin(int node, int channel, const Flit& flit);
  void cycle_once();
  void finish();
  void report(uint64_t completion);
  bool in_window(uint64_t when) const { return when >= s.warm && when < s.warm + s.cycles; }
  std::string place(int node) const { return std::to_string(node % WIDTH) + "," + std::to_string(node / WIDTH); }

  const Settings s;
  Random chance, rest;
  Vtop top;
  std::array<Source, NODES> sources;
  std::array<Sink, NODES> sinks;
  // number + 1 of the latest packet that each node had from each source, by its lowest channel
  std::vector<std::array<uint32_t, CHANNELS>> latest;
  std::vector<uint32_t> latencies;
  uint64_t cycle = 0, last_arrival = 0, waiting = 0, arrived_flits = 0, offered = 0, accepted = 0, packets = 0;
};

void Bench::start(int source, Packet packet) {
  packet.created = cycle;
  packet.left = packet.nodes();
  if (packet.several()) {
    packet.got.assign(NODES, false);
    packet.channels = MULTICAST_CLASS;
  } else {
    constexpr int classes = sizeof UNICAST_CLASSES / sizeof *UNICAST_CLASSES;
    packet.channels = UNICAST_CLASSES[classes > 1 ? chance.below(classes) : 0];
  }
  if (in_window(cycle)) offered += uint64_t(packet.length) * packet.left;
  waiting += packet.left, packets++;
  sources[source].packets.push_back(std::move(packet));
}

// The destination of a new packet; false where the pattern has none for this source.
bool Bench::choose(int source, Packet& packet) {
  const int x = source % WIDTH, y = source / WIDTH;
  int to = source;
  packet.length = s.flits;
  if (s.pattern == "all-gather") {
    packet.x1 = WIDTH - 1, packet.y1 = HEIGHT - 1;
    return true;
  }
  if (s.pattern == "mixed") {
    if (MULTICAST && NODES > 1 && chance.below(4) == 0) {
      int a = int(chance.below(WIDTH)), b = int(chance.below(WIDTH)), c = int(chance.below(HEIGHT)),
          d = int(chance.below(HEIGHT));
      packet.x0 = std::min(a, b), packet.x1 = std::max(a, b), packet.y0 = std::min(c, d), packet.y1 = std::max(c, d);
      packet.length = 1 + int(chance.below(packet.several() ? DEPTH : LONGEST));
      return true;
    }
    packet.length = 1 + int(chance.below(LONGEST));
    to = int(chance.below(NODES));
  } else if (s.pattern == "transpose") {
    to = x * WIDTH + y;
  } else if (s.pattern == "bit-complement") {
    to = NODES - 1 - source;
  } else if (s.pattern == "neighbour") {
    int near[4], count = 0;
    if (x) near[count++] = source - 1;
    if (y) near[count++] = source - WIDTH;
    if (x < WIDTH - 1) near[count++] = source + 1;
    if (y < HEIGHT - 1) near[count++] = source + WIDTH;
    to = near[chance.below(count)];
  } else {
    const int hot = HEIGHT / 2 * WIDTH + WIDTH / 2;
    to = (source + 1 + int(chance.below(NODES - 1))) % NODES;
    if (s.pattern == "hotspot" && source != hot && chance.below(10) == 0) to = hot;
  }
  packet.x0 = packet.x1 = to % WIDTH, packet.y0 = packet.y1 = to / WIDTH;
  return to != source || s.pattern == "mixed";
}

void Bench::create(int source) {
  double length = s.pattern == "mixed" ? (1 + LONGEST) / 2.0 : s.flits;
  if (s.pattern == "all-gather") length *= NODES;
  Packet packet;
  if (chance.chance(s.load / length) && choose(source, packet)) start(source, packet);
}

void Bench::gather() {
  const bool multicast = s.pattern == "gather-multicast";
  const int longest = multicast ? s.piece : LONGEST;
  for (int source = 0; source < NODES; source++)
    for (int k = 1; k < (multicast ? 2 : NODES); k++)
      for (int left = s.flits; left > 0; left -= longest) {
        const int to = (source + k) % NODES;
        Packet packet;
        packet.length = std::min(left, longest);
        packet.x0 = packet.x1 = to % WIDTH, packet.y0 = packet.y1 = to / WIDTH;
        if (multicast) packet.x0 = packet.y0 = 0, packet.x1 = WIDTH - 1, packet.y1 = HEIGHT - 1;
        start(source, packet);
      }
}

// Put what a node sends and gives back in this cycle on its port.
void Bench::drive(int node) {
  Source& source = sources[node];
  int chosen = -1;
  if (!source.spells.step(rest, s.idle, s.spell)) {
    for (int c = 0; c < CHANNELS; c++)  // a packet under way goes before a new one
      if (source.channels[c].busy && source.channels[c].credits) chosen = c;
    if (chosen < 0 && source.next != source.end())
      for (int c = 0; c < CHANNELS; c++) {
        const Channel& channel = source.channels[c];
        if (!channel.busy && channel.credits && source.at(source.next).channels >> c & 1 &&
            (chosen < 0 || channel.credits > source.channels[chosen].credits))
          chosen = c;
      }
  }
  set(top.in_valid, node, chosen >= 0);
  if (chosen >= 0) {
    Channel& channel = source.channels[chosen];
    if (!channel.busy) {
      channel.busy = true, channel.number = source.next++, channel.index = 0;
      source.at(channel.number).started = true;
    }
    const Packet& packet = source.at(channel.number);
    const Flit flit = flit_of(packet, node, channel.number, channel.index);
    std::memcpy(bytes(top.in_data) + node * BYTES, flit.data(), BYTES);
    channel.credits--, channel.index++;
    channel.busy = channel.index < packet.length;
    set(top.in_last, node, !channel.busy);
    for (int i = 0; i < VC_BITS; i++) set(top.in_vc, node * VC_BITS + i, chosen >> i & 1);
  }
  Sink& sink = sinks[node];
  const bool rests = sink.spells.step(rest, s.backpressure, s.spell);
  int freed = -1;
  for (int i = 0; i < CHANNELS && !rests && freed < 0; i++)
    if (sink.channels[(sink.turn + i) % CHANNELS].held) freed = (sink.turn + i) % CHANNELS;
  for (int c = 0; c < CHANNELS; c++) set(top.out_credit, node * CHANNELS + c, c == freed);
  if (freed >= 0) sink.channels[freed].held--, sink.turn = (freed + 1) % CHANNELS;
}

// Take what the mesh shows a node in this cycle.
void Bench::sample(int node) {
  if (bit(top.fault, node)) fail(cycle, "router " + place(node) + " reports a fault");
  for (int c = 0; c < CHANNELS; c++)
    if (bit(top.in_credit, node * CHANNELS + c) && ++sources[node].channels[c].credits > DEPTH)
      fail(cycle, "router " + place(node) + " gives back a credit that it was not sent");
  if (!bit(top.out_valid, node)) return;
  Flit flit;
  std::memcpy(flit.data(), bytes(top.out_data) + node * BYTES, BYTES);
  int channel = 0;
  for (int i = 0; i < VC_BITS; i++) channel |= int(bit(top.out_vc, node * VC_BITS + i)) << i;
  const bool last = bit(top.out_last, node);
  if (channel >= CHANNELS || ++sinks[node].channels[channel].held > DEPTH)
    fail(cycle, "router " + place(node) + " sends a flit without a credit");
  const bool hit = ++arrived_flits == s.at && !s.broken.empty();
  if (hit && s.broken == "drop") return;
  if (hit && s.broken == "corrupt") flit[WORDS - 1] ^= 1u << 31;
  if (hit && s.broken == "repeat") arrive(node, channel, flit, last);
  arrive(hit && s.broken == "misdeliver" ? (node + 1) % NODES : node, channel, flit, last);
}

// First flit of a packet: find the packet that it must be.
void Bench::begin(int node, int channel, const Flit& flit) {
  Arrival& arrival = sinks[node].channels[channel];
  const int from = int(get(flit, header_source));
  if (from >= NODES) fail(cycle, "node " + place(node) + " gets a header of no known source");
  Source& source = sources[from];
  const uint32_t mask = (1u << NUMBER_BITS) - 1;
  const uint32_t number = source.base + ((get(flit, header_number) - source.base) & mask);
  const std::string name = "packet " + std::to_string(number) + " of " + place(from);
  if (number >= source.end() || !source.at(number).started)
    fail(cycle, "node " + place(node) + " gets a header of no packet under way from " + place(from));
  Packet& packet = source.at(number);
  if (!packet.covers(node)) fail(cycle, "node " + place(node) + " gets " + name + ", which is not for it");
  if (packet.several() ? packet.got[node] : !packet.left) fail(cycle, "node " + place(node) + " gets " + name + " twice");
  if (!(packet.channels >> channel & 1)) fail(cycle, name + " left its class of channels");
  if (packet.several()) packet.got[node] = true;
  if (CHECK_ORDER) {
    uint32_t& before = latest[size_t(node) * NODES + from][__builtin_ctz(packet.channels)];
    if (number < before) fail(cycle, "node " + place(node) + " gets " + name + " after a later one");
    before = number + 1;
  }
  arrival.busy = true, arrival.source = from, arrival.number = number, arrival.index = 0;
}

void Bench::arrive(int node, int channel, Flit flit, bool last) {
  Arrival& arrival = sinks[node].channels[channel];
  if (!arrival.busy) begin(node, channel, flit);
  Source& source = sources[arrival.source];
  Packet& packet = source.at(arrival.number);
  const std::string name = "packet " + std::to_string(arrival.number) + " of " + place(arrival.source);
  if (flit != flit_of(packet, arrival.source, arrival.number, arrival.index))
    fail(cycle, "node " + place(node) + " gets another flit than number " + std::to_string(arrival.index) + " of " + name);
  arrival.index++;
  if (last != (arrival.index == packet.length)) fail(cycle, name + " ends after another number of flits than it has");
  last_arrival = cycle;
  if (in_window(cycle)) accepted++;
  if (!last) return;
  arrival.busy = false;
  if (in_window(packet.created)) latencies.push_back(uint32_t(cycle - packet.created));
  packet.left--, waiting--;
  while (!source.packets.empty() && !source.packets.front().left) source.packets.pop_front(), source.base++;
}

void Bench::cycle_once() {
  for (int node = 0; node < NODES; node++) drive(node);
  top.clk = 0;
  top.eval();
  for (int node = 0; node < NODES; node++) sample(node);
  top.clk = 1;
  top.eval();
  cycle++;
}

void Bench::reset() {
  top.rst = 1;
  for (int i = 0; i < 4; i++) {
    top.clk = i & 1;
    top.eval();
  }
  top.rst = 0;
}

void Bench::run() {
  reset();
  uint64_t completion = 0;
  if (s.pattern.rfind("gather-", 0) == 0) {
    gather();
  } else {
    while (cycle < s.warm + s.cycles) {
      for (int node = 0; node < NODES; node++) create(node);
      cycle_once();
    }
  }
  if (s.drain) finish(), completion = last_arrival + 1;
  report(completion);
}

// Until everything has arrived and every credit is back.
void Bench::finish() {
  for (last_arrival = std::max(last_arrival, cycle); waiting; cycle_once())
    if (cycle > last_arrival + PATIENCE)
      fail(cycle, std::to_string(waiting) + " deliveries never happen: packets are lost or stuck");
  const uint64_t arrival = last_arrival;
  for (uint64_t end = cycle + DEPTH * CHANNELS * (s.backpressure > 0 ? 64 * s.spell : 1) + 8; cycle < end;) cycle_once();
  last_arrival = arrival;
  for (int node = 0; node < NODES; node++)
    for (const Channel& channel : sources[node].channels)
      if (channel.credits != DEPTH) fail(cycle, "router " + place(node) + " keeps a credit of an empty buffer");
}

void Bench::report(uint64_t completion) {
  int senders = NODES;
  for (int n = 0; n < NODES; n++)
    senders -= (s.pattern == "transpose" && n % WIDTH == n / WIDTH) || (s.pattern == "bit-complement" && n == NODES - 1 - n);
  const double scale = 1.0 / (double(s.cycles) * std::max(senders, 1));
  std::sort(latencies.begin(), latencies.end());
  double sum = 0;
  for (uint32_t latency : latencies) sum += latency;
  const size_t count = latencies.size();
  std::printf("{\"offered\": %.6f, \"accepted\": %.6f, \"packets\": %" PRIu64 ", \"flits\": %" PRIu64 ", \"cycles\": %" PRIu64,
              double(offered) * scale, double(accepted) * scale, packets, arrived_flits, cycle);
  if (s.drain && count)
    std::printf(", \"latency\": %.3f, \"latency_p99\": %u, \"latency_max\": %u", sum / double(count),
                latencies[count - 1 - count / 100], latencies[count - 1]);
  if (s.pattern.rfind("gather-", 0) == 0) std::printf(", \"completion\": %" PRIu64, completion);
  std::printf("}\n");
}

int main(int count, char** arguments) {
  Settings s;
  for (int i = 1; i < count; i++) {
    const std::string text = arguments[i];
    const size_t equals = text.find('=');
    const std::string key = text.substr(0, equals), value = equals == std::string::npos ? "" : text.substr(equals + 1);
    const double number = std::atof(value.c_str());
    if (key == "pattern") s.pattern = value;
    else if (key == "break") s.broken = value;
    else if (key == "load") s.load = number;
    else if (key == "idle") s.idle = number;
    else if (key == "backpressure") s.backpressure = number;
    else if (key == "flits") s.flits = int(number);
    else if (key == "piece") s.piece = int(number);
    else if (key == "spell") s.spell = int(number);
    else if (key == "warm") s.warm = uint64_t(number);
    else if (key == "cycles") s.cycles = uint64_t(number);
    else if (key == "drain") s.drain = uint64_t(number);
    else if (key == "seed") s.seed = uint64_t(number);
    else if (key == "at") s.at = uint64_t(number);
    else {
      std::fprintf(stderr, "unknown argument %s\n", text.c_str());
      return 2;
    }
  }
  // registers that no reset reaches start with random values: nothing may rely on them
  Verilated::randReset(2);
  Verilated::randSeed(int(s.seed % 1000000) + 1);
  Bench(s).run();
  return 0;
}

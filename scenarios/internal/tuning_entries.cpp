#include "scenarios/internal/tuning_entries.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "scenarios/internal/entries.hpp"
#include "scenarios/quantity.hpp"

namespace trainyard::scenarios {
namespace {

using topology::CollectiveLibrary;
using topology::CollectiveTuning;

constexpr double least_share = 0.001;  // of a nominal rate; a rate of zero never ends
constexpr double most_latency = 1e12;  // ps; figures beyond are slips in their unit
constexpr double most_factor = 1000;

sim::Key latency_key(std::string_view name, sim::Duration& target, bool required = true) {
  return {.name = name, .target = &target, .help = "", .required = required, .most = most_latency};
}
sim::Key share_key(std::string_view name, double& target) {
  return {.name = name, .target = &target, .help = "", .required = true, .least = least_share, .most = 1};
}

double to_microseconds(sim::Duration duration) { return sim::to_seconds(duration) * 1e6; }
double to_gb_per_s(sim::BytesPerSecond rate) { return static_cast<double>(rate.count) * 1e-9; }

// What the library holds under names of its own, some of them required.
void read_sections(Reader& reader, const Value& value, const std::string& path, std::span<const std::string_view> names,
                   std::vector<const Value*>& found, bool required = true) {
  found.assign(names.size(), nullptr);
  std::vector<Section> sections;
  for (std::size_t i = 0; i < names.size(); ++i) sections.push_back({names[i], &found[i], required});
  reader.read(value, path, {.sections = sections});
}

// A list of quantities, each taken by `parse` and turned into a number by `convert`.
template <class Parse, class Convert>
std::vector<double> read_list(Reader& reader, const Value& value, const std::string& path, std::size_t least,
                              std::size_t most, const Parse& parse, const Convert& convert) {
  std::vector<double> numbers;
  if (!value.is_sequence() || value.items.size() < least || value.items.size() > most) {
    const std::string count = least == most ? std::to_string(least) : "at least " + std::to_string(least);
    reader.report(value.where, path + ": expected a list of " + count + " values, got " +
                                   (value.is_sequence() ? std::to_string(value.items.size()) : describe(value)));
    return numbers;
  }
  for (const Value& item : value.items) {
    auto parsed = parse(item.scalar);
    if (!parsed.value) {
      reader.report(item.where, path + ": " + parsed.error);
      return {};
    }
    numbers.push_back(convert(*parsed.value));
  }
  return numbers;
}

template <std::size_t size>
void read_rates(Reader& reader, const Value* value, const std::string& path, std::array<double, size>& target) {
  if (value == nullptr) return;
  const std::vector<double> rates = read_list(reader, *value, path, size, size, parse_bytes_per_second, to_gb_per_s);
  std::copy(rates.begin(), rates.end(), target.begin());
}

void read_speeds(Reader& reader, const Value* value, const std::string& path, std::vector<double>& target) {
  if (value == nullptr) return;
  target = read_list(reader, *value, path, 1, 64, parse_bytes_per_second, to_gb_per_s);
  const bool falling = std::ranges::is_sorted(target, std::greater<>{}) && (target.empty() || target.back() > 0);
  if (!falling) reader.report(value->where, path + ": expected speeds above zero, the fastest first");
}

// LL, LL128 and Simple; or Simple alone.
void read_latency(Reader& reader, const Value& value, const std::string& path, topology::NcclLatency& latency) {
  constexpr std::array<std::string_view, 4> names{"base", "nvlink", "pci", "network"};
  const std::array<topology::PerProtocol*, 4> targets{&latency.base_us, &latency.nvlink_us, &latency.pci_us,
                                                      &latency.network_us};
  std::vector<const Value*> found;
  read_sections(reader, value, path, names, found);
  latency.simple_only = found[0] != nullptr && found[0]->is_sequence() && found[0]->items.size() == 1;
  const std::size_t size = latency.simple_only ? 1 : topology::protocol_kinds;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (found[i] == nullptr) continue;
    const std::vector<double> times =
        read_list(reader, *found[i], join(path, names.at(i)), size, size, parse_duration, to_microseconds);
    if (latency.simple_only)
      targets.at(i)->fill(times.empty() ? 0 : times.front());
    else
      std::copy(times.begin(), times.end(), targets.at(i)->begin());
  }
}

void read_generation(Reader& reader, const Value& value, const std::string& path,
                     topology::NcclGeneration& generation) {
  const Value* ll = nullptr;
  const Value* ring_ll128 = nullptr;
  const Value* tree_ll128 = nullptr;
  const Value* tree = nullptr;
  const Value* nvls_tree = nullptr;
  const Value* intra_speeds = nullptr;
  const Value* inter_speeds = nullptr;
  sim::BytesPerSecond nvlink{};
  const std::vector<sim::Key> keys{
      {.name = "nvls_efficiency", .target = &generation.nvls_efficiency, .help = "", .required = true, .most = 1},
      {.name = "nvlink", .target = &nvlink, .help = "", .required = true, .least = 1},
      {.name = "ring_plateau",
       .target = &generation.ring_plateau,
       .help = "",
       .required = true,
       .least = 1,
       .most = most_factor},
  };
  const std::array<Section, 7> sections{{{"ll", &ll, true},
                                         {"ring_ll128", &ring_ll128, true},
                                         {"tree_ll128", &tree_ll128, true},
                                         {"tree", &tree, true},
                                         {"nvls_tree", &nvls_tree, true},
                                         {"intra_speeds", &intra_speeds, true},
                                         {"inter_speeds", &inter_speeds, true}}};
  reader.read(value, path, {.keys = keys, .sections = sections});
  generation.nvlink_gb_per_s = to_gb_per_s(nvlink);
  read_rates(reader, ll, join(path, "ll"), generation.ll_gb_per_s);
  read_rates(reader, ring_ll128, join(path, "ring_ll128"), generation.ring_ll128_gb_per_s);
  read_rates(reader, tree_ll128, join(path, "tree_ll128"), generation.tree_ll128_gb_per_s);
  read_rates(reader, tree, join(path, "tree"), generation.tree_gb_per_s);
  read_rates(reader, nvls_tree, join(path, "nvls_tree"), generation.nvls_tree_gb_per_s);
  read_speeds(reader, intra_speeds, join(path, "intra_speeds"), generation.intra_speeds_gb_per_s);
  read_speeds(reader, inter_speeds, join(path, "inter_speeds"), generation.inter_speeds_gb_per_s);
}

template <std::size_t size>
std::int64_t index_in(const std::array<std::string_view, size>& names, const std::string& name) {
  const auto found = std::ranges::find(names, name);
  return found == names.end() ? 0 : found - names.begin();
}

template <std::size_t size>
sim::Choice choice_of(const std::array<std::string_view, size>& names) {
  return {.value = std::string{names.front()}, .choices = {names.begin(), names.end()}};
}

void read_cpu(Reader& reader, const Value& value, const std::string& path, topology::NcclCpu& cpu) {
  sim::Choice generation = choice_of(CollectiveLibrary::generation_names);
  sim::Duration overhead{};
  const std::vector<sim::Key> keys{
      {.name = "ll_generation", .target = &generation, .help = "", .required = true},
      latency_key("ring_overhead", overhead),
  };
  reader.read(value, path, {.keys = keys});
  cpu.ll_generation = index_in(CollectiveLibrary::generation_names, generation.value);
  cpu.ring_overhead_us = to_microseconds(overhead);
}

void read_factors(Reader& reader, const Value& value, const std::string& path, topology::NcclFactors& factors) {
  const auto factor = [](std::string_view name, double& target) {
    return sim::Key{
        .name = name, .target = &target, .help = "", .required = true, .least = least_share, .most = most_factor};
  };
  sim::Duration pat_member{};
  const std::vector<sim::Key> keys{factor("ring_ll", factors.ring_ll),
                                   factor("ring_ll128", factors.ring_ll128),
                                   factor("tree", factors.tree),
                                   factor("tree_ll", factors.tree_ll),
                                   factor("tree_ll128_one_node", factors.tree_ll128_one_node),
                                   factor("tree_ll128", factors.tree_ll128),
                                   factor("pat", factors.pat),
                                   factor("one_gpu", factors.one_gpu),
                                   factor("collnet_direct", factors.collnet_direct),
                                   factor("pat_hop_divisor", factors.pat_hop_divisor),
                                   factor("collnet_direct_share", factors.collnet_direct_share),
                                   latency_key("pat_member", pat_member)};
  reader.read(value, path, {.keys = keys});
  factors.pat_member_us = to_microseconds(pat_member);
}

void read_correction(Reader& reader, const Value& value, const std::string& path, topology::NcclFactors& factors) {
  constexpr std::array<std::string_view, topology::protocol_kinds> names{"ll", "ll128", "simple"};
  std::vector<const Value*> found;
  read_sections(reader, value, path, names, found);
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (found[i] == nullptr) continue;
    const std::string place = join(path, names.at(i));
    std::vector<double>& target = factors.tree_correction.at(i);
    target = read_list(reader, *found[i], place, 1, 64, parse_real_number, [](double number) { return number; });
    if (std::ranges::any_of(target, [](double number) { return !(number > 0) || number > most_factor; }))
      reader.report(found[i]->where, place + ": expected factors above zero");
  }
}

void read_limits(Reader& reader, const Value* graph, const Value* limits, const Value* buffers, const std::string& path,
                 CollectiveLibrary& library) {
  sim::BytesPerSecond doubled_from{};
  const auto count = [](std::string_view name, std::int64_t& target) {
    return sim::Key{.name = name, .target = &target, .help = "", .required = true, .least = 1, .most = 1e6};
  };
  const std::vector<sim::Key> graph_keys{
      share_key("pci_share", library.pci_share),
      share_key("least_speed", library.least_speed),
      count("most_channels", library.most_channels),
      {.name = "doubled_from", .target = &doubled_from, .help = "", .required = true, .least = 1},
  };
  const std::vector<sim::Key> limit_keys{count("collnet_local", library.most_local_for_collnet),
                                         count("nvls_local", library.most_local_for_nvls)};
  std::vector<sim::Key> buffer_keys;
  for (std::size_t i = 0; i < topology::protocol_kinds; ++i)
    buffer_keys.push_back({.name = topology::protocol_names.at(i),
                           .target = &library.buffer.at(i),
                           .help = "",
                           .required = true,
                           .least = 1});
  if (graph != nullptr) reader.read(*graph, join(path, "graph"), {.keys = graph_keys});
  if (limits != nullptr) reader.read(*limits, join(path, "limits"), {.keys = limit_keys});
  if (buffers != nullptr) reader.read(*buffers, join(path, "buffers"), {.keys = buffer_keys});
  library.doubled_from_gb_per_s = to_gb_per_s(doubled_from);
}

void read_tables(Reader& reader, const Value& latency, const Value& generations, const Value& cpus,
                 const std::string& path, CollectiveLibrary& library) {
  std::vector<std::string_view> names;
  for (const topology::Algorithm algorithm : CollectiveLibrary::algorithms)
    names.push_back(topology::algorithm_names.at(static_cast<std::size_t>(algorithm)));
  std::vector<const Value*> found;
  read_sections(reader, latency, join(path, "latency"), names, found);
  for (std::size_t i = 0; i < names.size(); ++i)
    if (found[i] != nullptr)
      read_latency(reader, *found[i], join(join(path, "latency"), names[i]), library.latency.at(i));
  read_sections(reader, generations, join(path, "generations"), CollectiveLibrary::generation_names, found);
  for (std::size_t i = 0; i < found.size(); ++i)
    if (found[i] != nullptr)
      read_generation(reader, *found[i], join(join(path, "generations"), CollectiveLibrary::generation_names.at(i)),
                      library.generations.at(i));
  read_sections(reader, cpus, join(path, "cpus"), CollectiveLibrary::cpu_names, found);
  for (std::size_t i = 0; i < found.size(); ++i)
    if (found[i] != nullptr)
      read_cpu(reader, *found[i], join(join(path, "cpus"), CollectiveLibrary::cpu_names.at(i)), library.cpus.at(i));
}

void read_protocols(Reader& reader, const Value& value, const std::string& path, topology::Protocols& protocols) {
  const Value* simple = nullptr;
  const Value* ll128 = nullptr;
  const Value* ll = nullptr;
  const std::array<Section, 3> sections{{{"simple", &simple, true}, {"ll128", &ll128}, {"ll", &ll}}};
  reader.read(value, path, {.sections = sections});
  const auto read_one = [&](const Value* given, std::string_view name) -> std::optional<topology::Protocol> {
    if (given == nullptr) return std::nullopt;
    topology::Protocol protocol;
    const std::vector<sim::Key> keys{latency_key("hop", protocol.hop), share_key("efficiency", protocol.efficiency)};
    reader.read(*given, join(path, name), {.keys = keys});
    return protocol;
  };
  protocols.simple = read_one(simple, "simple").value_or(topology::Protocol{});
  protocols.ll128 = read_one(ll128, "ll128");
  protocols.ll = read_one(ll, "ll");
}

void read_optional_protocols(Reader& reader, const Value* value, const std::string& path,
                             std::optional<topology::Protocols>& protocols) {
  if (value == nullptr) return;
  topology::Protocols read;
  read_protocols(reader, *value, path, read);
  protocols = read;
}

// `[{hop: 25 us, efficiency: 0.7}, …]`
void read_regimes(Reader& reader, const Value* value, const std::string& path,
                  std::vector<topology::Protocol>& regimes) {
  if (value == nullptr) return;
  if (!value->is_sequence()) {
    reader.report(value->where,
                  path + ": expected a list such as [{hop: 25 us, efficiency: 0.7}], got " + describe(*value));
    return;
  }
  for (std::size_t i = 0; i < value->items.size(); ++i) {
    topology::Protocol regime;
    const std::vector<sim::Key> keys{latency_key("hop", regime.hop), share_key("efficiency", regime.efficiency)};
    reader.read(value->items[i], join(path, std::to_string(i)), {.keys = keys});
    regimes.push_back(regime);
  }
}

void read_point_to_point(Reader& reader, const Value& value, const std::string& path, CollectiveTuning& tuning) {
  const std::vector<sim::Key> keys{
      latency_key("latency", tuning.point_to_point_latency),
      share_key("intra_efficiency", tuning.point_to_point_intra_efficiency),
      share_key("inter_efficiency", tuning.point_to_point_inter_efficiency),
  };
  reader.read(value, path, {.keys = keys});
}

}  // namespace

CollectiveLibrary read_library(Reader& reader, const Catalog& catalog, const Value& value, const std::string& path) {
  CollectiveLibrary library;
  if (value.is_scalar() && value.scalar == "none") return library;  // without the tuner of a base
  const std::optional<Resolved> resolved = resolve(reader, catalog, EntryKind::library, value, path);
  if (!resolved) return library;
  library.name = resolved->name;
  const Value* latency = nullptr;
  const Value* generations = nullptr;
  const Value* cpus = nullptr;
  const Value* factors = nullptr;
  const Value* correction = nullptr;
  const Value* graph = nullptr;
  const Value* limits = nullptr;
  const Value* buffers = nullptr;
  const Value* sources = nullptr;
  sim::Choice generation = choice_of(CollectiveLibrary::generation_names);
  sim::Choice cpu = choice_of(CollectiveLibrary::cpu_names);
  std::string description;
  const std::vector<sim::Key> keys{
      {.name = "description", .target = &description, .help = ""},
      {.name = "generation", .target = &generation, .help = "", .required = true},
      {.name = "cpu", .target = &cpu, .help = "", .required = true},
      {.name = "nvlinks", .target = &library.nvlinks, .help = "", .required = true, .most = 1024},
  };
  const std::array<Section, 9> sections{{{"latency", &latency, true},
                                         {"generations", &generations, true},
                                         {"cpus", &cpus, true},
                                         {"factors", &factors, true},
                                         {"tree_correction", &correction, true},
                                         {"graph", &graph, true},
                                         {"limits", &limits, true},
                                         {"buffers", &buffers, true},
                                         {"sources", &sources}}};
  reader.read(resolved->value, path, {.keys = keys, .sections = sections});
  if (latency != nullptr && generations != nullptr && cpus != nullptr)
    read_tables(reader, *latency, *generations, *cpus, path, library);
  if (factors != nullptr) read_factors(reader, *factors, join(path, "factors"), library.factors);
  if (correction != nullptr) read_correction(reader, *correction, join(path, "tree_correction"), library.factors);
  read_limits(reader, graph, limits, buffers, path, library);
  library.generation = index_in(CollectiveLibrary::generation_names, generation.value);
  library.cpu = index_in(CollectiveLibrary::cpu_names, cpu.value);
  return library;
}

void read_collectives(Reader& reader, const Catalog& catalog, const Value& value, const std::string& path,
                      CollectiveTuning& tuning) {
  const Value* library = nullptr;
  const Value* intra = nullptr;
  const Value* inter = nullptr;
  const Value* tree_intra = nullptr;
  const Value* tree_inter = nullptr;
  const Value* nvls = nullptr;
  const Value* nvls_tree = nullptr;
  const Value* point_to_point = nullptr;
  sim::Choice algorithm = choice_of(topology::algorithm_names);
  algorithm.choices.insert(algorithm.choices.begin(), "auto");
  algorithm.value = "auto";
  const std::vector<sim::Key> keys{
      latency_key("base", tuning.base),
      latency_key("network_base", tuning.network_base, false),
      {.name = "parallel_peers", .target = &tuning.parallel_peers, .help = "", .least = 1, .most = 1e6},
      {.name = "compute_share", .target = &tuning.compute_share, .help = "", .least = 0, .most = 0.5},
      {.name = "algorithm", .target = &algorithm, .help = ""},
  };
  const std::array<Section, 8> sections{{{"library", &library},
                                         {"intra", &intra, true},
                                         {"inter", &inter, true},
                                         {"tree_intra", &tree_intra},
                                         {"tree_inter", &tree_inter},
                                         {"nvls", &nvls},
                                         {"nvls_tree", &nvls_tree},
                                         {"point_to_point", &point_to_point, true}}};
  reader.read(value, path, {.keys = keys, .sections = sections});
  if (library != nullptr) tuning.library = read_library(reader, catalog, *library, join(path, "library"));
  if (intra != nullptr) read_protocols(reader, *intra, join(path, "intra"), tuning.intra);
  if (inter != nullptr) read_protocols(reader, *inter, join(path, "inter"), tuning.inter);
  read_optional_protocols(reader, tree_intra, join(path, "tree_intra"), tuning.tree_intra);
  read_optional_protocols(reader, tree_inter, join(path, "tree_inter"), tuning.tree_inter);
  read_regimes(reader, nvls, join(path, "nvls"), tuning.nvls);
  read_regimes(reader, nvls_tree, join(path, "nvls_tree"), tuning.nvls_tree);
  if (point_to_point != nullptr) read_point_to_point(reader, *point_to_point, join(path, "point_to_point"), tuning);
  if (algorithm.value != "auto")
    tuning.algorithm = static_cast<topology::Algorithm>(index_in(topology::algorithm_names, algorithm.value));
}

}  // namespace trainyard::scenarios

#include "scenarios/internal/entries.hpp"

#include <algorithm>
#include <array>
#include <filesystem>
#include <span>
#include <utility>

#include "scenarios/internal/hf_config.hpp"
#include "scenarios/internal/tuning_entries.hpp"
#include "scenarios/quantity.hpp"
#include "topology/cluster.hpp"

namespace trainyard::scenarios {
namespace {

constexpr double least_share = 0.001;  // of a peak; a rate of zero never ends

// Beyond any hardware: a figure outside is a slip in its unit. Rates are in bytes and FLOP per second, times in ps.
constexpr double least_rate = 1e6;
constexpr double most_rate = 1e15;
constexpr double least_peak = 1e9;
constexpr double most_peak = 9e18;  // 64 bits hold little more
constexpr double most_latency = 1e12;

sim::Key rate_key(std::string_view name, sim::BytesPerSecond& target) {
  return {.name = name, .target = &target, .help = "", .required = true, .least = least_rate, .most = most_rate};
}

sim::Key latency_key(std::string_view name, sim::Duration& target) {
  return {.name = name, .target = &target, .help = "", .required = true, .most = most_latency};
}

// Follows `base` from a name or a map down to an entry without one, and merges on the way back.
class Resolver {
 public:
  Resolver(Reader& reader, const Catalog& catalog, EntryKind kind) : reader_(reader), catalog_(catalog), kind_(kind) {}

  std::optional<Resolved> resolve(const Value& value, const std::string& path);

  std::vector<std::string> warnings;  // of the config.json that the value, or what it is based on, is read from

 private:
  std::optional<Resolved> resolve_name(const Value& name, const std::string& path);
  std::optional<Resolved> resolve_map(const Value& map, const std::string& path);
  std::optional<Resolved> resolve_hf_config(const Value& file, const std::string& path);
  std::optional<Resolved> resolve_inline(const Value& map, const std::string& path);
  Resolved refine(std::optional<Resolved> parent, Value refinement) const;
  Value refined(Value base, Value refinement) const;

  Reader& reader_;
  const Catalog& catalog_;
  EntryKind kind_;
  std::vector<const CatalogEntry*> chain_;  // the entries being resolved
};

std::optional<Resolved> Resolver::resolve(const Value& value, const std::string& path) {
  if (value.is_scalar()) return resolve_name(value, path);
  if (value.is_map()) return resolve_map(value, path);
  const std::string in = path.empty() ? "" : path + ": ";
  reader_.report(value.where, in + "expected the name of " + (kind_ == EntryKind::accelerator ? "an " : "a ") +
                                  std::string{to_string(kind_)} + ", or a map, got " + describe(value));
  return std::nullopt;
}

std::optional<Resolved> Resolver::resolve_name(const Value& name, const std::string& path) {
  const std::string in = path.empty() ? "" : path + ": ";
  // An entry may refine the one of the same name that it hides.
  const bool own = !chain_.empty() && chain_.back()->name == name.scalar;
  const CatalogEntry* entry = catalog_.find(kind_, name.scalar, own ? chain_.back() : nullptr);
  if (entry == nullptr && own) {
    reader_.report(name.where, in + describe(name) + " is based on itself, and there is no other of this name");
    return std::nullopt;
  }
  if (entry == nullptr) {
    std::vector<std::string_view> names;
    for (const CatalogEntry* known : catalog_.entries(kind_)) names.push_back(known->name);
    reader_.report(name.where, in + "no " + std::string{to_string(kind_)} + " is called " + describe(name) +
                                   nearest(name.scalar, names) + "; the catalogue has " + listed(names, "and"));
    return std::nullopt;
  }
  if (std::find(chain_.begin(), chain_.end(), entry) != chain_.end()) {
    reader_.report(name.where, in + "'" + entry->name + "' is based on itself");
    return std::nullopt;
  }
  chain_.push_back(entry);
  std::optional<Resolved> result;
  try {
    const Value& text = catalog_.parsed(*entry);
    if (text.is_map())
      result = resolve_map(text, path);
    else
      reader_.report(text.where, in + "expected a map of keys, got " + describe(text));
  } catch (const ScenarioError& error) {  // the rest of the scenario may be wrong too
    reader_.report(error);
  }
  chain_.pop_back();
  if (result) result->name = entry->name;
  return result;
}

std::optional<Resolved> Resolver::resolve_map(const Value& map, const std::string& path) {
  const Value* base = map.find("base");
  const Value* file = kind_ == EntryKind::model ? map.find("hf_config") : nullptr;
  if (file != nullptr && base != nullptr) {
    reader_.report(file->where, join(path, "hf_config") + ": a model has either 'base' or 'hf_config'");
    return refine(std::nullopt, map);
  }
  if (file != nullptr) return refine(resolve_hf_config(*file, path), map);
  if (base == nullptr) return resolve_inline(map, path);
  return refine(resolve(*base, path), map);
}

std::optional<Resolved> Resolver::resolve_hf_config(const Value& file, const std::string& path) {
  if (!file.is_scalar()) {
    reader_.report(file.where, join(path, "hf_config") + ": expected the path of a config.json, got " + describe(file));
    return std::nullopt;
  }
  // Relative to the file that says so; what the command line says is relative to the current folder.
  std::filesystem::path location = file.scalar;
  if (file.where.line > 0) location = std::filesystem::path{file.where.file}.parent_path() / location;
  std::error_code error;
  if (!std::filesystem::exists(location, error)) {
    reader_.report(file.where, join(path, "hf_config") + ": no such file: '" + location.string() + "'");
    return std::nullopt;
  }
  std::optional<HfModel> model;
  try {
    model = read_hf_config(reader_, location);
  } catch (const ScenarioError& unreadable) {  // the rest of the scenario may be wrong too
    reader_.report(unreadable);
  }
  if (!model) return std::nullopt;
  warnings = std::move(model->warnings);
  return resolve(model->value, path);
}

// Where the parent is wrong, what refines it is still read for mistakes of its own.
Resolved Resolver::refine(std::optional<Resolved> parent, Value refinement) const {
  remove(refinement, "base");
  if (kind_ == EntryKind::model) remove(refinement, "hf_config");
  if (!parent) {
    make_partial(refinement);
    return {.value = std::move(refinement), .name = {}};
  }
  return {.value = refined(std::move(parent->value), std::move(refinement)), .name = std::move(parent->name)};
}

// A model without `base` takes what its family says, unless it is the entry of that family.
std::optional<Resolved> Resolver::resolve_inline(const Value& map, const std::string& path) {
  const std::string name = chain_.empty() ? "inline" : chain_.back()->name;
  if (kind_ != EntryKind::model) return Resolved{.value = map, .name = name};
  const Value* family = map.find("family");
  if (map.partial) return Resolved{.value = map, .name = name};
  if (family == nullptr || !family->is_scalar()) {
    reader_.report(reader_.location_of(path),
                   "missing key '" + join(path, "base") + "', such as gpt or llama (or 'hf_config')");
    return std::nullopt;
  }
  const CatalogEntry* entry = catalog_.find(kind_, family->scalar, chain_.empty() ? nullptr : chain_.back());
  const bool itself = !chain_.empty() && chain_.back()->name == family->scalar;
  if (entry == nullptr || itself) return Resolved{.value = map, .name = name};
  Resolved result = refine(resolve_name(*family, path), map);
  result.name = name;
  return result;
}

// A figure that is given anew no longer has the source of the old one.
void forget_sources(Value& base, const Value& refinement) {
  Value* sources = base.find("sources");
  if (sources == nullptr) return;
  for (const Entry& entry : refinement.entries)
    std::erase_if(sources->entries, [&](const Entry& source) {
      return source.key.scalar == entry.key.scalar || source.key.scalar.starts_with(entry.key.scalar + ".");
    });
}

// What follows another key of a model does so anew where that one is given.
void reset_followers(Value& model, const Value& refinement) {
  if (refinement.find("bias") != nullptr)
    for (const std::string_view key : {"qkv_bias", "output_bias", "ffn_bias", "norm_bias"}) remove(model, key);
  const Value* experts = refinement.find("experts");
  if (experts != nullptr && experts->scalar == "0")
    for (const std::string_view key : {"top_k", "shared_ffn_hidden", "shared_gate", "router_bias", "first_dense",
                                       "moe_every", "dense_layers", "dense_ffn_hidden"})
      remove(model, key);
}

Value Resolver::refined(Value base, Value refinement) const {
  remove(base, "description");  // it tells of the base alone
  forget_sources(base, refinement);
  if (kind_ == EntryKind::node) {
    const Value* usual = base.find("accelerator");
    Value* accelerator = refinement.find("accelerator");
    const bool refines = accelerator != nullptr && accelerator->is_map() && accelerator->find("base") == nullptr;
    if (refines && usual != nullptr && usual->is_scalar()) set(*accelerator, "base", *usual);
    if (accelerator != nullptr && !refines)  // another part: what was known of the whole node is no longer
      for (const std::string_view key : {"price", "host_power_w"}) remove(base, key);
  }
  if (kind_ == EntryKind::model) reset_followers(base, refinement);
  return merged(base, refinement);
}

template <class T>
std::vector<sim::Key> per_precision(workloads::PerPrecision<T>& values, double least, double most) {
  std::vector<sim::Key> keys;
  for (std::size_t i = 0; i < workloads::precisions; ++i)
    keys.push_back(
        {.name = workloads::precision_names[i], .target = &values[i], .help = "", .least = least, .most = most});
  return keys;
}

void read_gemm(Reader& reader, const Value& gemm, const std::string& path, workloads::Accelerator& accelerator) {
  const Value* efficiency = nullptr;
  std::vector<std::int64_t> tile;
  const std::vector<sim::Key> keys{
      {.name = "tile", .target = &tile, .help = "", .required = true, .least = 1, .most = 65536},
      {.name = "half_k", .target = &accelerator.half_k, .help = "", .required = true},
  };
  const std::array<Section, 1> sections{{{"efficiency", &efficiency, true}}};
  reader.read(gemm, path, {.keys = keys, .sections = sections});
  if (efficiency != nullptr)
    reader.read(*efficiency, join(path, "efficiency"),
                {.keys = per_precision(accelerator.gemm_efficiency, least_share, 1)});
  if (tile.size() == 2) {
    accelerator.tile_rows = tile[0];
    accelerator.tile_columns = tile[1];
  } else if (const Value* given = gemm.find("tile"); given != nullptr && given->is_sequence()) {
    reader.report(given->where, join(path, "tile") + ": expected rows and columns, such as [256, 128]");
  }
}

void read_attention(Reader& reader, const Value& attention, const std::string& path,
                    workloads::Accelerator& accelerator) {
  const std::vector<sim::Key> keys{
      {.name = "forward_efficiency",
       .target = &accelerator.attention_forward_efficiency,
       .help = "",
       .required = true,
       .least = least_share,
       .most = 1},
      {.name = "backward_efficiency",
       .target = &accelerator.attention_backward_efficiency,
       .help = "",
       .required = true,
       .least = least_share,
       .most = 1},
      {.name = "half_sequence", .target = &accelerator.attention_half_sequence, .help = "", .required = true},
  };
  const Value* flash2 = nullptr;
  const Value* flash3 = nullptr;
  const Value* cudnn = nullptr;
  const std::array<Section, 3> sections{{{"flash2", &flash2}, {"flash3", &flash3}, {"cudnn", &cudnn}}};
  reader.read(attention, path, {.keys = keys, .sections = sections});
  const auto read_generation = [&](const Value* value, const char* name,
                                   workloads::Accelerator::FlashKernels& kernels) {
    if (value == nullptr) return;
    const std::vector<sim::Key> shares{
        {.name = "forward", .target = &kernels.forward, .help = "", .required = true, .least = least_share, .most = 1},
        {.name = "backward",
         .target = &kernels.backward,
         .help = "",
         .required = true,
         .least = least_share,
         .most = 1}};
    reader.read(*value, join(path, name), {.keys = shares});
  };
  read_generation(flash2, "flash2", accelerator.flash2);
  read_generation(flash3, "flash3", accelerator.flash3);
  read_generation(cudnn, "cudnn", accelerator.cudnn);
}

// Every precision with a peak needs to say how much of it is reached, and none may be left without a peak.
void check_precisions(Reader& reader, const Value& value, const std::string& path,
                      const workloads::Accelerator& accelerator) {
  bool any = false;
  for (std::size_t i = 0; i < workloads::precisions; ++i) {
    if (accelerator.peak[i].count == 0) continue;
    any = true;
    const std::string name{workloads::precision_names[i]};
    if (accelerator.gemm_efficiency[i] == 0)
      reader.report(value.where, "missing key '" + join(path, "gemm.efficiency." + name) + "', since peak has " + name);
  }
  if (!any) reader.report(value.where, join(path, "peak") + ": expected a peak for one precision at least");
}

// Triples of two devices and the number of cables between them.
void read_wiring(Reader& reader, const Value& value, const std::string& path, topology::NodeType& node) {
  const std::string expected = path +
                               ": expected a list of two devices and their number of cables each, such as "
                               "[[0, 1, 2], [1, 2, 1]], got ";
  if (!value.is_sequence()) return reader.report(value.where, expected + describe(value));
  for (const Value& item : value.items) {
    std::vector<std::int64_t> numbers;
    for (const Value& number : item.items) {
      const auto parsed = parse_whole_number(number.scalar);
      if (number.is_scalar() && parsed.value && *parsed.value >= 0 && *parsed.value < 1024)
        numbers.push_back(*parsed.value);
    }
    const bool right = item.items.size() == 3 && numbers.size() == 3 && numbers[0] != numbers[1] && numbers[2] > 0;
    if (!right) return reader.report(item.where, expected + "another item");
    node.wiring.push_back({.from = numbers[0], .to = numbers[1], .width = numbers[2]});
  }
}

// Relations between the keys of a link, where each of them is right.
void check_link(Reader& reader, const Value& value, const std::string& path, topology::NodeType& node) {
  using topology::Interconnect;
  const auto need = [&](std::string_view key, bool given) {
    if (!given)
      reader.report(value.where,
                    "missing key '" + join(path, key) + "', which kind '" + value.find("kind")->scalar + "' needs");
  };
  const auto refuse = [&](std::string_view key, Interconnect of, std::string_view owner) {
    if (value.find(key) != nullptr && node.interconnect != of)
      reader.report(value.find(key)->where,
                    join(path, key) + ": only links of kind '" + std::string{owner} + "' have this");
  };
  refuse("per_switch", Interconnect::pcie, "pcie");
  refuse("wiring", Interconnect::cube_mesh, "cube-mesh");
  refuse("pod", Interconnect::ici, "ici");
  refuse("wraparound", Interconnect::ici, "ici");
  if (node.interconnect == Interconnect::cube_mesh) {
    need("wiring", !node.wiring.empty());
    // Fewer devices than the entry describes: the others are not there, and neither are their cables.
    std::erase_if(node.wiring,
                  [&](const topology::Wire& wire) { return wire.from >= node.devices || wire.to >= node.devices; });
    if (value.find("wiring") != nullptr && !topology::wires_join_all(node))
      reader.report(value.find("wiring")->where, join(path, "wiring") + ": no way leads from device 0 to every other");
  }
  if (node.interconnect == Interconnect::ici) {
    need("pod", !node.pod.empty());
    if (node.pod.size() > 3)
      reader.report(value.find("pod")->where, join(path, "pod") + ": expected one to three axes, such as [16, 16]");
  }
}

void read_link(Reader& reader, const Value& value, const std::string& path, topology::NodeType& node) {
  sim::Choice kind{.value = "nvswitch", .choices = {"nvswitch", "pcie", "cube-mesh", "ici"}};
  sim::Choice wraparound{.value = "full-axis", .choices = {"cubes", "full-axis"}};
  const Value* wiring = nullptr;
  const std::vector<sim::Key> keys{
      {.name = "kind", .target = &kind, .help = ""},
      rate_key("rate", node.link_rate),
      latency_key("latency", node.link_latency),
      {.name = "per_switch", .target = &node.per_switch, .help = "", .least = 1, .most = 1024},
      {.name = "pod", .target = &node.pod, .help = "", .least = 1, .most = 1024},
      {.name = "wraparound", .target = &wraparound, .help = ""},
  };
  const std::array<Section, 1> sections{{{"wiring", &wiring}}};
  const std::size_t before = reader.mistakes();
  reader.read(value, path, {.keys = keys, .sections = sections});
  node.interconnect = chosen<topology::Interconnect>(kind);
  node.wraparound = chosen<topology::Wraparound>(wraparound);
  if (wiring != nullptr) read_wiring(reader, *wiring, join(path, "wiring"), node);
  if (reader.mistakes() == before && !value.partial && value.find("kind") != nullptr)
    check_link(reader, value, path, node);
}

}  // namespace

std::optional<Resolved> resolve(Reader& reader, const Catalog& catalog, EntryKind kind, const Value& value,
                                const std::string& path) {
  Resolver resolver{reader, catalog, kind};
  std::optional<Resolved> resolved = resolver.resolve(value, path);
  if (resolved) resolved->warnings = std::move(resolver.warnings);
  return resolved;
}

workloads::Accelerator read_accelerator(Reader& reader, const Catalog& catalog, const Value& value,
                                        const std::string& path) {
  workloads::Accelerator accelerator;
  const std::optional<Resolved> resolved = resolve(reader, catalog, EntryKind::accelerator, value, path);
  if (!resolved) return accelerator;
  accelerator.name = resolved->name;
  const Value* peak = nullptr;
  const Value* gemm = nullptr;
  const Value* attention = nullptr;
  const Value* sources = nullptr;
  const auto key = [](std::string_view name, sim::Key::Target target, double least, double most = 1e15) {
    return sim::Key{.name = name, .target = target, .help = "", .required = true, .least = least, .most = most};
  };
  const std::vector<sim::Key> keys{
      {.name = "name", .target = &accelerator.name, .help = ""},
      {.name = "description", .target = &accelerator.description, .help = ""},
      key("memory", &accelerator.memory, 1),
      rate_key("memory_bandwidth", accelerator.memory_bandwidth),
      key("l2_cache", &accelerator.l2_cache, 0),
      key("sms", &accelerator.sms, 1, 1e6),
      key("memory_efficiency", &accelerator.memory_efficiency, least_share, 1),
      key("memory_half_size", &accelerator.memory_half_size, 0),
      latency_key("kernel_latency", accelerator.kernel_latency),
      {.name = "power_w", .target = &accelerator.power_w, .help = "", .least = 1, .most = 1e5},
      {.name = "clock_spread", .target = &accelerator.clock_spread, .help = "", .least = 0, .most = 0.5},
      {.name = "power_limit_w", .target = &accelerator.power_limit_w, .help = "", .least = 1, .most = 1e5},
  };
  const std::array<Section, 4> sections{
      {{"peak", &peak, true}, {"gemm", &gemm, true}, {"attention", &attention, true}, {"sources", &sources}}};
  const std::size_t before = reader.mistakes();
  reader.read(resolved->value, path, {.keys = keys, .sections = sections});
  if (peak != nullptr)
    reader.read(*peak, join(path, "peak"), {.keys = per_precision(accelerator.peak, least_peak, most_peak)});
  if (gemm != nullptr) read_gemm(reader, *gemm, join(path, "gemm"), accelerator);
  if (attention != nullptr) read_attention(reader, *attention, join(path, "attention"), accelerator);
  if (reader.mistakes() == before && !resolved->value.partial)
    check_precisions(reader, resolved->value, path, accelerator);
  return accelerator;
}

NodeReading read_node(Reader& reader, const Catalog& catalog, const Value& value, const std::string& path) {
  NodeReading result;
  topology::NodeType& node = result.node;
  const std::optional<Resolved> resolved = resolve(reader, catalog, EntryKind::node, value, path);
  if (!resolved) return result;
  node.name = resolved->name;
  const Value* accelerator = nullptr;
  const Value* link = nullptr;
  const Value* collectives = nullptr;
  const Value* sources = nullptr;
  const std::vector<sim::Key> keys{
      {.name = "name", .target = &node.name, .help = ""},
      {.name = "description", .target = &node.description, .help = ""},
      {.name = "devices", .target = &node.devices, .help = "", .required = true, .least = 1, .most = 1024},
      {.name = "nics", .target = &node.nics, .help = "", .required = true, .least = 1, .most = 1024},
      rate_key("nic_rate", node.nic_rate),
      latency_key("nic_latency", node.nic_latency),
      {.name = "host_rate", .target = &node.host_rate, .help = "", .least = least_rate, .most = most_rate},
      {.name = "host_memory", .target = &node.host_memory, .help = "", .least = 1},
      {.name = "host_memory_rate",
       .target = &node.host_memory_rate,
       .help = "",
       .least = least_rate,
       .most = most_rate},
      {.name = "nvme_read_rate", .target = &node.nvme_read_rate, .help = "", .least = least_rate, .most = most_rate},
      {.name = "nvme_write_rate", .target = &node.nvme_write_rate, .help = "", .least = least_rate, .most = most_rate},
      {.name = "fabric", .target = &node.fabric, .help = "", .required = true},
      {.name = "price", .target = &node.price, .help = ""},
      {.name = "host_power_w", .target = &node.host_power_w, .help = "", .least = 1, .most = 1e6},
  };
  const std::array<Section, 4> sections{{{"accelerator", &accelerator, true},
                                         {"link", &link, true},
                                         {"collectives", &collectives, true},
                                         {"sources", &sources}}};
  reader.read(resolved->value, path, {.keys = keys, .sections = sections});
  if (link != nullptr) read_link(reader, *link, join(path, "link"), node);
  if (collectives != nullptr)
    read_collectives(reader, catalog, *collectives, join(path, "collectives"), node.collectives);
  if (accelerator != nullptr)
    result.accelerator = read_accelerator(reader, catalog, *accelerator, join(path, "accelerator"));
  node.accelerator = result.accelerator.name;
  return result;
}

topology::FabricType read_fabric(Reader& reader, const Catalog& catalog, const Value* value, const std::string& usual,
                                 const std::string& path) {
  using Kind = topology::FabricType::Kind;
  topology::FabricType fabric;
  const Value usual_name = make_scalar(usual, reader.location_of(path));
  Value described = value == nullptr ? usual_name : *value;
  if (described.is_map() && described.find("base") == nullptr) {
    const Value* own = described.find("kind");
    if (own == nullptr && usual.empty())
      make_partial(described);  // the node is wrong, and reported
    else if (own == nullptr)
      set(described, "base", usual_name);
    else if (own->is_scalar() && catalog.find(EntryKind::fabric, own->scalar) != nullptr)
      set(described, "base", Value{*own});  // an entry is called as its kind
  }
  const std::optional<Resolved> resolved = resolve(reader, catalog, EntryKind::fabric, described, path);
  if (!resolved) return fabric;
  fabric.name = resolved->name;
  sim::Choice kind{.value = "", .choices = {"single-switch", "fat-tree", "rail-optimized", "dragonfly", "ici", "dcn"}};
  sim::Choice routing{.value = "adaptive", .choices = {"adaptive", "ecmp"}};
  sim::Choice wraparound{.value = "usual", .choices = {"usual", "always", "never"}};
  const Value* sources = nullptr;
  const std::vector<sim::Key> keys{
      {.name = "name", .target = &fabric.name, .help = ""},
      {.name = "description", .target = &fabric.description, .help = ""},
      {.name = "kind", .target = &kind, .help = "", .required = true},
      {.name = "radix", .target = &fabric.radix, .help = "", .least = 2, .most = 65536},
      {.name = "tiers", .target = &fabric.tiers, .help = "", .least = 1, .most = 3},
      {.name = "oversubscription", .target = &fabric.oversubscription, .help = "", .least = 1, .most = 1000},
      {.name = "core_oversubscription", .target = &fabric.core_oversubscription, .help = "", .least = 1, .most = 1000},
      latency_key("switch_latency", fabric.switch_latency),
      {.name = "routing", .target = &routing, .help = ""},
      {.name = "spine", .target = &fabric.spine, .help = ""},
      {.name = "hosts", .target = &fabric.hosts, .help = "", .least = 1, .most = 65536},
      {.name = "group_routers", .target = &fabric.group_routers, .help = "", .least = 1, .most = 65536},
      {.name = "global_links", .target = &fabric.global_links, .help = "", .least = 1, .most = 1e6},
      {.name = "slices", .target = &fabric.slices, .help = "", .least = 1, .most = 1e6},
      {.name = "shape", .target = &fabric.shape, .help = "", .least = 1, .most = 1e6},
      {.name = "wraparound", .target = &wraparound, .help = ""},
      {.name = "sharp", .target = &fabric.sharp, .help = ""},
  };
  const std::array<Section, 1> sections{{{"sources", &sources}}};
  reader.read(resolved->value, path, {.keys = keys, .sections = sections});
  fabric.kind = chosen<Kind>(kind);
  fabric.routing = chosen<topology::FabricType::Routing>(routing);
  fabric.wraparound = chosen<topology::FabricType::Torus>(wraparound);
  const auto only = [&](std::string_view key, Kind of) {
    const Value* given = resolved->value.find(key);
    if (given != nullptr && fabric.kind != of)
      reader.report(given->where, join(path, key) + ": only a fabric of kind '" +
                                      std::string{kind.choices[static_cast<std::size_t>(of)]} + "' has this");
  };
  if (kind.value.empty()) return fabric;  // wrong, and reported
  only("spine", Kind::rail_optimized);
  for (const std::string_view key : {"hosts", "group_routers", "global_links"}) only(key, Kind::dragonfly);
  for (const std::string_view key : {"slices", "shape", "wraparound"}) only(key, Kind::ici);
  const bool tree = fabric.kind == Kind::fat_tree || fabric.kind == Kind::rail_optimized;
  if (tree && fabric.tiers == 1)
    reader.report(resolved->value.find("tiers")->where,
                  join(path, "tiers") + ": expected 2 or 3, got '1' (one tier is kind 'single-switch')");
  return fabric;
}

}  // namespace trainyard::scenarios

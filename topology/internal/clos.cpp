#include "topology/internal/clos.hpp"

#include <algorithm>
#include <cmath>

#include "topology/internal/mixing.hpp"
#include "topology/internal/path.hpp"

namespace trainyard::topology {
namespace {

std::int64_t quotient_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

std::int64_t cables_above(std::int64_t below, double oversubscription) {
  return std::max<std::int64_t>(1, std::llround(static_cast<double>(below) / oversubscription));
}

sim::BytesPerSecond share(sim::BytesPerSecond whole, std::int64_t part, std::int64_t of) {
  __extension__ using Wide = unsigned __int128;
  return {static_cast<std::int64_t>(static_cast<Wide>(whole.count) * static_cast<Wide>(part) / static_cast<Wide>(of))};
}

bool is_data_centre(FabricType::Kind kind) { return kind == FabricType::Kind::ici || kind == FabricType::Kind::dcn; }

}  // namespace

Clos::Clos(const FabricType& fabric, std::vector<Block> blocks, sim::BytesPerSecond cable)
    : kind_(fabric.kind),
      ecmp_(fabric.routing == FabricType::Routing::ecmp),
      has_spine_(fabric.kind != FabricType::Kind::rail_optimized || fabric.spine),
      blocks_(std::move(blocks)),
      half_(std::max<std::int64_t>(1, fabric.radix / 2)),
      spines_(cables_above(half_, fabric.oversubscription)),
      cores_(cables_above(half_, fabric.core_oversubscription)) {
  nics_ = blocks_.back().first_nic + blocks_.back().nodes * blocks_.back().nics;
  const bool one_switch =
      fabric.kind == FabricType::Kind::single_switch || (is_data_centre(fabric.kind) && fabric.tiers < 2);
  if (kind_ == FabricType::Kind::rail_optimized && has_spine_) {
    leaves_ = pods_ = 0;
    for (const Block& block : blocks_) {
      Rails rails{.first_leaf = leaves_, .first_pod = pods_, .units = quotient_up(block.nodes, half_)};
      rails.pods_per_rail = quotient_up(rails.units, half_);
      leaves_ += rails.units * block.nics;
      pods_ += rails.pods_per_rail * block.nics;
      rails_.push_back(rails);
    }
  } else if (kind_ == FabricType::Kind::rail_optimized) {
    leaves_ = blocks_.front().nics;
  } else if (!one_switch) {
    leaves_ = quotient_up(nics_, half_);
    pods_ = quotient_up(leaves_, half_);
  }
  if (one_switch || !has_spine_)
    tiers_ = 1;
  else if (fabric.tiers > 1)
    tiers_ = static_cast<int>(fabric.tiers);
  else
    tiers_ = leaves_ <= fabric.radix ? 2 : 3;
  // A leaf is built for a full set of NICs, whether or not all are there; so is a pod.
  above_leaf_ =
      sim::scaled(sim::BytesPerSecond{sim::checked_multiply(cable.count, half_)}, 1 / fabric.oversubscription);
  above_pod_ = sim::scaled(sim::BytesPerSecond{sim::checked_multiply(above_leaf_.count, half_)},
                           1 / fabric.core_oversubscription);
  number_kinds();
}

// With ECMP every spine is a kind of its own, and every core above it.
void Clos::number_kinds() {
  spine_count_.assign(ecmp_ ? static_cast<std::size_t>(spines_) : 1, ecmp_ ? 1 : spines_);
  core_kind_.clear();
  first_core_kind_.clear();
  for (std::int64_t kind = 0; kind < spine_kinds(); ++kind) {
    first_core_kind_.push_back(core_kinds());
    if (!ecmp_) core_kind_.push_back({.spine_kind = kind, .cores = cores_, .core = -1});
    for (std::int64_t core = 0; ecmp_ && core < cores_; ++core)
      core_kind_.push_back({.spine_kind = kind, .cores = 1, .core = core});
  }
  first_core_kind_.push_back(core_kinds());
}

void Clos::set_broken(std::vector<std::int64_t> broken) {
  broken_ = std::move(broken);
  broken_paths_ = 0;
  for (const std::int64_t link : broken_) {
    if (is_core_link(link)) {
      broken_paths_ += width(core_kind_[static_cast<std::size_t>((link - leaf_links()) / 2 % core_kinds())]);
    } else {
      const std::int64_t cables = spine_count_[static_cast<std::size_t>(link / 2 % spine_kinds())];
      broken_paths_ += tiers_ > 2 ? cables * cores_ : cables;
    }
  }
}

bool Clos::alive(std::int64_t link) const {
  return broken_.empty() || !std::binary_search(broken_.begin(), broken_.end(), link & ~std::int64_t{1});
}

std::int64_t Clos::spine_kind_of(std::int64_t spine) const { return ecmp_ ? spine : 0; }

std::int64_t Clos::core_kind_of(const Core& core) const {
  const auto spine_kind = static_cast<std::size_t>(spine_kind_of(core.spine));
  for (std::int64_t kind = first_core_kind_[spine_kind]; kind < first_core_kind_[spine_kind + 1]; ++kind)
    if (core_kind_[static_cast<std::size_t>(kind)].core == core.core) return kind;
  return first_core_kind_[spine_kind];
}

std::int64_t Clos::leaf_of(std::int64_t nic) const {
  if (tiers_ == 1 && has_spine_) return 0;
  if (kind_ != FabricType::Kind::rail_optimized) return nic / half_;
  std::size_t i = blocks_.size() - 1;
  while (nic < blocks_[i].first_nic) --i;
  const auto nics = static_cast<std::uint32_t>(blocks_[i].nics);  // 32-bit divisions take half the time
  const auto index = static_cast<std::uint32_t>(nic - blocks_[i].first_nic);
  const std::uint32_t node = index / nics;
  const std::uint32_t rail = index - node * nics;
  if (!has_spine_) return rail;
  return rails_[i].first_leaf + static_cast<std::int64_t>(node / static_cast<std::uint32_t>(half_)) * nics + rail;
}

std::int64_t Clos::pod_of(std::int64_t leaf) const {
  if (kind_ != FabricType::Kind::rail_optimized) return leaf / half_;
  std::size_t i = rails_.size() - 1;
  while (leaf < rails_[i].first_leaf) --i;
  const std::int64_t rail = (leaf - rails_[i].first_leaf) % blocks_[i].nics;
  const std::int64_t unit = (leaf - rails_[i].first_leaf) / blocks_[i].nics;
  return rails_[i].first_pod + rail * rails_[i].pods_per_rail + unit / half_;
}

std::vector<std::int64_t> Clos::leaves_of(std::int64_t pod) const {
  std::vector<std::int64_t> leaves;
  if (kind_ != FabricType::Kind::rail_optimized) {
    for (std::int64_t leaf = pod * half_; leaf < std::min(leaves_, (pod + 1) * half_); ++leaf) leaves.push_back(leaf);
    return leaves;
  }
  std::size_t i = rails_.size() - 1;
  while (pod < rails_[i].first_pod) --i;
  const std::int64_t rail = (pod - rails_[i].first_pod) / rails_[i].pods_per_rail;
  const std::int64_t first_unit = (pod - rails_[i].first_pod) % rails_[i].pods_per_rail * half_;
  for (std::int64_t unit = first_unit; unit < std::min(rails_[i].units, first_unit + half_); ++unit)
    leaves.push_back(rails_[i].first_leaf + unit * blocks_[i].nics + rail);
  return leaves;
}

void Clos::for_each_nic(std::int64_t leaf, const std::function<void(std::int64_t nic)>& visit) const {
  if (kind_ != FabricType::Kind::rail_optimized) {
    for (std::int64_t nic = leaf * half_; nic < std::min(nics_, (leaf + 1) * half_); ++nic) visit(nic);
    return;
  }
  std::size_t i = rails_.size() - 1;
  while (leaf < rails_[i].first_leaf) --i;
  const Block& block = blocks_[i];
  const std::int64_t rail = (leaf - rails_[i].first_leaf) % block.nics;
  const std::int64_t unit = (leaf - rails_[i].first_leaf) / block.nics;
  for (std::int64_t node = unit * half_; node < std::min(block.nodes, (unit + 1) * half_); ++node)
    visit(block.first_nic + node * block.nics + rail);
}

sim::BytesPerSecond Clos::capacity(std::int64_t link) const {
  if (!is_core_link(link))
    return share(above_leaf_, spine_count_[static_cast<std::size_t>(link / 2 % spine_kinds())], spines_);
  const CoreKind& kind = core_kind_[static_cast<std::size_t>((link - leaf_links()) / 2 % core_kinds())];
  return share(above_pod_, width(kind), spines_ * cores_);
}

std::string Clos::name_of(std::int64_t link) const {
  const std::string direction = link % 2 == 0 ? " up" : " down";
  const auto spine = [&](std::int64_t kind) { return ecmp_ ? " spine " + std::to_string(kind) : std::string{}; };
  if (!is_core_link(link))
    return "leaf " + std::to_string(link / 2 / spine_kinds()) + spine(link / 2 % spine_kinds()) + direction;
  const std::int64_t index = (link - leaf_links()) / 2;
  const CoreKind& kind = core_kind_[static_cast<std::size_t>(index % core_kinds())];
  return "pod " + std::to_string(index / core_kinds()) + spine(kind.spine_kind) +
         (kind.core >= 0 ? " core " + std::to_string(kind.core) : std::string{}) + direction;
}

std::vector<std::pair<std::string, std::vector<std::int64_t>>> Clos::forms() const {
  std::vector<std::pair<std::string, std::vector<std::int64_t>>> result;
  for (const std::string direction : {" up", " down"}) {
    if (tiers_ > 1) result.push_back({"leaf #" + direction, {leaves_}});
    if (tiers_ > 1) result.push_back({"leaf # spine #" + direction, {leaves_, spines_}});
    if (tiers_ > 2) result.push_back({"pod #" + direction, {pods_}});
    if (tiers_ > 2) result.push_back({"pod # spine #" + direction, {pods_, spines_}});
    if (tiers_ > 2) result.push_back({"pod # spine # core #" + direction, {pods_, spines_, cores_}});
  }
  return result;
}

std::vector<std::int64_t> Clos::named(const LinkName& name) const {
  std::string form = name.form;
  bool up = true;
  bool down = true;
  if (form.ends_with(" up"))
    down = false;
  else if (form.ends_with(" down"))
    up = false;
  if (!up || !down) form.resize(form.rfind(' '));
  const auto number = [&](std::size_t i) { return name.numbers[i]; };
  std::vector<std::int64_t> result;
  const auto add_leaf = [&](std::int64_t kind) {
    if (up) result.push_back(leaf_link(number(0), kind, true));
    if (down) result.push_back(leaf_link(number(0), kind, false));
  };
  const auto add_core = [&](std::int64_t kind) {
    if (up) result.push_back(core_link(number(0), kind, true));
    if (down) result.push_back(core_link(number(0), kind, false));
  };
  const bool leaf = tiers_ > 1 && form.starts_with("leaf #") && number(0) < leaves_;
  const bool pod = tiers_ > 2 && form.starts_with("pod #") && number(0) < pods_;
  if (leaf && form == "leaf #") {
    for (std::int64_t kind = 0; kind < spine_kinds(); ++kind) add_leaf(kind);
  } else if (leaf && form == "leaf # spine #" && number(1) < spines_) {
    add_leaf(spine_kind_of(number(1)));
  } else if (pod && form == "pod #") {
    for (std::int64_t kind = 0; kind < core_kinds(); ++kind) add_core(kind);
  } else if (pod && form == "pod # spine #" && number(1) < spines_) {
    const auto spine_kind = static_cast<std::size_t>(spine_kind_of(number(1)));
    for (std::int64_t kind = first_core_kind_[spine_kind]; kind < first_core_kind_[spine_kind + 1]; ++kind)
      add_core(kind);
  } else if (pod && form == "pod # spine # core #" && number(1) < spines_ && number(2) < cores_) {
    add_core(core_kind_of({.spine = number(1), .core = number(2)}));
  }
  return result;
}

double Clos::part_named(const LinkName& name) const {
  if (ecmp_) return 1;
  const auto one_of = [](std::int64_t cables) { return 1 / static_cast<double>(cables); };
  if (name.form.starts_with("pod # spine # core #")) return one_of(spines_ * cores_);
  if (name.form.starts_with("leaf # spine #") || name.form.starts_with("pod # spine #")) return one_of(spines_);
  return 1;
}

std::int64_t Clos::spine_paths(std::int64_t from, std::int64_t to, std::int64_t kind) const {
  const bool open = alive(leaf_link(from, kind, true)) && alive(leaf_link(to, kind, false));
  return open ? spine_count_[static_cast<std::size_t>(kind)] : 0;
}

std::int64_t Clos::core_paths(std::int64_t from, std::int64_t to, std::int64_t kind) const {
  const CoreKind& core = core_kind_[static_cast<std::size_t>(kind)];
  const bool open = alive(leaf_link(from, core.spine_kind, true)) && alive(leaf_link(to, core.spine_kind, false)) &&
                    alive(core_link(pod_of(from), kind, true)) && alive(core_link(pod_of(to), kind, false));
  return open ? width(core) : 0;
}

std::int64_t Clos::leaf_above(std::int64_t link) const {
  if (!is_core_link(link)) return link / 2 / spine_kinds();
  return leaves_of((link - leaf_links()) / 2 / core_kinds()).front();
}

bool Clos::joined(std::int64_t leaf, std::int64_t other) const {
  if (leaf == other) return true;
  if (tiers_ == 1) return false;
  const bool cores = tiers_ > 2 && pod_of(leaf) != pod_of(other);
  for (std::int64_t kind = 0; kind < (cores ? core_kinds() : spine_kinds()); ++kind)
    if ((cores ? core_paths(leaf, other, kind) : spine_paths(leaf, other, kind)) > 0) return true;
  return false;
}

void Clos::route(std::int64_t from, std::int64_t to, std::uint64_t hash, std::uint32_t base, Route& route) const {
  ++route.switches;
  if (tiers_ == 1) return;
  const std::int64_t leaf = leaf_of(from);
  const std::int64_t other = leaf_of(to);
  if (leaf == other) return;
  if (tiers_ == 2 || pod_of(leaf) == pod_of(other))
    route_over_spines(leaf, other, hash, base, route);
  else
    route_over_cores(leaf, other, hash, base, route);
}

void Clos::route_over_spines(std::int64_t from, std::int64_t to, std::uint64_t hash, std::uint32_t base,
                             Route& route) const {
  route.switches += 2;
  if (!ecmp_ && spine_kinds() == 1 && broken_.empty()) {
    append(route, base, leaf_link(from, 0, true));
    append(route, base, leaf_link(to, 0, false));
    return;
  }
  if (ecmp_ && broken_.empty()) {
    const std::int64_t spine = pick(mix(hash), spines_);
    append(route, base, leaf_link(from, spine, true));
    append(route, base, leaf_link(to, spine, false));
    return;
  }
  std::int64_t paths = 0;
  for (std::int64_t kind = 0; kind < spine_kinds(); ++kind) paths += spine_paths(from, to, kind);
  sim::ensure(paths > 0, "two leaves have a spine in common");
  std::int64_t chosen = ecmp_ ? pick(mix(hash), paths) : -1;
  for (std::int64_t kind = 0; kind < spine_kinds(); ++kind) {
    const std::int64_t here = spine_paths(from, to, kind);
    if (here == 0) continue;
    if (ecmp_ && chosen-- != 0) continue;
    append(route, base, leaf_link(from, kind, true), ecmp_ ? 1 : here, ecmp_ ? 1 : paths);
    append(route, base, leaf_link(to, kind, false), ecmp_ ? 1 : here, ecmp_ ? 1 : paths);
    if (ecmp_) return;
  }
}

void Clos::route_over_cores(std::int64_t from, std::int64_t to, std::uint64_t hash, std::uint32_t base,
                            Route& route) const {
  route.switches += 4;
  const std::int64_t pod = pod_of(from);
  const std::int64_t other = pod_of(to);
  if (!ecmp_ && core_kinds() == 1 && broken_.empty()) {
    append(route, base, leaf_link(from, 0, true));
    append(route, base, core_link(pod, 0, true));
    append(route, base, core_link(other, 0, false));
    append(route, base, leaf_link(to, 0, false));
    return;
  }
  if (ecmp_ && broken_.empty()) {
    const std::int64_t spine = pick(mix(hash), spines_);
    const std::int64_t core = spine * cores_ + pick(mix(mix(hash)), cores_);  // the spine hashes again
    append(route, base, leaf_link(from, spine, true));
    append(route, base, core_link(pod, core, true));
    append(route, base, core_link(other, core, false));
    append(route, base, leaf_link(to, spine, false));
    return;
  }
  const auto paths_of = [&](std::int64_t spine_kind) {
    std::int64_t paths = 0;
    const auto index = static_cast<std::size_t>(spine_kind);
    for (std::int64_t kind = first_core_kind_[index]; kind < first_core_kind_[index + 1]; ++kind)
      paths += core_paths(from, to, kind);
    return paths;
  };
  std::int64_t paths = 0;
  std::int64_t open_spines = 0;
  for (std::int64_t kind = 0; kind < spine_kinds(); ++kind) {
    const std::int64_t here = paths_of(kind);
    paths += here;
    if (here > 0) ++open_spines;
  }
  sim::ensure(paths > 0, "two pods have a core in common");
  std::int64_t chosen = ecmp_ ? pick(mix(hash), open_spines) : -1;
  for (std::int64_t spine_kind = 0; spine_kind < spine_kinds(); ++spine_kind) {
    const std::int64_t here = paths_of(spine_kind);
    if (here == 0) continue;
    if (ecmp_ && chosen-- != 0) continue;
    std::int64_t chosen_core = ecmp_ ? pick(mix(mix(hash)), here) : -1;
    append(route, base, leaf_link(from, spine_kind, true), ecmp_ ? 1 : here, ecmp_ ? 1 : paths);
    const auto index = static_cast<std::size_t>(spine_kind);
    for (std::int64_t kind = first_core_kind_[index]; kind < first_core_kind_[index + 1]; ++kind) {
      const std::int64_t through = core_paths(from, to, kind);
      if (through == 0) continue;
      if (ecmp_ && chosen_core-- != 0) continue;
      append(route, base, core_link(pod, kind, true), ecmp_ ? 1 : through, ecmp_ ? 1 : paths);
      append(route, base, core_link(other, kind, false), ecmp_ ? 1 : through, ecmp_ ? 1 : paths);
    }
    append(route, base, leaf_link(to, spine_kind, false), ecmp_ ? 1 : here, ecmp_ ? 1 : paths);
    if (ecmp_) return;
  }
}

// A connection that crosses the link has at most paths / open of itself there, and all of itself on its NIC.
bool Clos::can_bind(std::int64_t link, const Capacity& nic, const Capacity& own) const {
  __extension__ using Wide = unsigned __int128;
  const std::int64_t capacity = own(link).count;
  const bool core_link = is_core_link(link);
  const std::int64_t index = core_link ? (link - leaf_links()) / 2 : link / 2;
  const CoreKind core = core_link ? core_kind_[static_cast<std::size_t>(index % core_kinds())] : CoreKind{};
  std::int64_t paths = core_link
                           ? width(core)
                           : spine_count_[static_cast<std::size_t>(index % spine_kinds())] * (tiers_ > 2 ? cores_ : 1);
  std::int64_t open = (tiers_ > 2 ? spines_ * cores_ : spines_) - broken_paths_;
  if (ecmp_ || open <= paths) paths = open = 1;
  const auto fills = [&](std::int64_t below) {
    return static_cast<Wide>(below) * static_cast<Wide>(paths) > static_cast<Wide>(capacity) * static_cast<Wide>(open);
  };
  const std::vector<std::int64_t> leaves =
      core_link ? leaves_of(index / core_kinds()) : std::vector<std::int64_t>{index / spine_kinds()};
  std::int64_t below = 0;
  for (std::size_t i = 0; i < leaves.size() && !fills(below); ++i)
    for_each_nic(leaves[i], [&](std::int64_t each) { below += nic(each).count; });
  if (!fills(below)) return false;
  if (!core_link) return true;
  // All of what crosses a core link has crossed a leaf's link to the spine below it.
  std::int64_t leaf_capacity = 0;
  for (const std::int64_t leaf : leaves) leaf_capacity += own(leaf_link(leaf, core.spine_kind, link % 2 == 0)).count;
  return leaf_capacity > capacity;
}

}  // namespace trainyard::topology

#include "strategies/device_classes.hpp"

#include <algorithm>
#include <map>
#include <stdexcept>
#include <utility>

namespace trainyard::strategies {
namespace {

using sim::Duration;

// How long each kernel of the joined plan takes on one type of device.
using Durations = std::vector<Duration>;

bool same_schedule(const sim::Plan& a, const sim::Plan& b) {
  if (a.blocks.size() != b.blocks.size() || a.programs.size() != b.programs.size()) return false;
  for (std::size_t i = 0; i < a.blocks.size(); ++i) {
    const auto& ops = a.blocks[a.blocks.id(i)].ops;
    const auto& others = b.blocks[b.blocks.id(i)].ops;
    const auto same = [](const sim::Op& x, const sim::Op& y) {
      return x.stream == y.stream && x.work.index() == y.work.index() && x.after == y.after;
    };
    if (!std::ranges::equal(ops, others, same)) return false;
  }
  for (std::size_t i = 0; i < a.programs.size(); ++i)
    if (a.programs[a.programs.id(i)].calls.size() != b.programs[b.programs.id(i)].calls.size()) return false;
  return true;
}

// Two operations have the same kernel in the joined plan where they have it on all types.
std::vector<Durations> join_kernels(sim::Plan& plan, const std::vector<const sim::Plan*>& on_types) {
  std::map<std::vector<sim::KernelId>, sim::KernelId> known;
  sim::Table<sim::KernelId, sim::Kernel> kernels;
  std::vector<Durations> durations(on_types.size());
  sim::Table<sim::BlockId, sim::Block> blocks = plan.blocks;
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    const sim::BlockId block = blocks.id(b);
    for (std::size_t i = 0; i < blocks[block].ops.size(); ++i) {
      auto* compute = std::get_if<sim::Compute>(&blocks[block].ops[i].work);
      if (compute == nullptr) continue;
      std::vector<sim::KernelId> key;
      key.reserve(on_types.size());
      for (const sim::Plan* on : on_types) key.push_back(std::get<sim::Compute>(on->blocks[block].ops[i].work).kernel);
      const auto [entry, fresh] = known.try_emplace(key, sim::KernelId{static_cast<std::uint32_t>(kernels.size())});
      if (fresh) {
        kernels.add(on_types.front()->kernels[key.front()]);
        for (std::size_t t = 0; t < on_types.size(); ++t) durations[t].push_back(on_types[t]->kernels[key[t]].duration);
      }
      compute->kernel = entry->second;
    }
  }
  plan.kernels = std::move(kernels);
  plan.blocks = std::move(blocks);
  return durations;
}

// Rounded up kernel by kernel, so that a run of them takes as long as they take one by one.
Durations slowed(const Durations& healthy, double speed) {
  if (speed == 1.0) return healthy;
  Durations result;
  result.reserve(healthy.size());
  for (const Duration duration : healthy) result.push_back(sim::from_seconds(sim::to_seconds(duration) / speed));
  return result;
}

bool any_slow(const topology::Cluster& cluster) {
  for (std::int64_t i = 0; i < cluster.devices(); ++i)
    if (cluster.speed_of(topology::DeviceId{static_cast<std::uint32_t>(i)}) != 1.0) return true;
  return false;
}

}  // namespace

PlannedStep plan_on_devices(const Strategy& strategy, const Job& job,
                            std::span<const workloads::Accelerator> accelerators) {
  PlannedStep step = strategy.plan(job);
  const topology::Cluster& cluster = job.cluster;
  if (accelerators.size() < 2 && !any_slow(cluster)) return step;

  std::vector<PlannedStep> others;
  for (std::size_t t = 1; t < accelerators.size(); ++t) {
    others.push_back(strategy.plan({.model = job.model,
                                    .training = job.training,
                                    .accelerator = accelerators[t],
                                    .cluster = cluster,
                                    .leading = &job.accelerator}));
    if (!same_schedule(step.plan, others.back().plan))
      throw std::invalid_argument("the step is scheduled differently on " + accelerators[t].name + " than on " +
                                  accelerators.front().name + ": give micro batch and recompute explicitly");
  }
  const sim::Plan first = step.plan;
  std::vector<const sim::Plan*> on_types{&first};
  for (const PlannedStep& other : others) on_types.push_back(&other.plan);
  const std::vector<Durations> durations = join_kernels(step.plan, on_types);

  std::map<std::pair<std::size_t, double>, sim::DeviceClassId> classes;
  for (std::size_t r = 0; r < step.plan.program_of.size(); ++r) {
    const topology::DeviceId device{static_cast<std::uint32_t>(r)};
    const std::size_t type = cluster.node_type_of(device);
    const double speed = cluster.speed_of(device);
    auto known = classes.find({type, speed});
    if (known == classes.end()) {
      sim::DeviceClass fresh{.name = accelerators[type].name,
                             .slow = speed < 1.0,
                             .kernels = slowed(durations[type], speed),
                             .healthy = durations[type]};
      known = classes.emplace(std::pair{type, speed}, step.plan.device_classes.add(std::move(fresh))).first;
    }
    step.plan.device_class_of.add(known->second);
  }
  return step;
}

}  // namespace trainyard::strategies

// What plans of Colossal-AI have in common: the model on one rank, and the passes of its layers.
#pragma once

#include <vector>

#include "strategies/checks.hpp"
#include "strategies/host_profile.hpp"
#include "strategies/internal/colossal.hpp"
#include "strategies/internal/colossal_tensor.hpp"
#include "strategies/offload.hpp"
#include "strategies/plan_builder.hpp"
#include "workloads/architecture.hpp"
#include "workloads/cost.hpp"
#include "workloads/layers.hpp"

namespace trainyard::strategies {

// The embedding, a layer, or the head.
struct ColossalPart {
  const workloads::Layer* layer = nullptr;
  const workloads::Block* block = nullptr;
  std::int32_t index = -1;  // of a layer
};

struct ColossalModel {
  ColossalModel(const ColossalOptions& options, const Job& job);

  std::vector<ColossalPart> parts() const;
  std::int64_t trained() const;
  bool is_embedding(const ColossalPart& part) const { return part.layer == &expansion.embedding; }
  bool is_head(const ColossalPart& part) const { return part.layer == &expansion.head; }
  workloads::Recompute recompute(const ColossalPart& part) const;
  // Of the backward pass: what recomputation brings back, and gradients of activations as they come and go.
  sim::Bytes saved(const ColossalPart& part) const;
  sim::Bytes backward_extra(const ColossalPart& part) const;
  sim::Kernel pass(const char* name, std::int64_t bytes) const { return costs.memory_bound(name, sim::Bytes{bytes}); }

  // When the programs are written: the one that all ranks have, the groups of tensor and of data parallelism, and what
  // activations that wait on hosts need; then what all of it costs.
  void connect(sim::SlotId replicas, const ActivationOffload& offload);
  PlannedStep finish();

  const ColossalOptions& options;
  const Job& job;
  std::int64_t data;
  std::int64_t micro_batches;
  HostProfile host;
  workloads::KernelCosts costs;
  PlanBuilder builder;
  ColossalTensor tensor;
  workloads::Architecture architecture;
  workloads::StateBytes state;
  workloads::Expansion expansion;
};

}  // namespace trainyard::strategies

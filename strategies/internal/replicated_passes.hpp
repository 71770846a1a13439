// The passes through a model that every rank has whole, for strategies that differ in how gradients meet.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "strategies/host_profile.hpp"
#include "strategies/layer_ops.hpp"
#include "strategies/offload.hpp"
#include "strategies/plan_builder.hpp"
#include "strategies/strategy.hpp"
#include "workloads/architecture.hpp"
#include "workloads/cost.hpp"
#include "workloads/layers.hpp"

namespace trainyard::strategies {

// Parameters, gradients and moments are in 32 bits; where compute is in 16, linear layers cast their weights when they
// use them and keep the casts until their backward pass (PyTorch's autocast, Keras' AutoCastVariable).
class ReplicatedPasses {
 public:
  // What blocks are written for: a layer, the embedding or the head.
  struct Part {
    const workloads::Layer* layer = nullptr;
    std::int32_t index = -1;  // of the layer
    bool recomputed = false;
  };

  // Every device of the job's cluster is a replica, but for tables of a recommender, which are divided over them.
  ReplicatedPasses(PlanBuilder& builder, const Job& job, const workloads::Training& training, const HostProfile& host,
                   const workloads::KernelStyle& style);
  ReplicatedPasses(const ReplicatedPasses&) = delete;
  ReplicatedPasses& operator=(const ReplicatedPasses&) = delete;

  std::int64_t replicas() const { return replicas_; }
  std::int64_t micro_batch() const { return micro_batch_; }
  std::int64_t micro_batches() const { return micro_batches_; }
  const HostProfile& host() const { return host_; }
  const workloads::KernelCosts& costs() const { return costs_; }
  const workloads::Training& training() const { return training_; }
  const workloads::Architecture& architecture() const { return architecture_; }
  const workloads::StateBytes& state() const { return state_; }
  std::int64_t trained() const { return trained_; }
  sim::Bytes frozen() const { return frozen_; }
  // In the order of the forward pass.
  const std::vector<Part>& parts() const { return parts_; }
  // Parameters of each trained tensor, in the order in which they are registered.
  std::vector<std::int64_t> gradient_tensors() const;

  // Table results go through this slot, where the model has tables and there are several ranks.
  void exchange_tables(sim::SlotId group);

  // With the model's state, nothing else.
  sim::Program program(std::string name) const;
  void write_forward(sim::Program& program, std::int64_t micro_batch);
  using BackwardOf = std::function<sim::BlockId(const Part&)>;
  void write_backward(sim::Program& program, std::int64_t micro_batch, const BackwardOf& block);
  // `after` is called behind each operator with the number of parameters of which a gradient is there now.
  using AfterGradient = std::function<void(BlockWriter&, std::int64_t)>;
  sim::BlockId backward_block(const Part& part, const std::string& name, const AfterGradient& after);
  // Bytes per parameter that are moved to bring a fresh gradient to 32 bits and add it to those of other micro-batches.
  std::int64_t accumulation_traffic() const;
  std::int64_t gradient_bytes() const { return state_.gradient; }  // of one
  // After the exchange: norm, clipping, update. `parameters` of them.
  void write_update(BlockWriter& block, std::int64_t parameters) const;
  void connect(sim::Plan& plan) const { offload_.connect(plan, replicas_); }

 private:
  // Without master weights parameters have 16 bits themselves.
  bool mixed() const { return workloads::activation_bytes(training_.precision) == 2 && state_.parameter == 4; }
  std::int64_t cast_parameters(const Part& part) const;
  sim::BlockId forward_block(const Part& part);

  PlanBuilder& builder_;
  const Job& job_;
  workloads::Training training_;
  std::int64_t replicas_;
  std::int64_t micro_batch_;
  std::int64_t micro_batches_;
  HostProfile host_;
  workloads::KernelCosts costs_;
  workloads::Architecture architecture_;
  workloads::StateBytes state_;
  workloads::Expansion model_;
  ActivationOffload offload_;
  LayerCommunication with_;
  std::int64_t trained_ = 0;
  sim::Bytes frozen_{};
  std::vector<Part> parts_;
  std::map<const workloads::Layer*, sim::BlockId> forward_;
};

}  // namespace trainyard::strategies

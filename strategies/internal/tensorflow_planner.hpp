// One step of a TensorFlow strategy in the making: the replicas' passes, and per mode how variables and gradients
// travel. tensorflow_collectives.cpp has the mirrored modes, tensorflow_hosts.cpp those with variables on hosts.
#pragma once

#include <chrono>
#include <vector>

#include "strategies/internal/host_state.hpp"
#include "strategies/internal/replicated_passes.hpp"
#include "strategies/internal/tensorflow.hpp"
#include "strategies/plan_builder.hpp"

namespace trainyard::strategies {

// Of a remote procedure call, from host to host (an estimate).
constexpr sim::Duration grpc_latency = std::chrono::microseconds{50};

class TensorflowPlanner {
 public:
  TensorflowPlanner(const TensorflowOptions& options, const Job& job);
  PlannedStep plan();

 private:
  using Mode = TensorflowOptions::Mode;
  using Part = ReplicatedPasses::Part;

  // Gradients that meet in one collective.
  struct Pack {
    std::int64_t parameters = 0;
    sim::EventRef reduced{};
  };

  bool several() const { return passes_.replicas() > 1; }
  sim::Bytes gradient_bytes(std::int64_t parameters) const;
  sim::BlockId backward_block(const Part& part, const ReplicatedPasses::AfterGradient& after);
  void write_micro_batches(sim::Program& program, const ReplicatedPasses::AfterGradient& last_gradients);
  void write_step_end(BlockWriter& block) const;

  // Mirrored variables: tensorflow_collectives.cpp.
  void write_mirrored();
  std::vector<Pack> packs();
  bool packs_follow_backward() const;
  void write_all_reduce(BlockWriter& block, const Pack& pack);
  void write_star(BlockWriter& block, bool centre) const;
  void write_star_programs();
  void connect_collectives(sim::Plan& plan) const;
  void price_ring_over_grpc(sim::Plan& plan) const;

  // Variables on hosts: tensorflow_hosts.cpp.
  void write_central_storage();
  void write_parameter_server();
  void connect_servers(sim::Plan& plan) const;
  void price_servers(sim::Plan& plan) const;

  const TensorflowOptions& options_;
  const Job& job_;
  Mode mode_;
  workloads::Training training_;
  PlanBuilder builder_;
  ReplicatedPasses passes_;
  HostState host_;

  sim::StreamId collectives_{};
  sim::SlotId replicas_{};
  sim::SlotId half_{};                                  // hierarchical copies: the devices of the own half of the host,
  sim::SlotId pair_{};                                  // and the one at the same position of the other half
  std::vector<sim::SlotId> to_devices_, from_devices_;  // of the device that all gradients go to
  sim::SlotId to_first_{}, from_first_{};               // of the others
  sim::StreamId pull_{}, push_{}, serving_{};
  sim::SlotId servers_{}, turns_{};
};

}  // namespace trainyard::strategies

// Variables that live in host memory: of the devices' own host, or of parameter servers.
#include <algorithm>

#include "strategies/internal/tensorflow_planner.hpp"

namespace trainyard::strategies {

using sim::Bytes;
using sim::CollectiveKind;
using sim::Purpose;

namespace {

// Bytes per parameter that a host moves to add a gradient to the sum of those before it.
constexpr std::int64_t add_traffic = 12;

}  // namespace

// CentralStorageStrategy: a device reads variables when it needs them, forward, and sends its gradients back as they
// come; the host adds up those of all devices and updates the variables, of which it has the only copy.
void TensorflowPlanner::write_central_storage() {
  host_.open();
  collectives_ = builder_.stream("all devices");
  sim::Program program = passes_.program("all devices");
  program.resident[static_cast<std::size_t>(sim::MemoryPurpose::optimizer)] = Bytes{};

  BlockWriter read = builder_.block("read variables", passes_.host().forward);
  host_.copy_in(read, Bytes{passes_.trained() * passes_.state().parameter}, sim::set_of(sim::compute_stream));
  read.wait_for(sim::set_of(host_.in()));
  program.calls.push_back({.block = read.finish()});
  write_micro_batches(program, [&](BlockWriter& block, std::int64_t parameters) {
    host_.copy_out(block, gradient_bytes(parameters), sim::set_of(sim::compute_stream));
  });

  BlockWriter end = builder_.block("update variables on the host", passes_.host().backward);
  end.wait_for(sim::set_of(host_.out()));
  // The gradients of all devices have to be there.
  if (several()) end.blocking(collectives_, builder_.call(replicas_, CollectiveKind::barrier, Bytes{}, Purpose::data));
  // Of what the host has to do, each device waits for all, at the rate that its share of the memory gives it.
  const std::int64_t adds = (passes_.replicas() - 1) * add_traffic;
  const auto update = static_cast<std::int64_t>(workloads::optimizer_traffic(passes_.state()));
  host_.update(end, sim::scaled(Bytes{passes_.trained() * (adds + update)}, 1, passes_.replicas()),
               sim::set_of(sim::compute_stream));
  end.wait_for(sim::set_of(host_.optimizer()));
  write_step_end(end);
  program.calls.push_back({.block = end.finish()});
  builder_.plan().programs.add(std::move(program));
}

// ParameterServerStrategy. Variables are spread over the servers; a worker (a device here) pulls all, computes, and
// pushes all gradients. Asynchronous workers wait for nobody but the servers, which serve one request of each worker in
// turn: a worker's next pull comes when the servers have been through all workers' pulls and pushes since its last.
// Synchronous ones pull at the same time and push at the same time, so that each transfer meets those of all others at
// the servers.
void TensorflowPlanner::write_parameter_server() {
  pull_ = builder_.stream("pull");
  push_ = builder_.stream("push");
  serving_ = builder_.stream("parameter servers");
  servers_ = builder_.slot("parameter servers");
  turns_ = builder_.slot("turns of the servers");
  sim::Program program = passes_.program("all workers");
  program.resident[static_cast<std::size_t>(sim::MemoryPurpose::optimizer)] = Bytes{};
  const Bytes variables{passes_.trained() * passes_.state().parameter};
  const auto call = [&](CollectiveKind kind, Bytes bytes) {
    return builder_.call(servers_, kind, bytes, Purpose::data);
  };

  BlockWriter begin = builder_.block("pull variables", passes_.host().forward);
  if (options_.synchronous) {
    begin.blocking(pull_, call(CollectiveKind::all_gather, variables));
  } else {
    begin.wait_for(sim::set_of(serving_));
    begin.communicate(serving_, builder_.call(turns_, CollectiveKind::barrier, Bytes{}, Purpose::data));
    begin.blocking(pull_, call(CollectiveKind::all_gather, variables));
  }
  program.calls.push_back({.block = begin.finish()});
  write_micro_batches(program, {});

  BlockWriter end = builder_.block("push gradients", passes_.host().backward);
  end.blocking(push_, call(CollectiveKind::reduce_scatter, gradient_bytes(passes_.trained())));
  if (options_.synchronous) {
    if (several()) end.blocking(pull_, builder_.call(replicas_, CollectiveKind::barrier, Bytes{}, Purpose::data));
    end.blocking(serving_, call(CollectiveKind::reduce, Bytes{}));
  }
  write_step_end(end);
  program.calls.push_back({.block = end.finish()});
  builder_.plan().programs.add(std::move(program));
}

void TensorflowPlanner::connect_servers(sim::Plan& plan) const {
  if (mode_ != Mode::parameter_server) return;
  for (std::int64_t i = 0; i < passes_.replicas(); ++i)
    for (const sim::SlotId slot : {servers_, turns_})
      plan.communicators.add({sim::RankId{static_cast<std::uint32_t>(i)}}, {slot});
}

// Rates are those of gRPC over a host's network adapters, which its devices share; a server has one adapter. A transfer
// takes as long as the slower end: alone, a worker's own link or all servers' together; at the same time as all others,
// the servers' links carry as many transfers as there are workers.
void TensorflowPlanner::price_servers(sim::Plan& plan) const {
  if (mode_ != Mode::parameter_server) return;
  const topology::Cluster& cluster = job_.cluster;
  const topology::NodeType& node = cluster.node();
  const std::int64_t workers = passes_.replicas();
  const std::int64_t on_a_node = (workers + cluster.nodes() - 1) / cluster.nodes();
  const double adapters = std::min(1.0, static_cast<double>(node.nics) / static_cast<double>(on_a_node));
  const sim::BytesPerSecond worker = sim::scaled(node.nic_rate, options_.grpc_efficiency * adapters);
  const auto servers_of_job = static_cast<double>(options_.servers(job_));
  const sim::BytesPerSecond servers = sim::scaled(node.nic_rate, options_.grpc_efficiency * servers_of_job);
  const auto transfer = [&](Bytes bytes) {
    const Bytes at_servers{options_.synchronous ? workers * bytes.count : bytes.count};
    return grpc_latency + std::max(sim::time_for(bytes, worker), sim::time_for(at_servers, servers));
  };
  const Bytes update{passes_.trained() * static_cast<std::int64_t>(workloads::optimizer_traffic(passes_.state()))};
  const sim::Duration apply = sim::time_for(update, sim::scaled(host_update_rate(node), servers_of_job));
  const Bytes both{passes_.trained() * passes_.state().parameter + gradient_bytes(passes_.trained()).count};

  for (std::size_t c = 0; c < plan.calls.size(); ++c) {
    const sim::Call& call = plan.calls[plan.calls.id(c)];
    if (call.slot != servers_ && call.slot != turns_) continue;
    for (std::size_t row = 0; row < plan.costs.size(); ++row) {
      sim::CommunicationCost& cost = plan.costs[plan.costs.id(row)][c];
      switch (call.kind) {
        case CollectiveKind::all_gather:  // pull
          cost.duration = transfer(call.bytes);
          break;
        case CollectiveKind::reduce_scatter:  // push
          cost.duration = transfer(call.bytes);
          cost.wire_bytes = call.bytes;
          break;
        case CollectiveKind::barrier:  // a turn of all workers; servers transfer and update at the same time
          cost.duration = workers * std::max(sim::time_for(both, servers), apply);
          break;
        default:  // the update that all wait for
          cost.duration = apply;
      }
      cost.latency = grpc_latency;
    }
  }
}

}  // namespace trainyard::strategies

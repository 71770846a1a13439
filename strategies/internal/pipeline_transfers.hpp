// What pipeline stages send each other between their passes, in the manners of several frameworks.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "strategies/groups.hpp"
#include "strategies/pipeline_placement.hpp"
#include "strategies/pipeline_schedule.hpp"
#include "strategies/plan_builder.hpp"

namespace trainyard::strategies {

// What a rank sends for each pass, and what its receiver does with it before the pass that needs it. Where the ranks of
// a tensor group all have the same, each may send its part, which the receivers gather on arrival: Megatron-LM's
// scatter_gather_tensors_in_pipeline, DeepSpeed's pipe_partitioned and grad_partitioned.
struct PipelineMessage {
  sim::Bytes bytes{};
  std::optional<sim::BlockId> arrival{};
};

struct PipelineMessages {
  PipelineMessage activations{};
  PipelineMessage gradients{};
};

// How stages hand on what a pass made and get what the next one needs: what is issued together, and what compute waits
// for.
enum class TransferOrder : std::uint8_t {
  // Both in one batch between the two passes; compute waits for both. Megatron-LM's 1F1B and GPipe
  // (NVIDIA/Megatron-LM megatron/core/pipeline_parallel/p2p_communication.py, send_forward_recv_backward), PyTorch's
  // 1F1B and GPipe (pytorch/pytorch torch/distributed/pipelining/schedules.py, Schedule1F1B).
  at_once,
  // The same, but a forward pass and the backward pass behind it are one turn, with one batch before it and one behind
  // it: with several chunks per stage, one that waited between the two for what its neighbour sends after its own pair
  // would wait for ever. Megatron-LM's interleaved schedule without overlap_p2p_comm (same file,
  // send_forward_backward_recv_forward_backward).
  in_pairs,
  // One after the other, each waited for before the next is issued: stages work in steps, even and odd ones forward in
  // turns, and in each step a stage has to do with one neighbour, with which it exchanges the gradient first. DeepSpeed
  // (deepspeedai/DeepSpeed deepspeed/runtime/pipe/schedule.py, TrainSchedule; p2p.py).
  in_turns,
  // Receives are posted one pass ahead, before the pass that precedes theirs, and nothing waits for a send. Megatron-LM
  // with overlap_p2p_comm and the runtime of zero-bubble schedules, PyTorch's schedules of several chunks or split
  // passes (_PipelineScheduleRuntime).
  ahead
};

// Messages from each position of a placement to the next and back.
class PipelineTransfers {
 public:
  struct Manner {
    TransferOrder order = TransferOrder::at_once;
    // Whenever compute does, unless receives are posted ahead (Megatron-LM's batch_p2p_sync).
    bool host_waits = false;
    std::int64_t group = 0;  // of an interleaved schedule, see pipeline_schedule()
    sim::Duration launch{};  // of one transfer, by the host
  };
  using Act = std::function<void(const PipelineAction&)>;

  // A pipeline of one stage transfers nothing.
  PipelineTransfers(PlanBuilder& builder, const PipelinePlacement& placement, const PipelineMessages& messages,
                    const Manner& manner);

  // The actions of one stage in their order, each written by `act`, with the transfers around them.
  void write(sim::Program& program, std::int64_t stage, const std::vector<PipelineAction>& actions, const Act& act);

  // Joins every rank to its neighbours on the axis of stages.
  void connect(sim::Plan& plan, const RankGrid& grid, std::size_t axis) const;

 private:
  // Activations or gradients, of chunks that go there or come back; the ends of both, as each sees them.
  struct Track {
    sim::StreamId send_stream{}, receive_stream{};
    sim::SlotId to{}, from{};
    sim::CallId send{}, receive{};
    std::optional<sim::BlockId> arrival{};
    // Ahead. Receives take turns, each with an event of its own.
    std::vector<sim::BlockId> post_blocks{}, await_blocks{};
    sim::BlockId send_block{};
  };
  // What a stage sends and receives in one batch, by track.
  struct Exchange {
    std::array<bool, 4> sent{}, received{};
    auto operator<=>(const Exchange&) const = default;
  };
  using Turn = std::span<const PipelineAction>;  // passes between two batches

  std::size_t track_of(const PipelineAction& pass) const;
  bool receives(std::int64_t stage, const PipelineAction& pass) const;
  bool sends(std::int64_t stage, const PipelineAction& pass) const;
  bool receives_early(std::int64_t stage, std::size_t track) const;
  void make_ahead(Track& track);
  sim::BlockId exchange_block(const Exchange& exchange);
  void call_exchange(sim::Program& program, const Exchange& exchange, Turn named);
  void call_arrival(sim::Program& program, const PipelineAction& pass) const;
  Turn next_turn(Turn left) const;
  bool gradient_comes_first(std::int64_t stage, Turn done, Turn next) const;
  void write_waiting(sim::Program& program, std::int64_t stage, Turn left, const Act& act);
  void write_ahead(sim::Program& program, std::int64_t stage, const std::vector<PipelineAction>& actions,
                   const Act& act);

  PlanBuilder& builder_;
  PipelinePlacement placement_;
  Manner manner_;
  std::vector<Track> tracks_;
  std::map<Exchange, sim::BlockId> exchanges_;
};

}  // namespace trainyard::strategies

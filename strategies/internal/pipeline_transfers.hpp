// What pipeline stages send each other between their passes.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "strategies/groups.hpp"
#include "strategies/pipeline_schedule.hpp"
#include "strategies/plan_builder.hpp"

namespace trainyard::strategies {

// What goes to the next stage, and what comes back from it.
struct PipelineMessages {
  sim::Bytes activations{};
  sim::Bytes gradients{};
};

// How stages of one chunk hand on what a pass made and get what the next one needs, between the two.
enum class TransferOrder : std::uint8_t {
  at_once,  // compute waits for both (pytorch/pytorch torch/distributed/pipelining/schedules.py, Schedule1F1B)
  // One after the other, each waited for before the next is issued: stages work in steps, even and odd ones forward in
  // turns, and in each step a stage has to do with one neighbour, with which it exchanges the gradient first
  // (deepspeedai/DeepSpeed deepspeed/runtime/pipe/schedule.py, TrainSchedule; p2p.py).
  in_turns
};

// Messages to the next stage and back; after the last stage's chunk follows the first stage's next one. With several
// chunks per stage receives are posted one pass ahead and nothing waits for a send.
class PipelineTransfers {
 public:
  // A pipeline of one stage transfers nothing.
  PipelineTransfers(PlanBuilder& builder, std::int64_t stages, std::int64_t chunks, const PipelineMessages& messages,
                    sim::Duration launch, TransferOrder order = TransferOrder::at_once);

  // The passes of one stage in their order, each written by `pass`, with the transfers around them.
  void write(sim::Program& program, std::int64_t stage, const std::vector<PipelineAction>& actions,
             const std::function<void(const PipelineAction&)>& pass);

  // Joins every rank to its neighbours on the axis of stages.
  void connect(sim::Plan& plan, const RankGrid& grid, std::size_t axis) const;

 private:
  struct Overlapped {
    std::array<sim::BlockId, 2> post{};  // in turns: two receives may be open, each with an event of its own
    std::array<sim::BlockId, 2> await{};
    sim::BlockId send{};
  };

  bool receives(std::int64_t stage, const PipelineAction& action) const;
  bool sends(std::int64_t stage, const PipelineAction& action) const;
  void make_overlapped(sim::Duration launch);
  sim::BlockId exchange(int sent, int received);
  void write_exchanged(sim::Program& program, std::int64_t stage, const std::vector<PipelineAction>& actions,
                       const std::function<void(const PipelineAction&)>& pass);
  void write_in_turns(sim::Program& program, std::int64_t stage, const std::vector<PipelineAction>& actions,
                      const std::function<void(const PipelineAction&)>& pass);
  void write_overlapped(sim::Program& program, std::int64_t stage, const std::vector<PipelineAction>& actions,
                        const std::function<void(const PipelineAction&)>& pass);

  PlanBuilder& builder_;
  std::int64_t stages_;
  std::int64_t chunks_;
  sim::Duration launch_;
  TransferOrder order_;
  // Activations, then gradients.
  std::array<sim::StreamId, 2> send_streams_{}, receive_streams_{};
  std::array<sim::SlotId, 2> to_{}, from_{};
  std::array<sim::CallId, 2> sends_{}, receives_{};
  std::array<Overlapped, 2> overlapped_{};
  std::map<std::pair<int, int>, sim::BlockId> exchanges_;
};

}  // namespace trainyard::strategies

// What pipeline stages send each other between their passes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <utility>
#include <vector>

#include "strategies/groups.hpp"
#include "strategies/pipeline_placement.hpp"
#include "strategies/pipeline_schedule.hpp"
#include "strategies/plan_builder.hpp"

namespace trainyard::strategies {

struct PipelineMessages {
  sim::Bytes activations{};
  sim::Bytes gradients{};
};

// How stages hand on what a pass made and get what the next one needs.
enum class TransferOrder : std::uint8_t {
  at_once,  // between the two; compute waits for both (pytorch/pytorch torch/distributed/pipelining/schedules.py,
            // Schedule1F1B)
  // One after the other, each waited for before the next is issued: stages work in steps, even and odd ones forward in
  // turns, and in each step a stage has to do with one neighbour, with which it exchanges the gradient first
  // (deepspeedai/DeepSpeed deepspeed/runtime/pipe/schedule.py, TrainSchedule; p2p.py).
  in_turns,
  ahead  // receives are posted one pass ahead, and nothing waits for a send (_PipelineScheduleRuntime of the same)
};

// Messages from each position of a placement to the next and back.
class PipelineTransfers {
 public:
  struct Manner {
    TransferOrder order = TransferOrder::at_once;
    std::int64_t group = 0;  // of an interleaved schedule, see pipeline_schedule()
    sim::Duration launch{};
  };

  // A pipeline of one stage transfers nothing.
  PipelineTransfers(PlanBuilder& builder, const PipelinePlacement& placement, const PipelineMessages& messages,
                    const Manner& manner);

  // The actions of one stage in their order, each written by `act`, with the transfers around them.
  void write(sim::Program& program, std::int64_t stage, const std::vector<PipelineAction>& actions,
             const std::function<void(const PipelineAction&)>& act);

  // Joins every rank to its neighbours on the axis of stages.
  void connect(sim::Plan& plan, const RankGrid& grid, std::size_t axis) const;

 private:
  // Activations or gradients, of chunks that go there or come back; the ends of both, as each sees them.
  struct Track {
    sim::StreamId send_stream{}, receive_stream{};
    sim::SlotId to{}, from{};
    sim::CallId send{}, receive{};
    // Overlapped. Receives take turns, each with an event of its own.
    std::vector<sim::BlockId> post_blocks{}, await_blocks{};
    sim::BlockId send_block{};
  };

  std::size_t track_of(const PipelineAction& pass) const;
  bool receives(std::int64_t stage, const PipelineAction& pass) const;
  bool sends(std::int64_t stage, const PipelineAction& pass) const;
  bool receives_early(std::int64_t stage, std::size_t track) const;
  void make_overlapped(Track& track);
  sim::BlockId exchange(int sent, int received);
  void write_exchanged(sim::Program& program, std::int64_t stage, const std::vector<PipelineAction>& actions,
                       const std::function<void(const PipelineAction&)>& act);
  void write_in_turns(sim::Program& program, std::int64_t stage, const std::vector<PipelineAction>& actions,
                      const std::function<void(const PipelineAction&)>& act);
  void write_overlapped(sim::Program& program, std::int64_t stage, const std::vector<PipelineAction>& actions,
                        const std::function<void(const PipelineAction&)>& act);

  PlanBuilder& builder_;
  PipelinePlacement placement_;
  Manner manner_;
  std::vector<Track> tracks_;
  std::map<std::pair<int, int>, sim::BlockId> exchanges_;
};

}  // namespace trainyard::strategies

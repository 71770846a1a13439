// A forward and a backward pass of two micro-batches at once.
#pragma once

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "strategies/plan_builder.hpp"

namespace trainyard::strategies {

// Takes the blocks of both passes apart where they wait for communication, and calls the pieces in turns: while one
// pass waits, the kernels of the other run (arXiv 2412.19437, section 3.2.1). Passes that wait for nothing take turns
// layer by layer. A pass waits for its own communication only, not for what the other has issued on the same stream.
class PassOverlap {
 public:
  explicit PassOverlap(PlanBuilder& builder) : builder_(builder) {}

  // Each pass in the order of its own calls, and at any time about as far as the other; the backward pass begins, since
  // the first that it does may be communication.
  void write(sim::Program& program, const std::vector<sim::BlockCall>& forward,
             const std::vector<sim::BlockCall>& backward);

 private:
  enum class Pass : std::uint8_t { forward, backward };

  using Turn = std::vector<sim::BlockCall>;
  std::vector<Turn> turns_of(Pass pass, const std::vector<sim::BlockCall>& calls);
  const std::vector<sim::BlockId>& pieces_of(Pass pass, sim::BlockId block);
  std::vector<sim::BlockId> take_apart(Pass pass, const sim::Block& block);
  sim::EventRef event(Pass pass, sim::StreamId stream);

  PlanBuilder& builder_;
  std::map<std::pair<Pass, sim::BlockId>, std::vector<sim::BlockId>> pieces_;
  std::map<std::pair<Pass, sim::StreamId>, sim::EventRef> events_;  // the end of a pass's last communication
};

}  // namespace trainyard::strategies

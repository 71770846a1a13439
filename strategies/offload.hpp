// Activations that wait in host memory between forward and backward.
#pragma once

#include <map>
#include <string>

#include "strategies/plan_builder.hpp"
#include "workloads/layers.hpp"

namespace trainyard::strategies {

// What a layer keeps is copied to the host while the next one is computed, and back while the one behind it is in its
// backward pass; the last layer of a run of layers stays on the device, since it is needed at once. Compute waits for
// the copy of the layer before, so at most two layers' activations are on the device forward, and two backward.
class ActivationOffload {
 public:
  // Does nothing unless the training asks for it.
  ActivationOffload(PlanBuilder& builder, const workloads::Training& training, sim::Duration launch,
                    bool every_second_product);

  bool enabled() const { return enabled_; }
  // Around the passes of layer `index` of a run of `count` layers, which begins at layer `first` of the model.
  struct Place {
    const workloads::Expansion& model;
    std::int64_t first = 0;
    std::int64_t count = 0;
    std::int64_t index = 0;
    std::int32_t micro_batch = 0;
  };
  void after_forward(sim::Program& program, const Place& place);
  void before_backward(sim::Program& program, const Place& place);

  // Every rank has a way to its host of its own.
  void connect(sim::Plan& plan, std::int64_t ranks) const;

 private:
  sim::Bytes kept(const Place& place, std::int64_t index) const;
  void call(sim::Program& program, const Place& place, sim::BlockId block) const;

  PlanBuilder& builder_;
  const workloads::Training& training_;
  sim::Duration launch_;
  bool every_second_product_;
  bool enabled_;
  sim::StreamId out_{};
  sim::StreamId in_{};
  sim::SlotId host_{};
  std::map<std::string, sim::BlockId> blocks_;
};

}  // namespace trainyard::strategies

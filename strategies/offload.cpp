#include "strategies/offload.hpp"

namespace trainyard::strategies {

using sim::Bytes;
using sim::CollectiveKind;
using sim::MemoryPurpose;
using sim::Purpose;

ActivationOffload::ActivationOffload(PlanBuilder& builder, const workloads::Training& training, sim::Duration launch,
                                     bool every_second_product)
    : builder_(builder),
      training_(training),
      launch_(launch),
      every_second_product_(every_second_product),
      enabled_(training.activation_offload) {
  if (!enabled_) return;
  out_ = builder_.stream("offload to host");
  in_ = builder_.stream("fetch from host");
  host_ = builder_.slot("host");
}

Bytes ActivationOffload::kept(const Place& place, std::int64_t index) const {
  return place.model.layer(place.first + index).saved_bytes(training_.recompute, every_second_product_);
}

void ActivationOffload::call(sim::Program& program, const Place& place, sim::BlockId block) const {
  program.calls.push_back({.block = block,
                           .layer = static_cast<std::int32_t>(place.first + place.index),
                           .micro_batch = place.micro_batch});
}

void ActivationOffload::after_forward(sim::Program& program, const Place& place) {
  if (!enabled_ || place.count < 2) return;
  const bool last = place.index + 1 == place.count;
  const Bytes before = place.index > 0 ? kept(place, place.index - 1) : Bytes{};
  const Bytes own = last ? Bytes{} : kept(place, place.index);
  const std::string key = "out " + std::to_string(before.count) + " " + std::to_string(own.count);
  if (!blocks_.contains(key)) {
    BlockWriter block = builder_.block("offload activations", launch_);
    if (before.count > 0) block.wait_for(sim::set_of(out_)).memory(MemoryPurpose::activations, -before);
    if (own.count > 0) block.communicate(out_, builder_.call(host_, CollectiveKind::broadcast, own, Purpose::offload));
    blocks_[key] = block.finish();
  }
  call(program, place, blocks_.at(key));
}

void ActivationOffload::before_backward(sim::Program& program, const Place& place) {
  if (!enabled_ || place.count < 2) return;
  const bool awaits = place.index + 1 < place.count;
  const Bytes next = place.index > 0 ? kept(place, place.index - 1) : Bytes{};
  const std::string key = "in " + std::to_string(next.count) + (awaits ? " awaited" : "");
  if (!blocks_.contains(key)) {
    BlockWriter block = builder_.block("fetch activations", launch_);
    if (awaits) block.wait_for(sim::set_of(in_));
    if (next.count > 0)
      block.memory(MemoryPurpose::activations, next)
          .communicate(in_, builder_.call(host_, CollectiveKind::broadcast, next, Purpose::offload));
    blocks_[key] = block.finish();
  }
  call(program, place, blocks_.at(key));
}

void ActivationOffload::connect(sim::Plan& plan, std::int64_t ranks) const {
  if (!enabled_) return;
  for (std::int64_t i = 0; i < ranks; ++i)
    plan.communicators.add({sim::RankId{static_cast<std::uint32_t>(i)}}, {host_});
}

}  // namespace trainyard::strategies

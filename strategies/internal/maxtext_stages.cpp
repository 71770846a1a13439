#include "strategies/internal/maxtext_stages.hpp"

namespace trainyard::strategies {

using sim::CollectiveKind;
using sim::Purpose;

StageRing::StageRing(PlanBuilder& builder, std::int64_t stages, sim::Bytes message, sim::Duration launch)
    : builder_(builder), stages_(stages), message_(message), launch_(launch) {
  if (stages == 1) return;
  send_stream_ = builder.stream("send to stage");
  receive_stream_ = builder.stream("receive from stage");
  to_ = {builder.slot("next stage"), builder.slot("gradient to previous stage")};
  from_ = {builder.slot("previous stage"), builder.slot("gradient from next stage")};
}

sim::BlockId StageRing::transfer(bool forward, bool sends, bool receives) {
  const std::array key{forward, sends, receives};
  const auto known = blocks_.find(key);
  if (known != blocks_.end()) return known->second;
  const std::size_t direction = forward ? 0 : 1;
  BlockWriter block = builder_.block("permute stages", launch_);
  sim::StreamSet used = 0;
  const auto post = [&](sim::StreamId stream, sim::SlotId slot, CollectiveKind kind) {
    block.communicate(stream, builder_.call(slot, kind, message_, Purpose::pipeline));
    used = static_cast<sim::StreamSet>(used | sim::set_of(stream));
  };
  if (sends) post(send_stream_, to_.at(direction), CollectiveKind::send);
  if (receives) post(receive_stream_, from_.at(direction), CollectiveKind::receive);
  block.wait_for(used);
  return blocks_[key] = block.finish();
}

void StageRing::write(sim::Program& program, std::int64_t stage, const Loop& loop,
                      const std::function<void(std::int64_t item)>& pass) {
  const std::int64_t place = loop.forward ? stage : stages_ - 1 - stage;  // in the direction of the loop
  const auto works = [&](std::int64_t item) { return item >= 0 && item < loop.items(); };
  // What the last stage makes with its last chunk leaves the loop.
  const auto hands_on = [&](std::int64_t from, std::int64_t item) {
    return works(item) && (from + 1 < stages_ || item < loop.items() - loop.micro_batches);
  };
  for (std::int64_t iteration = 0; iteration < loop.items() + stages_ - 1; ++iteration) {
    const std::int64_t item = iteration - place;
    if (works(item)) pass(item);
    const std::int64_t before = place > 0 ? place - 1 : stages_ - 1;
    const bool sends = hands_on(place, item);
    const bool receives = hands_on(before, iteration - before);
    if (sends || receives) program.calls.push_back({.block = transfer(loop.forward, sends, receives)});
  }
}

void StageRing::connect(sim::Plan& plan, const std::function<sim::RankId(sim::RankId)>& next_of) const {
  if (stages_ == 1) return;
  for (std::size_t i = 0; i < plan.program_of.size(); ++i) {
    const sim::RankId rank = plan.program_of.id(i);
    const sim::RankId next = next_of(rank);
    plan.communicators.add({rank, next}, {to_[0], from_[0]});
    plan.communicators.add({next, rank}, {to_[1], from_[1]});
  }
}

}  // namespace trainyard::strategies

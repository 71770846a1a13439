#include "strategies/internal/pipeline_transfers.hpp"

#include <algorithm>

namespace trainyard::strategies {

using sim::CollectiveKind;
using sim::Purpose;

namespace {

constexpr int none = -1;
std::size_t direction_of(const PipelineAction& action) { return action.kind == PipelineAction::Kind::forward ? 0 : 1; }

}  // namespace

PipelineTransfers::PipelineTransfers(PlanBuilder& builder, std::int64_t stages, std::int64_t chunks,
                                     const PipelineMessages& messages, sim::Duration launch, TransferOrder order)
    : builder_(builder), stages_(stages), chunks_(chunks), launch_(launch), order_(order) {
  if (stages == 1) return;
  if (order == TransferOrder::in_turns) {
    send_streams_.fill(builder.stream("send"));
    receive_streams_.fill(builder.stream("receive"));
  } else {
    send_streams_ = {builder.stream("send forward"), builder.stream("send backward")};
    receive_streams_ = {builder.stream("receive forward"), builder.stream("receive backward")};
  }
  to_ = {builder.slot("next stage"), builder.slot("gradient to previous stage")};
  from_ = {builder.slot("previous stage"), builder.slot("gradient from next stage")};
  for (std::size_t i = 0; i < 2; ++i) {
    const sim::Bytes message = i == 0 ? messages.activations : messages.gradients;
    sends_.at(i) = builder.call(to_.at(i), CollectiveKind::send, message, Purpose::pipeline);
    receives_.at(i) = builder.call(from_.at(i), CollectiveKind::receive, message, Purpose::pipeline);
  }
  if (chunks > 1) make_overlapped(launch);
}

void PipelineTransfers::make_overlapped(sim::Duration launch) {
  for (std::size_t i = 0; i < 2; ++i) {
    for (std::size_t turn = 0; turn < 2; ++turn) {
      const sim::EventRef arrived = builder_.event();
      BlockWriter post = builder_.block("post receive", launch);
      post.communicate(receive_streams_.at(i), receives_.at(i), 0, {}, arrived);
      overlapped_.at(i).post.at(turn) = post.finish();
      BlockWriter await = builder_.block("await receive", launch);
      await.wait_for(arrived);
      overlapped_.at(i).await.at(turn) = await.finish();
    }
    BlockWriter send = builder_.block("send", launch);
    send.communicate(send_streams_.at(i), sends_.at(i));
    overlapped_.at(i).send = send.finish();
  }
}

bool PipelineTransfers::receives(std::int64_t stage, const PipelineAction& action) const {
  if (action.kind == PipelineAction::Kind::backward_weight) return false;
  return action.kind == PipelineAction::Kind::forward ? stage > 0 || action.chunk > 0
                                                      : stage + 1 < stages_ || action.chunk + 1 < chunks_;
}

bool PipelineTransfers::sends(std::int64_t stage, const PipelineAction& action) const {
  if (action.kind == PipelineAction::Kind::backward_weight) return false;
  return action.kind == PipelineAction::Kind::forward ? stage + 1 < stages_ || action.chunk + 1 < chunks_
                                                      : stage > 0 || action.chunk > 0;
}

sim::BlockId PipelineTransfers::exchange(int sent, int received) {
  const std::pair key{sent, received};
  const auto known = exchanges_.find(key);
  if (known != exchanges_.end()) return known->second;
  BlockWriter block = builder_.block("transfer", launch_);
  sim::StreamSet used = 0;
  const auto post = [&](sim::StreamId stream, sim::CallId call) {
    block.communicate(stream, call);
    used = static_cast<sim::StreamSet>(used | sim::set_of(stream));
  };
  if (sent != none) post(send_streams_.at(static_cast<std::size_t>(sent)), sends_.at(static_cast<std::size_t>(sent)));
  if (received != none)
    post(receive_streams_.at(static_cast<std::size_t>(received)), receives_.at(static_cast<std::size_t>(received)));
  block.wait_for(used);
  return exchanges_[key] = block.finish();
}

void PipelineTransfers::write_exchanged(sim::Program& program, std::int64_t stage,
                                        const std::vector<PipelineAction>& actions,
                                        const std::function<void(const PipelineAction&)>& pass) {
  for (std::size_t i = 0; i <= actions.size(); ++i) {
    const PipelineAction* done = i > 0 ? &actions[i - 1] : nullptr;
    const PipelineAction* next = i < actions.size() ? &actions[i] : nullptr;
    const int sent = done != nullptr && sends(stage, *done) ? static_cast<int>(direction_of(*done)) : none;
    const int received = next != nullptr && receives(stage, *next) ? static_cast<int>(direction_of(*next)) : none;
    if (sent != none || received != none) {
      const std::int64_t micro_batch = done != nullptr ? done->micro_batch : next->micro_batch;
      program.calls.push_back(
          {.block = exchange(sent, received), .micro_batch = static_cast<std::int32_t>(micro_batch)});
    }
    if (next != nullptr) pass(*next);
  }
}

// A stage receives the gradient for its next pass before it sends what it made where both are one step: stage s works
// forward on micro-batch i in step 2i + s, backward in step 2 (i + stages) - s - 1. In a warm-up that ends before the
// first gradient can be there it sends at once.
void PipelineTransfers::write_in_turns(sim::Program& program, std::int64_t stage,
                                       const std::vector<PipelineAction>& actions,
                                       const std::function<void(const PipelineAction&)>& pass) {
  for (std::size_t i = 0; i <= actions.size(); ++i) {
    const PipelineAction* done = i > 0 ? &actions[i - 1] : nullptr;
    const PipelineAction* next = i < actions.size() ? &actions[i] : nullptr;
    const auto call = [&](sim::BlockId block, const PipelineAction& action) {
      program.calls.push_back({.block = block, .micro_batch = static_cast<std::int32_t>(action.micro_batch)});
    };
    const auto send = [&] {
      if (done != nullptr && sends(stage, *done)) call(exchange(static_cast<int>(direction_of(*done)), none), *done);
    };
    const auto receive = [&] {
      if (next != nullptr && receives(stage, *next)) call(exchange(none, static_cast<int>(direction_of(*next))), *next);
    };
    const bool gradient_first = done != nullptr && next != nullptr && done->kind == PipelineAction::Kind::forward &&
                                next->kind == PipelineAction::Kind::backward &&
                                done->micro_batch - next->micro_batch == stages_ - stage - 1;
    if (gradient_first) receive();
    send();
    if (!gradient_first) receive();
    if (next != nullptr) pass(*next);
  }
}

void PipelineTransfers::write_overlapped(sim::Program& program, std::int64_t stage,
                                         const std::vector<PipelineAction>& actions,
                                         const std::function<void(const PipelineAction&)>& pass) {
  std::array<std::size_t, 2> posted{};  // by direction
  std::array<std::size_t, 2> awaited{};
  const auto call = [&](sim::BlockId block, const PipelineAction& action) {
    program.calls.push_back({.block = block, .micro_batch = static_cast<std::int32_t>(action.micro_batch)});
  };
  std::size_t next = 0;  // to post
  for (std::size_t i = 0; i < actions.size(); ++i) {
    for (; next < std::min(i + 2, actions.size()); ++next) {
      const std::size_t direction = direction_of(actions[next]);
      if (receives(stage, actions[next]))
        call(overlapped_.at(direction).post.at(posted.at(direction)++ % 2), actions[next]);
    }
    Overlapped& transfers = overlapped_.at(direction_of(actions[i]));
    if (receives(stage, actions[i])) call(transfers.await.at(awaited.at(direction_of(actions[i]))++ % 2), actions[i]);
    pass(actions[i]);
    if (sends(stage, actions[i])) call(transfers.send, actions[i]);
  }
}

void PipelineTransfers::write(sim::Program& program, std::int64_t stage, const std::vector<PipelineAction>& actions,
                              const std::function<void(const PipelineAction&)>& pass) {
  if (stages_ == 1)
    for (const PipelineAction& action : actions) pass(action);
  else if (chunks_ > 1)
    write_overlapped(program, stage, actions, pass);
  else if (order_ == TransferOrder::in_turns)
    write_in_turns(program, stage, actions, pass);
  else
    write_exchanged(program, stage, actions, pass);
}

void PipelineTransfers::connect(sim::Plan& plan, const RankGrid& grid, std::size_t axis) const {
  if (stages_ == 1) return;
  for (std::int64_t i = 0; i < grid.ranks(); ++i) {
    const sim::RankId rank{static_cast<std::uint32_t>(i)};
    const std::int64_t stage = grid.coordinate(rank, axis);
    if (stage + 1 == stages_ && chunks_ == 1) continue;
    const sim::RankId next = grid.moved(rank, axis, (stage + 1) % stages_);
    plan.communicators.add({rank, next}, {to_[0], from_[0]});
    plan.communicators.add({next, rank}, {to_[1], from_[1]});
  }
}

}  // namespace trainyard::strategies

#include "strategies/internal/pipeline_transfers.hpp"

#include <algorithm>
#include <string>

namespace trainyard::strategies {

using sim::CollectiveKind;
using sim::Purpose;
using Kind = PipelineAction::Kind;

namespace {

// Per action, one past the last whose receives are posted before it: the next action that may receive.
std::vector<std::size_t> posted_one_ahead(const std::vector<PipelineAction>& actions) {
  std::vector<std::size_t> until;
  for (std::size_t i = 0; i < actions.size(); ++i) {
    std::size_t next = i + 1;
    while (next < actions.size() && actions[next].kind == Kind::backward_weight) ++next;
    until.push_back(std::min(next + 1, actions.size()));
  }
  return until;
}

// Likewise of the stage at the other end of an interleaved pipeline than the sender: it posts a receive when, all
// stages working in step, the sender sends, which is stages - 1 passes behind. In groups of more micro-batches than
// stages that is long before the receiver needs it (recv_tensor_from_previous_stage in megatron/core/
// pipeline_parallel/schedules.py).
std::vector<std::size_t> posted_in_step(const std::vector<PipelineAction>& actions, std::int64_t stages, bool forward) {
  std::vector<std::optional<PipelineAction>> passes;                    // of the track, by action
  std::map<std::pair<std::int64_t, std::int64_t>, std::int64_t> turns;  // of chunk and micro-batch
  for (const PipelineAction& action : actions) {
    passes.emplace_back();
    for (const PipelineAction& pass : action.passes())
      if (pass.kind != Kind::backward_weight && (pass.kind == Kind::forward) == forward) passes.back() = pass;
    if (const auto& pass = passes.back()) turns.emplace(std::pair{pass->chunk, pass->micro_batch}, std::ssize(turns));
  }
  const std::int64_t step = forward ? 1 : -1;  // of chunks
  std::vector<std::size_t> until = posted_one_ahead(actions);
  std::size_t next = 0;
  std::int64_t turn = -1;
  for (std::size_t i = 0; i < actions.size(); ++i) {
    if (passes[i]) ++turn;
    for (; next < actions.size(); ++next) {
      if (!passes[next]) continue;
      const auto sent = turns.find({passes[next]->chunk - step, passes[next]->micro_batch});
      if (sent != turns.end() && sent->second + stages - 1 > turn) break;
    }
    until[i] = std::max(until[i], next);
  }
  return until;
}

}  // namespace

PipelineTransfers::PipelineTransfers(PlanBuilder& builder, const PipelinePlacement& placement,
                                     const PipelineMessages& messages, const Manner& manner)
    : builder_(builder), placement_(placement), manner_(manner) {
  if (placement.stages() == 1) return;
  for (const std::string way : {"", " on the way back"}) {
    if (!way.empty() && !placement.has_way_back()) break;
    for (const bool forward : {true, false}) {
      Track& track = tracks_.emplace_back();
      const std::string direction = (forward ? "forward" : "backward") + way;
      const bool shares_streams = manner.order == TransferOrder::in_turns && !forward;
      track.send_stream = shares_streams ? tracks_.front().send_stream : builder.stream("send " + direction);
      track.receive_stream = shares_streams ? tracks_.front().receive_stream : builder.stream("receive " + direction);
      const PipelineMessage& message = forward ? messages.activations : messages.gradients;
      track.to = builder.slot((forward ? "next stage" : "gradient to previous stage") + way);
      track.from = builder.slot((forward ? "previous stage" : "gradient from next stage") + way);
      track.send = builder.call(track.to, CollectiveKind::send, message.bytes, Purpose::pipeline);
      track.receive = builder.call(track.from, CollectiveKind::receive, message.bytes, Purpose::pipeline);
      track.arrival = message.arrival;
      if (manner.order == TransferOrder::ahead) make_ahead(track);
    }
  }
}

// As many receives of a track may be open as are posted ahead, and the one that is waited for.
void PipelineTransfers::make_ahead(Track& track) {
  const std::int64_t ahead =
      1 + (placement_.wraps() ? std::max<std::int64_t>(0, manner_.group - placement_.stages()) : 0);
  for (std::int64_t turn = 0; turn <= ahead; ++turn) {
    const sim::EventRef arrived = builder_.event();
    BlockWriter post = builder_.block("post receive", manner_.launch);
    post.communicate(track.receive_stream, track.receive, 0, {}, arrived);
    track.post_blocks.push_back(post.finish());
    BlockWriter await = builder_.block("await receive", manner_.launch);
    await.wait_for(arrived);
    track.await_blocks.push_back(await.finish());
  }
  BlockWriter send = builder_.block("send", manner_.launch);
  send.communicate(track.send_stream, track.send);
  track.send_block = send.finish();
}

std::size_t PipelineTransfers::track_of(const PipelineAction& pass) const {
  return (placement_.goes_back(pass.chunk) ? 2U : 0U) + (pass.kind == Kind::forward ? 0U : 1U);
}

bool PipelineTransfers::receives(std::int64_t stage, const PipelineAction& pass) const {
  if (pass.kind == Kind::backward_weight) return false;
  return pass.kind == Kind::forward ? placement_.input_arrives(stage, pass.chunk)
                                    : placement_.output_departs(stage, pass.chunk);
}

bool PipelineTransfers::sends(std::int64_t stage, const PipelineAction& pass) const {
  if (pass.kind == Kind::backward_weight) return false;
  return pass.kind == Kind::forward ? placement_.output_departs(stage, pass.chunk)
                                    : placement_.input_arrives(stage, pass.chunk);
}

// What the last stage hands on to the first, or the first back to the last, comes long before its turn.
bool PipelineTransfers::receives_early(std::int64_t stage, std::size_t track) const {
  return placement_.wraps() && manner_.group > placement_.stages() &&
         stage == (track == 0 ? 0 : placement_.stages() - 1);
}

void PipelineTransfers::call_exchange(sim::Program& program, const Exchange& exchange, Turn named) {
  if (exchange == Exchange{}) return;
  auto known = exchanges_.find(exchange);
  if (known == exchanges_.end()) known = exchanges_.emplace(exchange, exchange_block(exchange)).first;
  program.calls.push_back({.block = known->second, .micro_batch = static_cast<std::int32_t>(named[0].micro_batch)});
}

sim::BlockId PipelineTransfers::exchange_block(const Exchange& exchange) {
  BlockWriter block = builder_.block("transfer", manner_.launch);
  sim::StreamSet used = 0;
  const auto post = [&](const std::array<bool, 4>& tracks, auto stream, auto call) {
    for (std::size_t index = 0; index < tracks_.size(); ++index) {
      if (!tracks.at(index)) continue;
      block.communicate(tracks_[index].*stream, tracks_[index].*call);
      used = static_cast<sim::StreamSet>(used | sim::set_of(tracks_[index].*stream));
    }
  };
  post(exchange.sent, &Track::send_stream, &Track::send);
  post(exchange.received, &Track::receive_stream, &Track::receive);
  block.wait_for(used);
  if (manner_.host_waits) block.host_wait(used);
  return block.finish();
}

void PipelineTransfers::call_arrival(sim::Program& program, const PipelineAction& pass) const {
  if (const std::optional<sim::BlockId> arrival = tracks_[track_of(pass)].arrival)
    program.calls.push_back({.block = *arrival, .micro_batch = static_cast<std::int32_t>(pass.micro_batch)});
}

PipelineTransfers::Turn PipelineTransfers::next_turn(Turn left) const {
  const bool pair = manner_.order == TransferOrder::in_pairs && left.size() > 1 && left[0].kind == Kind::forward &&
                    left[1].kind != Kind::forward;
  return left.first(pair ? 2 : std::min<std::size_t>(left.size(), 1));
}

// Stage s works forward on micro-batch i in step 2i + s, backward in step 2 (i + stages) - s - 1: what it sends and the
// gradient it receives are of one step, unless its warm-up ends before the first gradient can be there.
bool PipelineTransfers::gradient_comes_first(std::int64_t stage, Turn done, Turn next) const {
  return !done.empty() && !next.empty() && done[0].kind == Kind::forward && next[0].kind == Kind::backward &&
         done[0].micro_batch - next[0].micro_batch == placement_.stages() - stage - 1;
}

void PipelineTransfers::write_waiting(sim::Program& program, std::int64_t stage, Turn left, const Act& act) {
  Turn done;
  while (!left.empty() || !done.empty()) {
    const Turn next = next_turn(left);
    Exchange exchange;
    for (const PipelineAction& pass : done)
      if (sends(stage, pass)) exchange.sent.at(track_of(pass)) = true;
    for (const PipelineAction& pass : next)
      if (receives(stage, pass)) exchange.received.at(track_of(pass)) = true;
    if (manner_.order != TransferOrder::in_turns) {
      call_exchange(program, exchange, done.empty() ? next : done);
    } else {
      const bool receive_first = gradient_comes_first(stage, done, next);
      if (receive_first) call_exchange(program, {.received = exchange.received}, next);
      call_exchange(program, {.sent = exchange.sent}, done);
      if (!receive_first) call_exchange(program, {.received = exchange.received}, next);
    }
    for (const PipelineAction& pass : next)
      if (receives(stage, pass)) call_arrival(program, pass);
    for (const PipelineAction& action : next) act(action);
    done = next;
    left = left.subspan(next.size());
  }
}

void PipelineTransfers::write_ahead(sim::Program& program, std::int64_t stage,
                                    const std::vector<PipelineAction>& actions, const Act& act) {
  struct Progress {
    std::vector<std::size_t> posted_until{};  // before each action
    std::size_t next = 0;                     // action to post
    std::size_t posted = 0;
    std::size_t awaited = 0;
  };
  std::vector<Progress> progress(tracks_.size());
  for (std::size_t index = 0; index < tracks_.size(); ++index)
    progress[index].posted_until = receives_early(stage, index)
                                       ? posted_in_step(actions, placement_.stages(), index == 0)
                                       : posted_one_ahead(actions);
  const auto call = [&](sim::BlockId block, const PipelineAction& pass) {
    program.calls.push_back({.block = block, .micro_batch = static_cast<std::int32_t>(pass.micro_batch)});
  };
  const auto turn = [](const std::vector<sim::BlockId>& blocks, std::size_t& count) {
    return blocks[count++ % blocks.size()];
  };
  const auto post_ahead = [&](std::size_t index, std::size_t now) {
    Progress& track = progress[index];
    for (; track.next < track.posted_until[now]; ++track.next)
      for (const PipelineAction& pass : actions[track.next].passes())
        if (track_of(pass) == index && receives(stage, pass))
          call(turn(tracks_[index].post_blocks, track.posted), pass);
  };
  for (std::size_t i = 0; i < actions.size(); ++i) {
    for (std::size_t index = 0; index < tracks_.size(); ++index) post_ahead(index, i);
    const std::vector<PipelineAction> passes = actions[i].passes();
    for (const PipelineAction& pass : passes) {
      if (!receives(stage, pass)) continue;
      call(turn(tracks_[track_of(pass)].await_blocks, progress[track_of(pass)].awaited), pass);
      call_arrival(program, pass);
    }
    act(actions[i]);
    for (const PipelineAction& pass : passes)
      if (sends(stage, pass)) call(tracks_[track_of(pass)].send_block, pass);
  }
}

void PipelineTransfers::write(sim::Program& program, std::int64_t stage, const std::vector<PipelineAction>& actions,
                              const Act& act) {
  if (placement_.stages() == 1)
    for (const PipelineAction& action : actions) act(action);
  else if (manner_.order == TransferOrder::ahead)
    write_ahead(program, stage, actions, act);
  else
    write_waiting(program, stage, actions, act);
}

void PipelineTransfers::connect(sim::Plan& plan, const RankGrid& grid, std::size_t axis) const {
  const std::int64_t stages = placement_.stages();
  if (stages == 1) return;
  for (std::int64_t i = 0; i < grid.ranks(); ++i) {
    const sim::RankId rank{static_cast<std::uint32_t>(i)};
    const std::int64_t stage = grid.coordinate(rank, axis);
    if (stage + 1 == stages && !placement_.wraps()) continue;
    const sim::RankId next = grid.moved(rank, axis, (stage + 1) % stages);
    // Up to the next stage, and back from it.
    const auto join = [&](const Track& up, const Track& down) {
      plan.communicators.add({rank, next}, {up.to, up.from});
      plan.communicators.add({next, rank}, {down.to, down.from});
    };
    join(tracks_[0], tracks_[1]);
    if (placement_.has_way_back()) join(tracks_[3], tracks_[2]);
  }
}

}  // namespace trainyard::strategies

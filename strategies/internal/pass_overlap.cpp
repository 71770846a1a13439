#include "strategies/internal/pass_overlap.hpp"

#include <algorithm>
#include <string>
#include <variant>

namespace trainyard::strategies {

using sim::Block;
using sim::BlockCall;
using sim::BlockId;
using sim::Op;
using sim::StreamId;

namespace {

// Memory that changes hands does not take time.
bool begins_with_wait(const Block& block) {
  const auto first =
      std::ranges::find_if(block.ops, [](const Op& op) { return !std::holds_alternative<sim::Memory>(op.work); });
  return first != block.ops.end() && std::holds_alternative<sim::Wait>(first->work);
}

}  // namespace

void PassOverlap::write(sim::Program& program, const std::vector<BlockCall>& forward,
                        const std::vector<BlockCall>& backward) {
  const std::vector<Turn> f = turns_of(Pass::forward, forward);
  const std::vector<Turn> b = turns_of(Pass::backward, backward);
  std::size_t next_f = 0;
  std::size_t next_b = 0;
  while (next_f < f.size() || next_b < b.size()) {
    const bool ahead = next_b * f.size() > next_f * b.size();  // the backward pass
    const Turn& turn = next_b < b.size() && !ahead ? b[next_b++] : f[next_f++];
    program.calls.insert(program.calls.end(), turn.begin(), turn.end());
  }
}

// From one wait to the next, whichever blocks lie between.
std::vector<PassOverlap::Turn> PassOverlap::turns_of(Pass pass, const std::vector<BlockCall>& calls) {
  std::vector<BlockCall> pieces;
  for (BlockCall call : calls) {
    for (const BlockId piece : pieces_of(pass, call.block)) {
      call.block = piece;
      pieces.push_back(call);
    }
  }
  const auto waits = [&](const BlockCall& call) { return begins_with_wait(builder_.plan().blocks[call.block]); };
  const bool ever_waits = std::ranges::any_of(pieces, waits);
  std::vector<Turn> turns;
  for (const BlockCall& piece : pieces) {
    if (turns.empty() || !ever_waits || waits(piece)) turns.emplace_back();
    turns.back().push_back(piece);
  }
  return turns;
}

const std::vector<BlockId>& PassOverlap::pieces_of(Pass pass, BlockId block) {
  const auto known = pieces_.find({pass, block});
  if (known != pieces_.end()) return known->second;
  const Block whole = builder_.plan().blocks[block];  // adding pieces may move it
  return pieces_[{pass, block}] = take_apart(pass, whole);
}

// Traces know from the first word that two passes run at once.
std::vector<BlockId> PassOverlap::take_apart(Pass pass, const Block& block) {
  std::vector<Block> pieces{{.name = "overlapped-" + block.name, .launch = block.launch, .ops = {}}};
  std::map<StreamId, sim::EventRef> ends;  // of communications of the block
  bool begun = false;                      // the last piece does something to wait behind
  for (Op op : block.ops) {
    if (std::holds_alternative<sim::Communicate>(op.work)) {
      if (!op.records) op.records = event(pass, op.stream);
      ends[op.stream] = *op.records;
    }
    const bool waits = std::holds_alternative<sim::Wait>(op.work);
    if (waits) {
      for (const auto& [stream, end] : ends) {
        if ((op.after & sim::set_of(stream)) == 0) continue;
        op.after = static_cast<sim::StreamSet>(op.after & ~sim::set_of(stream));
        op.waits.push_back(end);
      }
      if (begun) {
        pieces.push_back({.name = pieces.front().name, .launch = block.launch, .ops = {}});
        begun = false;
      }
    } else {
      begun |= !std::holds_alternative<sim::Memory>(op.work);
    }
    pieces.back().ops.push_back(std::move(op));
  }
  std::vector<BlockId> ids;
  ids.reserve(pieces.size());
  for (Block& piece : pieces) ids.push_back(builder_.plan().blocks.add(std::move(piece)));
  return ids;
}

sim::EventRef PassOverlap::event(Pass pass, StreamId stream) {
  const auto known = events_.find({pass, stream});
  if (known != events_.end()) return known->second;
  return events_[{pass, stream}] = builder_.event();
}

}  // namespace trainyard::strategies

#include "sim/internal/origins.hpp"

#include <map>
#include <utility>
#include <variant>

namespace trainyard::sim {

Origins::Origins(const Plan& plan, bool per_operation) {
  if (!per_operation) return;
  std::map<std::pair<BlockId, std::int32_t>, std::uint32_t> first_of;
  for (const Program& program : plan.programs) {
    std::vector<std::uint32_t>& first = first_.emplace_back();
    first.reserve(program.calls.size());
    for (const BlockCall& call : program.calls) {
      const auto next = static_cast<std::uint32_t>(operations_.size());
      const auto [known, is_new] = first_of.try_emplace({call.block, call.layer}, next);
      first.push_back(known->second);
      if (!is_new) continue;
      const Block& block = plan.blocks[call.block];
      for (std::uint32_t op = 0; op < block.ops.size(); ++op) {
        operations_.push_back({.block = call.block, .op = op, .layer = call.layer, .time = {}});
        const auto* communicate = std::get_if<Communicate>(&block.ops[op].work);
        called_.push_back(communicate != nullptr ? Called{true, communicate->call} : Called{});
      }
    }
  }
}

}  // namespace trainyard::sim

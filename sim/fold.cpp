#include "sim/fold.hpp"

#include <algorithm>
#include <string_view>
#include <unordered_map>
#include <utility>

namespace trainyard::sim {
namespace {

using Colour = std::uint32_t;
constexpr Colour no_communicator = 0xffffffff;

// Gives equal rows equal numbers, counted from 0 in order of first appearance; compares whole rows, so that no two
// different ones can be taken for the same.
class Numbering {
 public:
  explicit Numbering(std::size_t rows) { numbers_.reserve(rows); }
  Colour operator()(const Colour* row, std::size_t length) {
    const std::string_view key(reinterpret_cast<const char*>(row), length * sizeof(Colour));
    return numbers_.try_emplace(key, static_cast<Colour>(numbers_.size())).first->second;
  }
  std::size_t size() const { return numbers_.size(); }

 private:
  std::unordered_map<std::string_view, Colour> numbers_;  // only looked up, never walked
};

class Refinement {
 public:
  explicit Refinement(const Plan& plan)
      : plan_(plan), ranks_(plan.program_of.size()), communicators_(plan.communicators.size()) {
    for (std::size_t i = 0; i < ranks_.size(); ++i)
      ranks_[i] = static_cast<Colour>(index_of(plan.program_of[plan.program_of.id(i)]));
  }

  void run() {
    std::size_t classes = 0;
    while (true) {
      colour_communicators();
      const std::size_t refined = colour_ranks();
      if (refined == classes) return;
      classes = refined;
    }
  }

  const std::vector<Colour>& ranks() const { return ranks_; }
  const std::vector<Colour>& communicators() const { return communicators_; }

 private:
  // By cost class and by the set of what its members are.
  void colour_communicators() {
    std::vector<Colour> rows;
    std::vector<std::pair<std::size_t, std::size_t>> extents;
    std::vector<std::pair<Colour, Colour>> members;
    for (std::size_t i = 0; i < communicators_.size(); ++i) {
      const Communicator& communicator = plan_.communicators[CommunicatorId{static_cast<std::uint32_t>(i)}];
      members.clear();
      for (std::uint32_t m = 0; m < communicator.member_count; ++m)
        members.emplace_back(static_cast<Colour>(index_of(plan_.communicators.member_slot(communicator, m))),
                             ranks_[index_of(plan_.communicators.member(communicator, m))]);
      std::ranges::sort(members);
      members.erase(std::unique(members.begin(), members.end()), members.end());
      const std::size_t from = rows.size();
      rows.push_back(static_cast<Colour>(index_of(communicator.cost)));
      for (const auto& [slot, colour] : members) {
        rows.push_back(slot);
        rows.push_back(colour);
      }
      extents.emplace_back(from, rows.size() - from);
    }
    Numbering number(communicators_.size());
    for (std::size_t i = 0; i < communicators_.size(); ++i)
      communicators_[i] = number(rows.data() + extents[i].first, extents[i].second);
  }

  // By what it was and by its communicators, slot by slot.
  std::size_t colour_ranks() {
    const std::size_t slots = plan_.communicators.slots();
    const std::size_t width = slots + 1;
    std::vector<Colour> rows(ranks_.size() * width, no_communicator);
    for (std::size_t i = 0; i < ranks_.size(); ++i) {
      const RankId rank = plan_.program_of.id(i);
      rows[i * width] = ranks_[i];
      for (std::size_t s = 0; s < slots; ++s) {
        const SlotId slot{static_cast<std::uint8_t>(s)};
        if (plan_.communicators.has(rank, slot))
          rows[i * width + 1 + s] = communicators_[index_of(plan_.communicators.of(rank, slot))];
      }
    }
    Numbering number(ranks_.size());
    for (std::size_t i = 0; i < ranks_.size(); ++i) ranks_[i] = number(rows.data() + i * width, width);
    return number.size();
  }

  const Plan& plan_;
  std::vector<Colour> ranks_;
  std::vector<Colour> communicators_;
};

}  // namespace

Population fold(const Plan& plan) {
  Refinement refinement(plan);
  refinement.run();
  Population population;
  for (std::size_t i = 0; i < plan.program_of.size(); ++i) {
    const RankId stands_for{refinement.ranks()[i]};
    if (index_of(stands_for) == population.weight.size()) {
      population.program_of.add(plan.program_of[plan.program_of.id(i)]);
      population.weight.add(0);
      population.representative.add(plan.program_of.id(i));
    }
    ++population.weight[stands_for];
    population.class_of.add(stands_for);
  }

  population.communicators = CommunicatorTable(population.program_of.size(), plan.communicators.slots());
  for (std::size_t i = 0; i < plan.communicators.size(); ++i) {
    const CommunicatorId stands_for{refinement.communicators()[i]};
    if (index_of(stands_for) == population.communicator_weight.size()) {
      const Communicator& communicator = plan.communicators[CommunicatorId{static_cast<std::uint32_t>(i)}];
      std::vector<std::pair<RankId, SlotId>> members;
      for (std::uint32_t m = 0; m < communicator.member_count; ++m)
        members.emplace_back(population.class_of[plan.communicators.member(communicator, m)],
                             plan.communicators.member_slot(communicator, m));
      std::ranges::sort(members);
      members.erase(std::unique(members.begin(), members.end()), members.end());
      std::vector<RankId> ranks;
      std::vector<SlotId> slots;
      for (const auto& [rank, slot] : members) {
        ranks.push_back(rank);
        slots.push_back(slot);
      }
      population.communicators[population.communicators.add(ranks, slots)].cost = communicator.cost;
      population.communicator_weight.add(0);
    }
    ++population.communicator_weight[stands_for];
  }
  return population;
}

Population everyone(const Plan& plan) {
  Population population;
  population.program_of = plan.program_of;
  population.weight = Table<RankId, std::int64_t>(plan.program_of.size(), 1);
  for (std::size_t i = 0; i < plan.program_of.size(); ++i) {
    population.representative.add(plan.program_of.id(i));
    population.class_of.add(plan.program_of.id(i));
  }
  population.communicators = plan.communicators;
  population.communicator_weight = Table<CommunicatorId, std::int64_t>(plan.communicators.size(), 1);
  return population;
}

}  // namespace trainyard::sim

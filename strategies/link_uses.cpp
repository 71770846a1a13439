#include "strategies/link_uses.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <utility>

#include "strategies/internal/connections.hpp"
#include "strategies/internal/group_survey.hpp"

namespace trainyard::strategies {
namespace {

// What a connection of one of a communicator's traffics carries.
struct Flow {
  std::optional<sim::TrafficPattern> pattern;  // absent: no call of the program causes it
  std::array<std::int64_t, sim::purposes> bytes{};
};

class LinkSurvey {
 public:
  LinkSurvey(const sim::Plan& plan, const topology::Cluster& cluster)
      : plan_(plan), surveyor_(cluster), connections_(cluster, surveyor_), uses_(cluster.link_count()) {
    for (const sim::Program& program : plan.programs) counts_.push_back(sim::call_counts(plan, program));
  }

  std::vector<LinkUses> survey() {
    for (std::size_t i = 0; i < plan_.communicators.size(); ++i)
      add(plan_.communicators[sim::CommunicatorId{static_cast<std::uint32_t>(i)}]);
    return std::move(uses_);
  }

 private:
  void add(const sim::Communicator& communicator) {
    const std::vector<Flow>& flows = flows_of(communicator);
    surveyor_.look_at(plan_.communicators, communicator);
    for (const Flow& flow : flows) {
      if (!flow.pattern) continue;
      for (const LinkUse& use : connections_.collect(communicator, *flow.pattern)) add(use, flow);
    }
  }

  // Sums are rounded as they are for all purposes together, so that they add up.
  void add(const LinkUse& use, const Flow& flow) {
    LinkUses& uses = uses_[sim::index_of(use.link)];
    std::int64_t whole = 0;
    std::int64_t given = 0;
    for (std::size_t p = 0; p < sim::purposes; ++p) {
      whole += flow.bytes.at(p);
      const std::int64_t so_far = use.numerator == use.denominator
                                      ? whole
                                      : sim::scaled(sim::Bytes{whole}, use.numerator, use.denominator).count;
      uses.at(p) += sim::Bytes{so_far - given};
      given = so_far;
    }
  }

  const std::vector<Flow>& flows_of(const sim::Communicator& communicator) {
    const std::size_t program = sim::index_of(plan_.program_of[plan_.communicators.member(communicator, 0)]);
    const auto [known, is_new] = flows_.try_emplace({communicator.cost, program}, communicator.traffic_count);
    if (!is_new) return known->second;
    const auto& row = plan_.costs[communicator.cost];
    const sim::SlotId slot = plan_.communicators.member_slot(communicator, 0);
    for (std::size_t c = 0; c < row.size(); ++c) {
      const sim::Call& call = plan_.calls[plan_.calls.id(c)];
      if (call.slot != slot || row[c].traffic == sim::no_traffic || counts_[program][c] == 0) continue;
      Flow& flow = known->second.at(row[c].traffic);
      flow.pattern = row[c].pattern;
      std::int64_t& sum = flow.bytes.at(static_cast<std::size_t>(call.purpose));
      sum = sim::checked_add(sum, sim::checked_multiply(counts_[program][c], row[c].flow_bytes.count));
    }
    return known->second;
  }

  const sim::Plan& plan_;
  Surveyor surveyor_;
  Connections connections_;
  std::vector<std::vector<std::int64_t>> counts_;                                // calls per program and step
  std::map<std::pair<sim::CostClassId, std::size_t>, std::vector<Flow>> flows_;  // for a program
  std::vector<LinkUses> uses_;
};

}  // namespace

std::vector<LinkUses> link_uses(const sim::Plan& plan, const topology::Cluster& cluster) {
  return LinkSurvey(plan, cluster).survey();
}

}  // namespace trainyard::strategies

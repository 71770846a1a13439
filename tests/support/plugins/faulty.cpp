// Strategies that fail, each at another place.
#include <stdexcept>

#include "strategies/plugin.hpp"
#include "strategies/traffic.hpp"

namespace {

using namespace trainyard;
using strategies::Job;
using strategies::make;

class Quiet : public strategies::Strategy {
 public:
  std::vector<sim::Key> keys() override { return {}; }
  std::vector<strategies::Problem> check(const Job& /*job*/) const override { return {}; }
  std::vector<std::string> warnings(const Job& /*job*/) const override { return {}; }
  strategies::PlannedStep plan(const Job& /*job*/) const override { return {}; }
};

class FailsInKeys final : public Quiet {
 public:
  std::vector<sim::Key> keys() override { throw std::runtime_error("no keys today"); }
};

class FailsInCheck final : public Quiet {
 public:
  std::vector<strategies::Problem> check(const Job& /*job*/) const override {
    throw std::out_of_range("the third layer is missing");
  }
};

class FailsInPlan final : public Quiet {
 public:
  strategies::PlannedStep plan(const Job& /*job*/) const override { throw 42; }
};

class TooLarge final : public Quiet {
 public:
  strategies::PlannedStep plan(const Job& job) const override {
    strategies::PlannedStep step;
    step.micro_batch = (sim::Bytes{job.cluster.devices()} * (std::int64_t{1} << 62U)).count;
    return step;
  }
};

// The first rank never takes part in what all others wait for.
class Stalls final : public Quiet {
 public:
  strategies::PlannedStep plan(const Job& job) const override {
    strategies::PlannedStep step;
    sim::Plan& plan = step.plan;
    plan.streams.add("compute");
    const sim::SlotId slot = plan.slots.add("data");
    const sim::CallId call = plan.calls.add({.slot = slot, .bytes = sim::Bytes{4}});
    const auto ranks = static_cast<std::size_t>(job.cluster.devices());
    plan.communicators = sim::CommunicatorTable(ranks, 1);
    std::vector<sim::RankId> members;
    for (std::size_t rank = 0; rank < ranks; ++rank) members.push_back(plan.program_of.add(sim::ProgramId{rank == 0}));
    plan.communicators.add(members, std::vector<sim::SlotId>(ranks, slot));
    const sim::BlockId block =
        plan.blocks.add({.name = "reduce", .launch = {}, .ops = {{.work = sim::Communicate{call}}}});
    plan.programs.add({.name = "most", .calls = {{.block = block}}});
    plan.programs.add({.name = "the first", .calls = {}});
    strategies::price_communications(plan, job.cluster);
    return step;
  }
};

// Its only stream is missing.
class BreaksARule final : public Quiet {
 public:
  strategies::PlannedStep plan(const Job& job) const override {
    strategies::PlannedStep step;
    sim::Plan& plan = step.plan;
    const auto ranks = static_cast<std::size_t>(job.cluster.devices());
    plan.communicators = sim::CommunicatorTable(ranks, 0);
    for (std::size_t rank = 0; rank < ranks; ++rank) plan.program_of.add(sim::ProgramId{});
    plan.programs.add({.name = "nothing", .calls = {}});
    return step;
  }
};

// A group of ranks that have no such slot.
class BreaksARuleEarly final : public Quiet {
 public:
  strategies::PlannedStep plan(const Job& job) const override {
    sim::CommunicatorTable table(static_cast<std::size_t>(job.cluster.devices()), 1);
    table.of(sim::RankId{}, sim::SlotId{});
    return {};
  }
};

std::unique_ptr<strategies::Strategy> make_nothing() { return nullptr; }

}  // namespace

TRAINYARD_PLUGIN({"fails-in-keys", "throws when it is asked for its options", &make<FailsInKeys>},
                 {"fails-in-check", "throws when a job is checked", &make<FailsInCheck>},
                 {"fails-in-plan", "throws a number", &make<FailsInPlan>},
                 {"too-large", "counts beyond 64 bits", &make<TooLarge>},
                 {"stalls", "has ranks wait for one that never comes", &make<Stalls>},
                 {"breaks-a-rule", "has no stream", &make<BreaksARule>},
                 {"breaks-a-rule-early", "has ranks look for a group that is not there", &make<BreaksARuleEarly>},
                 {"makes-nothing", "is not there", &make_nothing})

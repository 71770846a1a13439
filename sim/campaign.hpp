// A training run of days to years, as the discrete events that matter at that scale: what fails, what is saved, how
// training comes back. Steps do not appear; between two events training only goes on, which is arithmetic.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "sim/goodput.hpp"
#include "sim/long_time.hpp"

namespace trainyard::sim {

// Why training stops. The last two are planned: it is saved first.
enum class StopKind : std::uint8_t { device, node, link, spot, straggler, rejoin };
constexpr std::array<std::string_view, 6> stop_names{"device", "node", "link", "spot", "straggler", "rejoin"};
constexpr std::size_t stop_kinds = stop_names.size();
constexpr bool is_planned(StopKind kind) { return kind == StopKind::straggler || kind == StopKind::rejoin; }

// What time goes to.
enum class TimeUse : std::uint8_t {
  useful,      // training that is kept, at full speed
  straggler,   // what that training took longer because a node was slow
  reduced,     // what it took longer because nodes were missing
  lost_work,   // training after the last save, done again after a failure
  checkpoint,  // saving
  detect,      // until a failure is noticed
  capacity,    // waiting for nodes
  reschedule,  // starting processes, on other nodes perhaps
  reload,      // reading the checkpoint
  warm_up      // compilation, connections, caches: until steps are as fast as before
};
constexpr std::array<std::string_view, 10> time_use_names{"useful",     "straggler", "reduced",  "lost_work",
                                                          "checkpoint", "detect",    "capacity", "reschedule",
                                                          "reload",     "warm_up"};
constexpr std::size_t time_uses = time_use_names.size();

// Parts of a kind that fail one by one. A failure stops training, wherever it is.
struct FailureProcess {
  StopKind kind = StopKind::device;
  std::int64_t parts = 0;
  LongDuration mtbf;    // of one of them
  double shape = 1;     // Weibull's: below 1 new parts fail more often (infant mortality), 1 is exponential
  double replaced = 1;  // share of failures after which the node leaves for repair; after others it starts again
};

struct RestartTimes {
  LongDuration detect;
  LongDuration reschedule;  // with another node
  LongDuration in_place;    // instead, where no node is replaced
  LongDuration reload;
  LongDuration warm_up;
};

// Slow nodes, which nobody notices at once. Training runs at the pace of the slowest.
struct Stragglers {
  double share = 0;                   // of nodes that are slow, from when they join
  double slowdown = 1;                // of training where at least one is
  std::optional<LongDuration> found;  // after that long they are replaced, each as likely slow as any; absent: never
};

// Nodes that their owner takes back.
struct Spot {
  LongDuration interruption;  // of one node, mean of an exponential distribution
  LongDuration notice;        // training is saved where that is long enough, at once
  LongDuration wait;          // for another node, mean of RandomStream::heavy_tailed; 0: there is one at once
};

// Goes on with fewer data-parallel replicas while nodes are missing, at a rate that is so much lower. A replica needs
// all of its nodes; those of an incomplete one fill gaps in others.
struct Elastic {
  std::int64_t replicas = 1;
  LongDuration reshard;  // instead of RestartTimes::reschedule
};

struct CampaignInputs {
  LongDuration duration;
  std::int64_t nodes = 0;
  std::vector<FailureProcess> failures;
  CheckpointTimes checkpoint;
  RestartTimes restart;
  std::optional<std::int64_t> spares;  // nodes that take over; absent: there is always another one
  LongDuration repair;                 // of a node that has left
  std::optional<Stragglers> stragglers;
  std::optional<Spot> spot;
  std::optional<Elastic> elastic;
};

struct CampaignOutcome {
  std::array<LongDuration, time_uses> time{};  // by TimeUse; adds up to the duration, exactly
  std::array<std::int64_t, stop_kinds> stops{};
  LongDuration trained;             // in all, kept or not
  LongDuration trained_straggling;  // of it, with a slow node
  LongDuration of(TimeUse use) const { return time.at(static_cast<std::size_t>(use)); }
};

// Training begins complete and saved. What has been trained when the campaign ends is kept.
CampaignOutcome run_campaign(const CampaignInputs& inputs, std::uint64_t seed);

// Time between two failures of any kind (spot interruptions too, planned stops not); nothing where nothing fails.
std::optional<LongDuration> job_mtbf(const CampaignInputs& inputs);

// The closed form of what run_campaign() simulates; nothing where there is none: other distributions than the
// exponential, notice, waiting for nodes, stragglers.
std::optional<double> expected_goodput(const CampaignInputs& inputs);

}  // namespace trainyard::sim

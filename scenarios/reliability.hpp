// A scenario's `reliability`: what fails in weeks of training, how it is saved, how it comes back; and what comes of
// it.
//
// Nodes, links and restarts stand here as they are given; simulate() takes the rest from the cluster and the step.
#pragma once

#include <cstdint>
#include <optional>

#include "sim/estimate.hpp"
#include "sim/long_time.hpp"
#include "sim/step_spread.hpp"
#include "sim/units.hpp"

namespace trainyard::scenarios {

struct Reliability {
  // Mean time between failures. Devices: 50,000 h, unless nodes have one, which then counts everything in them. 419
  // unexpected interruptions in 54 days on 16,384 H100, of software and network too, are one in 50,700 h
  // (arXiv 2407.21783, table 5).
  std::optional<sim::LongDuration> device_mtbf;
  std::optional<sim::LongDuration> node_mtbf;
  std::optional<sim::LongDuration> link_mtbf;  // of a network adapter with its cable
  double shape = 1;                            // Weibull's, of devices and nodes
  double replaced = 1;  // share of their failures after which the node is replaced; links never need that

  enum class Interval : std::uint8_t { given, young, daly };
  struct Checkpoint {
    Interval rule = Interval::daly;
    sim::LongDuration interval{};  // where it is given
    bool asynchronous = false;
    // Storage: what a node writes and reads, 1 to 2 GB/s, and all of them together, 100 to 1000 GB/s (estimates; Llama
    // 3's storage sustained 2 TB/s, arXiv 2407.21783, section 3.3.1).
    sim::BytesPerSecond node_rate{2'000'000'000};
    sim::BytesPerSecond cluster_rate{500'000'000'000};
    std::optional<sim::LongDuration> write;  // instead
    // What an asynchronous save stops training for beside the copy to the host: planning, buffers. An estimate; PyTorch
    // reports 6.3 s in all for a model of 7B (pytorch.org/blog/reducing-checkpointing-times).
    sim::LongDuration stall = sim::seconds(5);
  };
  Checkpoint checkpoint;

  // Estimates, of jobs that are watched and restarted by a program. By people it takes 10 to 30 minutes.
  struct Restart {
    bool automatic = true;
    sim::LongDuration detect = sim::seconds(60);
    std::optional<sim::LongDuration> reschedule;  // absent: 120 s; a hot spare 60 s; by people 20 min
    std::optional<sim::LongDuration> reload;      // absent: the checkpoint through storage
    sim::LongDuration warm_up = sim::seconds(60);
    sim::LongDuration reshard = sim::seconds(90);  // of an elastic job
  };
  Restart restart;
  std::optional<std::int64_t> spares;
  sim::LongDuration repair = sim::hours(24);

  struct Stragglers {
    double share = 0;
    double slowdown = 1;  // of the node; what that does to the step is simulated
    std::optional<sim::LongDuration> found;
  };
  std::optional<Stragglers> stragglers;
  double kernel_spread = 0;  // standard deviation of a rank's kernel time in a step, as a share of it
  std::optional<sim::Spot> spot;
  bool elastic = false;

  sim::LongDuration duration = sim::days(30);
  std::int64_t seeds = 256;
};

// What a step is like, as far as a campaign has to know.
struct StepFacts {
  double step_s = 0;
  double kernels_s = 0;          // of it, in kernels
  double straggling_step_s = 0;  // with one slow node; 0 where nothing is said of stragglers
  std::int64_t devices = 0;
  std::int64_t nodes = 0;
  std::int64_t links = 0;     // network adapters
  std::int64_t replicas = 1;  // data-parallel ones
  sim::Bytes saved{};         // in a checkpoint
  sim::BytesPerSecond host_rate{};
};

// What a campaign comes to. Fractions count the kernels' spread too.
struct CampaignSummary {
  sim::CampaignInputs inputs;  // what was simulated
  sim::CampaignEstimate estimate;
  std::int64_t seeds = 0;
  double undisturbed = 1;          // share of training in which the slowest kernels are not waited for
  std::optional<double> expected;  // by the closed form, where there is one
  std::optional<sim::LongDuration> mtbf;
  sim::Bytes saved{};
  sim::LongDuration write{};  // until a save is in storage
  double straggling_slowdown = 1;
  sim::StepTimes steps;
};

struct GoodputSummary {
  double fraction = 1;  // of time that is training which is kept, at the step time of the result
  double interruptions_per_day = 0;
  std::optional<CampaignSummary> campaign;
};

sim::CampaignInputs campaign_of(const Reliability& reliability, const StepFacts& step);
GoodputSummary goodput_of(const Reliability& reliability, const StepFacts& step, std::uint64_t seed);

}  // namespace trainyard::scenarios

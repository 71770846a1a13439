#include "scenarios/internal/reliability_entries.hpp"

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "scenarios/internal/step_facts.hpp"
#include "scenarios/quantity.hpp"

namespace trainyard::scenarios {
namespace {

const std::string section = "reliability";
constexpr double longest = 9e18;  // microseconds: 285,000 years
constexpr double a_century = 3e15;
constexpr double a_second = 1e6;

void read_interval(Reader& reader, const Value& value, const std::string& path, Reliability::Checkpoint& checkpoint) {
  constexpr std::array<std::string_view, 2> rules{"young", "daly"};
  const auto rule = std::find(rules.begin(), rules.end(), value.scalar);
  if (value.is_scalar() && rule != rules.end()) {
    checkpoint.rule = rule == rules.begin() ? Reliability::Interval::young : Reliability::Interval::daly;
    return;
  }
  const Parsed<sim::LongDuration> parsed = parse_long_duration(value.is_scalar() ? value.scalar : "");
  if (!parsed.value || parsed.value->count == 0)
    return reader.report(value.where, path + ": expected 'young', 'daly' or a duration such as '10 min', got " +
                                          describe(value) + nearest(value.scalar, rules));
  checkpoint.rule = Reliability::Interval::given;
  checkpoint.interval = *parsed.value;
}

void read_checkpoint(Reader& reader, const Value& value, Reliability::Checkpoint& checkpoint) {
  const std::string path = join(section, "checkpoint");
  const Value* interval = nullptr;
  sim::Choice mode{.value = "synchronous", .choices = {"synchronous", "asynchronous"}};
  const std::vector<sim::Key> keys{
      {.name = "mode", .target = &mode, .help = "whether training waits until a save is in storage"},
      {.name = "node_rate", .target = &checkpoint.node_rate, .help = "of a node to storage and back", .least = 1},
      {.name = "cluster_rate", .target = &checkpoint.cluster_rate, .help = "of all nodes together", .least = 1},
      {.name = "write", .target = &checkpoint.write, .help = "time of a save, instead of what storage gives"},
      {.name = "stall", .target = &checkpoint.stall, .help = "what an asynchronous save costs beside its copy"}};
  const std::array<Section, 1> sections{{{"interval", &interval}}};
  reader.read(value, path, {.keys = keys, .sections = sections});
  checkpoint.asynchronous = mode.value == "asynchronous";
  if (interval != nullptr) read_interval(reader, *interval, join(path, "interval"), checkpoint);
}

void read_restart(Reader& reader, const Value& value, Reliability::Restart& restart) {
  const std::vector<sim::Key> keys{
      {.name = "automatic",
       .target = &restart.automatic,
       .help = "false: by people, in 20 min if nothing else is said"},
      {.name = "detect", .target = &restart.detect, .help = "time until a failure is noticed"},
      {.name = "reschedule", .target = &restart.reschedule, .help = "time until processes run, on another node"},
      {.name = "reload", .target = &restart.reload, .help = "time to read a checkpoint, instead of what storage gives"},
      {.name = "warm_up", .target = &restart.warm_up, .help = "time until steps are as fast as before"},
      {.name = "reshard", .target = &restart.reshard, .help = "time of an elastic job to change its size"}};
  reader.read(value, join(section, "restart"), {.keys = keys});
}

void read_stragglers(Reader& reader, const Value& value, Reliability& reliability) {
  Reliability::Stragglers stragglers;
  const std::vector<sim::Key> keys{
      {.name = "share", .target = &stragglers.share, .help = "of nodes that are slow", .required = true, .most = 1},
      {.name = "slowdown",
       .target = &stragglers.slowdown,
       .help = "of their kernels",
       .required = true,
       .least = 1,
       .most = 100},
      {.name = "found",
       .target = &stragglers.found,
       .help = "time until they are replaced; absent: never",
       .least = a_second}};
  reader.read(value, join(section, "stragglers"), {.keys = keys});
  reliability.stragglers = stragglers;
}

// Usual figures: a day between interruptions, two minutes of notice as AWS gives (30 s at Google and Azure), ten
// minutes of waiting for another node (estimates but for the notice).
void read_spot(Reader& reader, const Value& value, Reliability& reliability) {
  sim::Spot spot{.interruption = sim::hours(24), .notice = sim::seconds(120), .wait = sim::minutes(10)};
  const std::vector<sim::Key> keys{
      {.name = "interruption",
       .target = &spot.interruption,
       .help = "mean time of a node until it is taken",
       .least = a_second,
       .most = longest},
      {.name = "notice", .target = &spot.notice, .help = "time between notice and end"},
      {.name = "wait", .target = &spot.wait, .help = "mean time until there is another node"}};
  if (!value.is_null()) reader.read(value, join(section, "spot"), {.keys = keys});
  reliability.spot = spot;
}

double expected_interruptions(const Reliability& reliability, const topology::Cluster& cluster) {
  const StepFacts step{.step_s = 1,
                       .kernels_s = 0,
                       .straggling_step_s = 0,
                       .devices = cluster.devices(),
                       .nodes = cluster.nodes(),
                       .links = network_adapters(cluster),
                       .replicas = 1,
                       .saved = {1},
                       .host_rate = {1}};
  const auto mtbf = sim::job_mtbf(campaign_of(reliability, step));
  return mtbf ? sim::to_seconds(reliability.duration) / std::max(1e-6, sim::to_seconds(*mtbf)) : 0;
}

}  // namespace

Reliability read_reliability(Reader& reader, const Value& value) {
  Reliability reliability;
  const Value* checkpoint = nullptr;
  const Value* restart = nullptr;
  const Value* stragglers = nullptr;
  const Value* spot = nullptr;
  const std::vector<sim::Key> keys{
      {.name = "device_mtbf",
       .target = &reliability.device_mtbf,
       .help = "mean time between failures of a device",
       .least = a_second,
       .most = longest},
      {.name = "node_mtbf", .target = &reliability.node_mtbf, .help = "of a node", .least = a_second, .most = longest},
      {.name = "link_mtbf",
       .target = &reliability.link_mtbf,
       .help = "of a network adapter with its cable",
       .least = a_second,
       .most = longest},
      {.name = "shape",
       .target = &reliability.shape,
       .help = "Weibull's: below 1 new parts fail more often",
       .least = 0.2,
       .most = 20},
      {.name = "replaced",
       .target = &reliability.replaced,
       .help = "share of failures that need another node",
       .most = 1},
      {.name = "spares",
       .target = &reliability.spares,
       .help = "nodes that take over; absent: there is always another one",
       .most = 1e6},
      {.name = "repair", .target = &reliability.repair, .help = "time until a node is back", .most = a_century},
      {.name = "kernel_spread",
       .target = &reliability.kernel_spread,
       .help = "standard deviation of a rank's kernel time in a step, as a share",
       .most = 1},
      {.name = "elastic",
       .target = &reliability.elastic,
       .help = "goes on with fewer replicas while nodes are missing"},
      {.name = "duration",
       .target = &reliability.duration,
       .help = "of the campaign",
       .least = a_second,
       .most = a_century},
      {.name = "seeds",
       .target = &reliability.seeds,
       .help = "campaigns that differ in their luck",
       .least = 2,
       .most = 1e6}};
  const std::array<Section, 4> sections{
      {{"checkpoint", &checkpoint}, {"restart", &restart}, {"stragglers", &stragglers}, {"spot", &spot}}};
  if (value.is_null()) return reliability;
  reader.read(value, section, {.keys = keys, .sections = sections});
  if (checkpoint != nullptr) read_checkpoint(reader, *checkpoint, reliability.checkpoint);
  if (restart != nullptr) read_restart(reader, *restart, reliability.restart);
  if (stragglers != nullptr) read_stragglers(reader, *stragglers, reliability);
  if (spot != nullptr) read_spot(reader, *spot, reliability);
  return reliability;
}

void check_reliability(Reader& reader, Scenario& scenario) {
  const Reliability& reliability = *scenario.reliability;
  const topology::Cluster cluster = make_cluster(scenario);
  constexpr double most_interruptions = 1e7;  // about ten seconds
  const double all = expected_interruptions(reliability, cluster) * static_cast<double>(reliability.seeds);
  if (all > most_interruptions)
    reader.report_at("reliability.duration",
                     "so many campaigns come to about " + format_count(all) +
                         " interruptions, and 10 M can be simulated; give fewer 'seeds' or a shorter 'duration'");
  const bool waits = reliability.spares || (reliability.spot && reliability.spot->wait.count > 0);
  if (reliability.elastic && !waits)
    scenario.warnings.emplace_back(
        "reliability.elastic: has no effect where there is always another node; give 'spares' or 'spot'");
}

}  // namespace trainyard::scenarios

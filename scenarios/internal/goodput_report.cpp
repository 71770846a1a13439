#include "scenarios/internal/goodput_report.hpp"

#include <nlohmann/json.hpp>

#include "scenarios/internal/text.hpp"
#include "scenarios/quantity.hpp"

namespace trainyard::scenarios {
namespace {

using Json = nlohmann::ordered_json;

// Of the time, without what the spread of kernels takes of training.
double share_of(const CampaignSummary& campaign, sim::TimeUse use) {
  const double share = campaign.estimate.share.at(static_cast<std::size_t>(use));
  return use == sim::TimeUse::useful ? share * campaign.undisturbed : share;
}

double share_of_spread(const CampaignSummary& campaign) {
  return campaign.estimate.share.at(static_cast<std::size_t>(sim::TimeUse::useful)) * (1 - campaign.undisturbed);
}

Json shares_json(const CampaignSummary& campaign) {
  Json json;
  for (std::size_t i = 0; i < sim::time_uses; ++i)
    json[std::string{sim::time_use_names.at(i)}] = share_of(campaign, static_cast<sim::TimeUse>(i));
  json["kernel_spread"] = share_of_spread(campaign);
  return json;
}

Json stops_json(const CampaignSummary& campaign) {
  Json json;
  for (std::size_t i = 0; i < sim::stop_kinds; ++i)
    json[std::string{sim::stop_names.at(i)}] = campaign.estimate.per_day.at(i);
  return json;
}

double restart_s(const CampaignSummary& campaign) {
  const sim::RestartTimes& restart = campaign.inputs.restart;
  return sim::to_seconds(restart.detect + restart.reschedule + restart.reload + restart.warm_up);
}

std::string shares_text(const CampaignSummary& campaign) {
  constexpr std::array<std::string_view, sim::time_uses> words{
      "training that counts", "slow nodes",        "missing replicas", "work done again", "saving",
      "detecting failures",   "waiting for nodes", "rescheduling",     "reloading",       "warming up"};
  std::string text;
  const auto line = [&](std::string_view name, double share) {
    if (share > 0) text += "  " + padded_right(name, 22) + padded_left(percent(share), 9) + "\n";
  };
  for (std::size_t i = 0; i < sim::time_uses; ++i) line(words.at(i), share_of(campaign, static_cast<sim::TimeUse>(i)));
  line("slowest kernels", share_of_spread(campaign));
  return text;
}

std::string stops_text(const GoodputSummary& goodput) {
  std::string kinds;
  for (std::size_t i = 0; i < sim::stop_kinds; ++i) {
    const double stops = goodput.campaign->estimate.per_day.at(i);
    if (stops > 0)
      kinds += (kinds.empty() ? "" : ", ") + std::string{sim::stop_names.at(i)} + " " + format_count(stops);
  }
  return kinds;
}

}  // namespace

Json goodput_json(const GoodputSummary& goodput) {
  Json json{{"fraction", goodput.fraction}, {"interruptions_per_day", goodput.interruptions_per_day}};
  if (!goodput.campaign) return json;
  const CampaignSummary& campaign = *goodput.campaign;
  const sim::Statistics& sample = campaign.estimate.goodput;
  const double scale = campaign.undisturbed;
  json["fraction_low"] = sample.low * scale;
  json["fraction_high"] = sample.high * scale;
  json["standard_error"] = sample.standard_error * scale;
  json["fraction_p5"] = sample.p5 * scale;
  json["fraction_p50"] = sample.p50 * scale;
  json["fraction_p95"] = sample.p95 * scale;
  if (campaign.expected) json["fraction_closed_form"] = *campaign.expected;
  json["seeds"] = campaign.seeds;
  json["days"] = sim::to_seconds(campaign.inputs.duration) / sim::to_seconds(sim::days(1));
  json["interruptions"] = campaign.estimate.interruptions.mean;
  json["stops_per_day"] = stops_json(campaign);
  if (campaign.mtbf) json["mtbf_s"] = sim::to_seconds(*campaign.mtbf);
  json["checkpoint_bytes"] = campaign.saved.count;
  json["checkpoint_interval_s"] = sim::to_seconds(campaign.inputs.checkpoint.trained_between());
  json["checkpoint_write_s"] = sim::to_seconds(campaign.write);
  json["checkpoint_exposed_s"] = sim::to_seconds(campaign.inputs.checkpoint.exposed);
  json["reload_s"] = sim::to_seconds(campaign.inputs.restart.reload);
  json["restart_s"] = restart_s(campaign);
  json["time_share"] = shares_json(campaign);
  json["step_time_p50_s"] = campaign.steps.p50_s;
  json["step_time_p99_s"] = campaign.steps.p99_s;
  json["straggler_slowdown"] = campaign.straggling_slowdown;
  json["straggling_share"] = campaign.estimate.straggling;
  return json;
}

std::string goodput_text(const GoodputSummary& goodput) {
  if (!goodput.campaign) return "";
  const CampaignSummary& campaign = *goodput.campaign;
  const sim::Statistics& sample = campaign.estimate.goodput;
  const sim::CheckpointTimes& checkpoint = campaign.inputs.checkpoint;
  const auto duration = [](sim::LongDuration time) { return format_long_duration(time); };
  std::string text =
      "\nFailures, " + std::to_string(campaign.seeds) + " campaigns of " + duration(campaign.inputs.duration) + "\n";
  text += "  goodput        " + fixed(100 * goodput.fraction, 2) + " % +- " +
          fixed(50 * (sample.high - sample.low) * campaign.undisturbed, 2) + " (95 % confidence of the mean), " +
          percent(sample.p5 * campaign.undisturbed) + " to " + percent(sample.p95 * campaign.undisturbed) +
          " in nine of ten";
  if (campaign.expected) text += "; closed form " + fixed(100 * *campaign.expected, 2) + " %";
  text += "\n  interruptions  " + format_count(campaign.estimate.interruptions.mean) + " in a campaign, " +
          format_count(goodput.interruptions_per_day) + " a day";
  if (const std::string kinds = stops_text(goodput); !kinds.empty()) text += " (" + kinds + ")";
  if (campaign.mtbf) text += ": one in " + duration(*campaign.mtbf);
  text += "\n  checkpoints    " + format_bytes(campaign.saved) + " every " + duration(checkpoint.trained_between()) +
          ", in storage after " + duration(checkpoint.exposed + checkpoint.background) + ", training stops for " +
          duration(checkpoint.exposed) + "\n";
  text += "  restart        " + format_long_seconds(restart_s(campaign)) + ", of which reloading " +
          duration(campaign.inputs.restart.reload) + "\n";
  if (campaign.steps.p99_s > campaign.steps.p50_s || campaign.inputs.stragglers)
    text += "  step time      " + format_seconds(campaign.steps.p50_s) + " median, " +
            format_seconds(campaign.steps.p99_s) + " one in a hundred\n";
  if (campaign.inputs.stragglers)
    text += "  slow nodes     make a step " + percent(campaign.straggling_slowdown - 1) +
            " longer, and there is one in " + percent(campaign.estimate.straggling) + " of training\n";
  return text + shares_text(campaign);
}

}  // namespace trainyard::scenarios

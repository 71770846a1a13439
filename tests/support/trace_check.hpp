// What viewers of Chrome trace events need of a timeline; nlohmann's values, so that any trace file can be checked.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace trainyard::tests {

class TraceCheck {
 public:
  // Sentences, none when all is well. At most `most` of them.
  static std::vector<std::string> violations(const nlohmann::json& trace, std::size_t most = 20) {
    TraceCheck check;
    check.check(trace);
    if (check.violations_.size() > most) check.violations_.resize(most);
    return check.violations_;
  }

 private:
  using Track = std::pair<std::int64_t, std::int64_t>;  // process and thread
  struct Slice {
    std::int64_t start_ps;
    std::int64_t end_ps;
    std::size_t event;
  };
  struct TrackState {
    std::int64_t latest_ps = 0;
    std::vector<Slice> open;
  };
  struct Arrow {
    int starts = 0;
    int ends = 0;
    std::int64_t start_ps = 0;
    std::int64_t end_ps = 0;
    Track start_track;
    Track end_track;
  };
  struct Counter {
    std::int64_t latest_ps = 0;
    std::map<std::string, double> values;
  };

  void check(const nlohmann::json& trace) {
    if (!trace.is_object() || !trace.contains("traceEvents") || !trace["traceEvents"].is_array())
      return report("there is no array of traceEvents");
    if (trace.value("displayTimeUnit", "") != "ms") report("displayTimeUnit is not ms");
    for (const nlohmann::json& event : trace["traceEvents"]) {
      ++event_;
      if (has_common_fields(event)) check_event(event);
    }
    check_names();
    check_arrows();
    check_counters();
  }

  void report(const std::string& what) { violations_.push_back(what); }
  void report_event(const std::string& what, const nlohmann::json& event) {
    report("event " + std::to_string(event_) + " " + what + ": " + event.dump());
  }

  bool has_common_fields(const nlohmann::json& event) {
    const auto has = [&](const char* key, auto is) { return event.contains(key) && is(event[key]); };
    const auto is_text = [](const nlohmann::json& value) {
      return value.is_string() && !value.get_ref<const std::string&>().empty();
    };
    const auto is_id = [](const nlohmann::json& value) { return value.is_number_integer() && value >= 0; };
    const auto is_time = [](const nlohmann::json& value) { return value.is_number() && value >= 0; };
    const auto is_object = [](const nlohmann::json& value) { return value.is_object(); };
    const std::string phase = event.is_object() ? event.value("ph", "") : "";
    bool good = has("name", is_text) && has("pid", is_id);
    if (phase == "M") {
      good = good && has("args", is_object) && (event["name"] != "thread_name" || has("tid", is_id));
    } else if (phase == "C") {
      good = good && has("ts", is_time) && has("args", is_object) && !event["args"].empty();
    } else if (phase == "X") {
      good = good && has("ts", is_time) && has("dur", is_time) && has("tid", is_id) && has("cat", is_text) &&
             has("args", is_object);
    } else if (phase == "s" || phase == "f") {
      good = good && has("ts", is_time) && has("tid", is_id) && has("cat", is_text) && has("id", is_id) &&
             (phase == "s" || event.value("bp", "") == "e");
    } else {
      good = false;
    }
    if (!good) report_event("lacks what its phase needs", event);
    return good;
  }

  // Written with six decimals of a microsecond, so that rounding gives the picoseconds back.
  static std::int64_t picoseconds(const nlohmann::json& value) { return std::llround(value.get<double>() * 1e6); }

  void check_event(const nlohmann::json& event) {
    const std::string phase = event["ph"];
    const std::int64_t process = event["pid"];
    if (phase == "M") {
      if (event["name"] == "process_name") ++process_names_[process];
      if (event["name"] == "thread_name") ++thread_names_[{process, event["tid"]}];
      return;
    }
    used_processes_[process] = true;
    const std::int64_t when = picoseconds(event["ts"]);
    if (phase == "C") return check_counter_event(event, when);
    const Track track{process, event["tid"]};
    used_threads_[track] = true;
    TrackState& state = tracks_[track];
    if (when < state.latest_ps) report_event("is earlier than the event before it on its track", event);
    state.latest_ps = when;
    while (!state.open.empty() && state.open.back().end_ps <= when) state.open.pop_back();
    if (phase == "X") {
      const std::int64_t end = when + picoseconds(event["dur"]);
      if (!state.open.empty() && end > state.open.back().end_ps)
        report_event("begins inside event " + std::to_string(state.open.back().event) + " and outlasts it", event);
      state.open.push_back({.start_ps = when, .end_ps = end, .event = event_});
      return;
    }
    // Viewers bind an arrow to the slice that is open where it starts or ends.
    if (state.open.empty()) report_event("is an end of an arrow outside any slice", event);
    Arrow& arrow = arrows_[event["id"]];
    (phase == "s" ? arrow.starts : arrow.ends) += 1;
    (phase == "s" ? arrow.start_ps : arrow.end_ps) = when;
    (phase == "s" ? arrow.start_track : arrow.end_track) = track;
  }

  void check_counter_event(const nlohmann::json& event, std::int64_t when) {
    Counter& counter = counters_[{event["pid"], event["name"]}];
    if (when < counter.latest_ps) report_event("is earlier than the value before it", event);
    counter.latest_ps = when;
    for (const auto& [series, value] : event["args"].items()) {
      if (!value.is_number() || value < 0) {
        report_event("is no count", event);
      } else {
        counter.values[series] = value;
      }
    }
  }

  void check_names() {
    for (const auto& [process, used] : used_processes_)
      if (process_names_[process] != 1) report("process " + std::to_string(process) + " has not one name");
    for (const auto& [track, used] : used_threads_)
      if (thread_names_[track] != 1)
        report("thread " + std::to_string(track.second) + " of process " + std::to_string(track.first) +
               " has not one name");
  }

  void check_arrows() {
    for (const auto& [id, arrow] : arrows_) {
      const std::string name = "arrow " + std::to_string(id);
      if (arrow.starts != 1 || arrow.ends != 1) {
        report(name + " has " + std::to_string(arrow.starts) + " starts and " + std::to_string(arrow.ends) + " ends");
        continue;
      }
      if (arrow.end_ps < arrow.start_ps) report(name + " goes back in time");
      if (arrow.start_track == arrow.end_track) report(name + " stays on its track");
    }
  }

  // What links carry is over when the last communication is.
  void check_counters() {
    for (const auto& [key, counter] : counters_)
      for (const auto& [series, value] : counter.values)
        if (series == "GB/s" && value != 0)
          report("counter " + key.second + " of process " + std::to_string(key.first) + " ends at " +
                 std::to_string(value));
  }

  std::vector<std::string> violations_;
  std::size_t event_ = 0;
  std::map<std::int64_t, int> process_names_;
  std::map<Track, int> thread_names_;
  std::map<std::int64_t, bool> used_processes_;
  std::map<Track, bool> used_threads_;
  std::map<Track, TrackState> tracks_;
  std::map<std::int64_t, Arrow> arrows_;
  std::map<std::pair<std::int64_t, std::string>, Counter> counters_;
};

inline std::vector<std::string> trace_violations(const nlohmann::json& trace) { return TraceCheck::violations(trace); }

}  // namespace trainyard::tests

// What a trace says, whatever its format: so that formats can be compared. Times in nanoseconds, as Perfetto has them.
#pragma once

#include <trace_perfetto.pb.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace trainyard::tests {

struct TraceContents {
  struct Slice {
    std::int64_t start = 0;
    std::int64_t end = 0;
    std::string name;
    std::string category;
    nlohmann::json arguments;
    bool operator==(const Slice&) const = default;
  };
  struct Thread {
    std::string name;
    std::int64_t sort_index = -1;
    std::vector<Slice> slices;
    bool operator==(const Thread&) const = default;
  };
  using Samples = std::vector<std::pair<std::int64_t, double>>;
  struct Process {
    std::string name;
    std::int64_t sort_index = -1;
    std::map<std::int64_t, Thread> threads;
    std::map<std::string, Samples> counters;  // without values that say what the one before said
    bool operator==(const Process&) const = default;
  };
  struct ArrowEnd {  // a slice
    std::int64_t process = 0;
    std::int64_t thread = 0;
    std::size_t slice = 0;
    auto operator<=>(const ArrowEnd&) const = default;
  };
  Slice step;
  std::map<std::int64_t, Process> processes;
  std::vector<std::pair<ArrowEnd, ArrowEnd>> arrows;  // sorted
  bool operator==(const TraceContents&) const = default;
};

inline void add_sample(TraceContents::Samples& samples, std::int64_t when, double value) {
  if (samples.empty() || samples.back().second != value) samples.emplace_back(when, value);
}

class ChromeContents {
 public:
  static TraceContents of(const nlohmann::json& trace) {
    ChromeContents reader;
    for (const nlohmann::json& event : trace.at("traceEvents")) reader.read(event);
    const nlohmann::json& step = trace.at("otherData");
    reader.contents_.step = {.start = nanoseconds(step.at("step_from_us")),
                             .end = nanoseconds(step.at("step_from_us"), step.at("step_time_us")),
                             .name = "step",
                             .category = "",
                             .arguments = nlohmann::json::object()};
    for (const auto& [id, arrow] : reader.arrows_) reader.contents_.arrows.push_back(arrow);
    std::ranges::sort(reader.contents_.arrows);
    return std::move(reader.contents_);
  }

 private:
  // Six decimals of a microsecond: rounding gives the picoseconds back.
  static std::int64_t picoseconds(const nlohmann::json& us) { return std::llround(us.get<double>() * 1e6); }
  static std::int64_t nanoseconds(const nlohmann::json& us) { return (picoseconds(us) + 500) / 1000; }
  static std::int64_t nanoseconds(const nlohmann::json& us, const nlohmann::json& later_us) {
    return (picoseconds(us) + picoseconds(later_us) + 500) / 1000;
  }

  void read(const nlohmann::json& event) {
    const std::string phase = event.at("ph");
    const std::string name = event.at("name");
    const std::int64_t id = event.at("pid");
    TraceContents::Process& process = contents_.processes[id];
    if (phase == "C") {
      for (const auto& [series, value] : event.at("args").items())
        add_sample(process.counters[name + " " + series], nanoseconds(event.at("ts")), value);
      return;
    }
    if (phase == "M") return read_name(process, event);
    TraceContents::Thread& thread = process.threads[event.at("tid")];
    if (phase == "X") {
      thread.slices.push_back({.start = nanoseconds(event.at("ts")),
                               .end = nanoseconds(event.at("ts"), event.at("dur")),
                               .name = name,
                               .category = event.at("cat"),
                               .arguments = event.at("args")});
      return;
    }
    // Follows the slice in which it starts or ends.
    const TraceContents::ArrowEnd end{.process = id, .thread = event.at("tid"), .slice = thread.slices.size() - 1};
    (phase == "s" ? arrows_[event.at("id")].first : arrows_[event.at("id")].second) = end;
  }

  static void read_name(TraceContents::Process& process, const nlohmann::json& event) {
    const std::string what = event.at("name");
    const nlohmann::json& value = *event.at("args").begin();
    if (what == "process_name") process.name = value;
    if (what == "process_sort_index") process.sort_index = value;
    if (what == "thread_name") process.threads[event.at("tid")].name = value;
    if (what == "thread_sort_index") process.threads[event.at("tid")].sort_index = value;
  }

  TraceContents contents_;
  std::map<std::uint64_t, std::pair<TraceContents::ArrowEnd, TraceContents::ArrowEnd>> arrows_;
};

// Reads as trace_processor does, and throws std::runtime_error where that would count an error.
class PerfettoContents {
 public:
  static TraceContents of(const std::string& bytes) {
    PerfettoContents reader;
    reader.read(bytes, false);
    reader.finish();
    return std::move(reader.contents_);
  }

 private:
  struct Counter {
    std::int64_t process = 0;
    std::string name;
  };
  struct Sequence {
    bool valid = false;
    std::int64_t clock = 0;
    std::uint64_t track = 0;
    std::map<std::uint64_t, std::string> names;
    std::map<std::uint64_t, std::string> categories;
    std::map<std::uint64_t, std::string> keys;
    std::map<std::uint64_t, std::string> values;
  };
  // An end of an arrow, in the order in which trace_processor sees it: by time, then as it comes.
  struct FlowEvent {
    std::int64_t when = 0;
    bool terminating = false;
    std::uint64_t id = 0;
    TraceContents::ArrowEnd slice;
  };

  static void check(bool good, const std::string& what) {
    if (!good) throw std::runtime_error(what);
  }

  static std::string inflated(const std::string& compressed) {
    check(compressed.size() < 512 * 1024, "a compressed packet of 512 KiB or more");
    z_stream stream{};
    check(inflateInit(&stream) == Z_OK, "zlib does not start");
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(compressed.data()));
    stream.avail_in = static_cast<uInt>(compressed.size());
    std::string result;
    std::array<char, 65536> buffer{};
    int status = Z_OK;
    while (status == Z_OK) {
      stream.next_out = reinterpret_cast<Bytef*>(buffer.data());
      stream.avail_out = static_cast<uInt>(buffer.size());
      status = inflate(&stream, Z_NO_FLUSH);
      result.append(buffer.data(), buffer.size() - stream.avail_out);
    }
    inflateEnd(&stream);
    check(status == Z_STREAM_END, "a compressed packet that does not end");
    return result;
  }

  void read(const std::string& bytes, bool inside) {
    perfetto::Trace trace;
    check(trace.ParseFromString(bytes), "not a trace");
    for (const perfetto::TracePacket& packet : trace.packet()) {
      if (packet.has_compressed_packets()) {
        check(!inside, "a compressed packet in another");
        read(inflated(packet.compressed_packets()), true);
        continue;
      }
      if (packet.has_track_descriptor()) {
        describe(packet.track_descriptor());
        continue;
      }
      read_sequenced(packet);
    }
  }

  void describe(const perfetto::TrackDescriptor& track) {
    check(track.uuid() != 0 && described_.insert({track.uuid(), true}).second, "a track without an id of its own");
    if (track.has_process()) {
      TraceContents::Process& process = contents_.processes[track.process().pid()];
      process.name = track.process().process_name();
      process.sort_index = track.process().legacy_sort_index();
      processes_[track.uuid()] = track.process().pid();
    } else if (track.has_thread()) {
      TraceContents::Thread& thread = contents_.processes.at(track.thread().pid()).threads[track.thread().tid()];
      thread.name = track.thread().thread_name();
      thread.sort_index = track.thread().legacy_sort_index();
      threads_[track.uuid()] = {track.thread().pid(), track.thread().tid()};
    } else if (track.has_counter()) {
      counters_[track.uuid()] = {.process = processes_.at(track.parent_uuid()), .name = track.name()};
    }
  }

  void read_sequenced(const perfetto::TracePacket& packet) {
    Sequence& sequence = sequences_[packet.trusted_packet_sequence_id()];
    check(packet.trusted_packet_sequence_id() != 0, "a packet of no sequence");
    if (packet.sequence_flags() & perfetto::TracePacket::SEQ_INCREMENTAL_STATE_CLEARED) {
      sequence = {};
      sequence.valid = true;
    }
    check(sequence.valid, "a packet that refers to what is not there");
    if (packet.has_trace_packet_defaults()) {
      check(packet.trace_packet_defaults().timestamp_clock_id() == 64, "another clock");
      sequence.track = packet.trace_packet_defaults().track_event_defaults().track_uuid();
    }
    for (const auto& entry : packet.interned_data().event_names()) intern(sequence.names, entry.iid(), entry.name());
    for (const auto& entry : packet.interned_data().event_categories())
      intern(sequence.categories, entry.iid(), entry.name());
    for (const auto& entry : packet.interned_data().debug_annotation_names())
      intern(sequence.keys, entry.iid(), entry.name());
    for (const auto& entry : packet.interned_data().debug_annotation_string_values())
      intern(sequence.values, entry.iid(), entry.str());
    if (packet.has_clock_snapshot()) {
      const auto& clocks = packet.clock_snapshot().clocks();
      check(clocks.size() == 2 && clocks[0].clock_id() == 6 && clocks[1].clock_id() == 64 &&
                clocks[1].is_incremental() && clocks[0].timestamp() == clocks[1].timestamp(),
            "clocks that say nothing");
      sequence.clock = static_cast<std::int64_t>(clocks[1].timestamp());
      return;
    }
    check(packet.has_track_event(), "a packet of nothing");
    check(packet.sequence_flags() == perfetto::TracePacket::SEQ_NEEDS_INCREMENTAL_STATE, "an event without its flag");
    sequence.clock += static_cast<std::int64_t>(packet.timestamp());
    read_event(sequence, packet.track_event());
  }

  static void intern(std::map<std::uint64_t, std::string>& texts, std::uint64_t id, const std::string& text) {
    check(id != 0 && texts.emplace(id, text).second, "a text without a number of its own");
  }

  void read_event(const Sequence& sequence, const perfetto::TrackEvent& event) {
    const std::uint64_t track = event.has_track_uuid() ? event.track_uuid() : sequence.track;
    check(described_.contains(track), "an event on no track");
    if (event.type() == perfetto::TrackEvent::TYPE_COUNTER) {
      const Counter& counter = counters_.at(track);
      add_sample(contents_.processes.at(counter.process).counters[counter.name], sequence.clock,
                 event.has_counter_value() ? static_cast<double>(event.counter_value()) : event.double_counter_value());
      return;
    }
    std::vector<TraceContents::Slice>& slices = slices_of(track);
    std::vector<std::size_t>& open = open_[track];
    if (event.type() == perfetto::TrackEvent::TYPE_SLICE_BEGIN) {
      open.push_back(slices.size());
      slices.push_back(
          {.start = sequence.clock,
           .end = -1,
           .name = sequence.names.at(event.name_iid()),
           .category = event.category_iids_size() == 0 ? "" : sequence.categories.at(event.category_iids(0)),
           .arguments = arguments_of(sequence, event)});
    }
    check(!open.empty(), "an end without a beginning");
    const std::size_t slice = open.back();
    const auto add_flow = [&](bool terminating, std::uint64_t id) {
      const auto [process, thread] = threads_.at(track);
      flows_.push_back({.when = sequence.clock,
                        .terminating = terminating,
                        .id = id,
                        .slice = {.process = process, .thread = thread, .slice = slice}});
    };
    for (const std::uint64_t id : event.flow_ids()) add_flow(false, id);
    for (const std::uint64_t id : event.terminating_flow_ids()) add_flow(true, id);
    if (event.type() != perfetto::TrackEvent::TYPE_SLICE_END) return;
    slices[slice].end = sequence.clock;
    open.pop_back();
  }

  std::vector<TraceContents::Slice>& slices_of(std::uint64_t track) {
    const auto thread = threads_.find(track);
    if (thread == threads_.end()) return above_ranks_;
    return contents_.processes.at(thread->second.first).threads.at(thread->second.second).slices;
  }

  static nlohmann::json arguments_of(const Sequence& sequence, const perfetto::TrackEvent& event) {
    nlohmann::json arguments = nlohmann::json::object();
    for (const perfetto::DebugAnnotation& annotation : event.debug_annotations()) {
      nlohmann::json& value = arguments[sequence.keys.at(annotation.name_iid())];
      check(value.is_null(), "an argument that is given twice");
      if (annotation.has_int_value()) value = annotation.int_value();
      if (annotation.has_double_value()) value = annotation.double_value();
      if (annotation.has_string_value_iid()) value = sequence.values.at(annotation.string_value_iid());
    }
    return arguments;
  }

  void finish() {
    for (const auto& [track, open] : open_) check(open.empty(), "a slice that does not end");
    check(above_ranks_.size() == 1, "another slice above the ranks than the step");
    contents_.step = above_ranks_.front();
    std::ranges::stable_sort(flows_, {}, &FlowEvent::when);
    std::map<std::uint64_t, TraceContents::ArrowEnd> active;
    for (const FlowEvent& flow : flows_) {
      if (!flow.terminating) {
        check(active.emplace(flow.id, flow.slice).second, "an arrow that leaves twice");
        continue;
      }
      check(active.contains(flow.id), "an arrow that arrives before it leaves");
      contents_.arrows.emplace_back(active.at(flow.id), flow.slice);
      active.erase(flow.id);
    }
    check(active.empty(), "an arrow that does not arrive");
    std::ranges::sort(contents_.arrows);
  }

  TraceContents contents_;
  std::map<std::uint64_t, bool> described_;
  std::map<std::uint64_t, std::int64_t> processes_;
  std::map<std::uint64_t, std::pair<std::int64_t, std::int64_t>> threads_;
  std::map<std::uint64_t, Counter> counters_;
  std::map<std::uint32_t, Sequence> sequences_;
  std::map<std::uint64_t, std::vector<std::size_t>> open_;
  std::vector<TraceContents::Slice> above_ranks_;
  std::vector<FlowEvent> flows_;
};

}  // namespace trainyard::tests

#include "scenarios/internal/trace_perfetto.hpp"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>
#include <trace_perfetto.pb.h>
#define ZLIB_CONST  // it does not write to its input
#include <zlib.h>

#include <array>
#include <cstddef>
#include <functional>
#include <map>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "sim/ensure.hpp"

namespace trainyard::scenarios {
namespace {

namespace proto = trainyard::perfetto;
using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedOutputStream;
using sim::index_of;
using sim::RankId;
using sim::StreamId;

constexpr std::uint32_t boot_time = 6;           // ClockSnapshot.Clock.BuiltinClocks: what trace time is by default
constexpr std::uint32_t incremental_clock = 64;  // the first of those that belong to a sequence of packets

// Of tracks; every rank has room for a process, its threads and its counters. 0 is the trace's own.
constexpr std::uint64_t step_track = 1;
constexpr std::uint64_t tracks_per_rank = 64;
constexpr std::uint64_t memory_track = 32;
constexpr std::uint64_t traffic_track = 48;
static_assert(1 + sim::most_streams <= memory_track && memory_track + sim::memory_purposes <= traffic_track);

std::uint64_t track_of(RankId rank, std::uint64_t which = 0) { return (index_of(rank) + 1) * tracks_per_rank + which; }
std::uint64_t track_of(RankId rank, StreamId stream) { return track_of(rank, 1 + index_of(stream)); }

// To the nearest; no time is negative.
std::int64_t nanoseconds(std::int64_t ps) { return (ps + 500) / 1000; }

void append_varint(std::string& out, std::uint64_t value) {
  std::array<std::uint8_t, 10> bytes{};
  const std::uint8_t* end = CodedOutputStream::WriteVarint64ToArray(value, bytes.data());
  out.append(reinterpret_cast<const char*>(bytes.data()), static_cast<std::size_t>(end - bytes.data()));
}

// A field of bytes or of a message, up to what it holds.
void append_field_header(std::string& out, int field, std::size_t size) {
  append_varint(out, WireFormatLite::MakeTag(field, WireFormatLite::WIRETYPE_LENGTH_DELIMITED));
  append_varint(out, size);
}

// Texts that were referred to on a sequence, by the number that the format gives them: from 1 on.
class Interned {
 public:
  // Adds to `entries` what is new.
  template <class Entries, class SetText>
  std::uint64_t of(std::string_view text, Entries& entries, SetText set_text) {
    const auto known = numbers_.find(text);
    if (known != numbers_.end()) return known->second;
    const std::uint64_t number = numbers_.size() + 1;
    numbers_.emplace(text, number);
    auto* entry = entries.Add();
    entry->set_iid(number);
    set_text(*entry, std::string(text));
    return number;
  }
  void clear() { numbers_.clear(); }

 private:
  std::map<std::string, std::uint64_t, std::less<>> numbers_;
};

}  // namespace

class PerfettoTrace::Packets {
 public:
  explicit Packets(OutputFile& file) : file_(file) {
    proto::TrackEvent end;
    end.set_type(proto::TrackEvent::TYPE_SLICE_END);
    end.SerializeToString(&end_of_slice_);
  }

  void describe(const proto::TrackDescriptor& track) {
    proto::TracePacket packet;
    *packet.mutable_track_descriptor() = track;
    // Ahead of the events that wait to be compressed, as it should be.
    std::string out;
    append_packet(out, packet);
    file_.write(out);
  }

  // What follows belongs to `track`, in order of time; without one, events name theirs.
  void enter(std::uint64_t sequence_of, std::optional<std::uint64_t> track);

  bool is_in(std::uint64_t sequence_of) const { return sequence_of == entered_; }

  // An event of the track: first event(), which is to be filled, then write().
  proto::TrackEvent& event() {
    event_.Clear();
    return event_;
  }
  void write(std::int64_t when, std::string_view before = {});

  const std::string& end_of_slice() const { return end_of_slice_; }
  const std::string& begin_of(const TraceLabel& label);

  std::uint64_t name(std::string_view text) {
    return names_.of(text, *header_.mutable_interned_data()->mutable_event_names(),
                     [](proto::EventName& entry, std::string value) { entry.set_name(std::move(value)); });
  }
  std::uint64_t category(std::string_view text) {
    return categories_.of(text, *header_.mutable_interned_data()->mutable_event_categories(),
                          [](proto::EventCategory& entry, std::string value) { entry.set_name(std::move(value)); });
  }
  void annotate(proto::TrackEvent& event, std::string_view key, std::int64_t value) {
    annotation(event, key).set_int_value(value);
  }
  void annotate(proto::TrackEvent& event, std::string_view key, double value) {
    annotation(event, key).set_double_value(value);
  }
  void annotate(proto::TrackEvent& event, std::string_view key, std::string_view value) {
    proto::DebugAnnotation& added = annotation(event, key);
    added.set_string_value_iid(
        values_.of(value, *header_.mutable_interned_data()->mutable_debug_annotation_string_values(),
                   [](proto::InternedString& entry, std::string text) { entry.set_str(std::move(text)); }));
  }

  // Of counters: the latest value, to leave out what has not changed.
  std::map<std::uint64_t, std::int64_t>& values() { return counted_; }

  void flush();

 private:
  struct Begin {
    std::uint32_t sequence = 0;
    std::uint32_t version = 0;
    std::string event;
  };

  proto::DebugAnnotation& annotation(proto::TrackEvent& event, std::string_view key) {
    proto::DebugAnnotation& added = *event.add_debug_annotations();
    added.set_name_iid(
        keys_.of(key, *header_.mutable_interned_data()->mutable_debug_annotation_names(),
                 [](proto::DebugAnnotationName& entry, std::string text) { entry.set_name(std::move(text)); }));
    return added;
  }
  static void append_packet(std::string& out, const proto::TracePacket& packet) {
    append_field_header(out, proto::Trace::kPacketFieldNumber, packet.ByteSizeLong());
    packet.AppendToString(&out);
  }

  OutputFile& file_;
  std::string pending_;  // packets to be compressed
  std::string end_of_slice_;
  std::string body_;
  proto::TracePacket header_;  // of the next event's packet
  proto::TrackEvent event_;
  std::uint64_t entered_ = 0;
  std::uint32_t sequence_ = 0;
  std::int64_t latest_ = 0;
  Interned names_;
  Interned categories_;
  Interned keys_;
  Interned values_;
  std::vector<Begin> begins_;
  std::map<std::uint64_t, std::int64_t> counted_;
};

// A sequence of packets has its own clock and its own references.
void PerfettoTrace::Packets::enter(std::uint64_t sequence_of, std::optional<std::uint64_t> track) {
  if (is_in(sequence_of)) return;
  entered_ = sequence_of;
  ++sequence_;
  latest_ = 0;
  for (Interned* interned : {&names_, &categories_, &keys_, &values_}) interned->clear();
  counted_.clear();

  proto::TracePacket packet;
  packet.set_trusted_packet_sequence_id(sequence_);
  packet.set_first_packet_on_sequence(true);
  packet.set_sequence_flags(proto::TracePacket::SEQ_INCREMENTAL_STATE_CLEARED);
  packet.mutable_trace_packet_defaults()->set_timestamp_clock_id(incremental_clock);
  if (track) packet.mutable_trace_packet_defaults()->mutable_track_event_defaults()->set_track_uuid(*track);
  for (const std::uint32_t id : {boot_time, incremental_clock}) {
    proto::ClockSnapshot::Clock& clock = *packet.mutable_clock_snapshot()->add_clocks();
    clock.set_clock_id(id);
    clock.set_timestamp(0);
    if (id == incremental_clock) clock.set_is_incremental(true);
  }
  append_packet(pending_, packet);
}

void PerfettoTrace::Packets::write(std::int64_t when, std::string_view before) {
  const std::int64_t now = nanoseconds(when);
  sim::ensure(now >= latest_, "events of a track are in order");
  header_.set_timestamp(static_cast<std::uint64_t>(now - latest_));
  header_.set_trusted_packet_sequence_id(sequence_);
  header_.set_sequence_flags(proto::TracePacket::SEQ_NEEDS_INCREMENTAL_STATE);
  latest_ = now;
  // Serialised messages one after another are one message: `before` is the same for many events.
  header_.SerializeToString(&body_);
  append_field_header(body_, proto::TracePacket::kTrackEventFieldNumber, before.size() + event_.ByteSizeLong());
  body_ += before;
  event_.AppendToString(&body_);
  header_.Clear();

  append_field_header(pending_, proto::Trace::kPacketFieldNumber, body_.size());
  pending_ += body_;
  constexpr std::size_t enough = std::size_t{1} << 18U;  // Perfetto asks for less than 512 KiB in a compressed packet
  if (pending_.size() >= enough) flush();
}

void PerfettoTrace::Packets::flush() {
  if (pending_.empty()) return;
  proto::TracePacket packet;
  std::string& compressed = *packet.mutable_compressed_packets();
  uLongf size = compressBound(pending_.size());
  compressed.resize(size);
  const int status = compress2(reinterpret_cast<Bytef*>(compressed.data()), &size,
                               reinterpret_cast<const Bytef*>(pending_.data()), pending_.size(), Z_BEST_SPEED);
  if (status == Z_MEM_ERROR) throw std::bad_alloc{};
  sim::ensure(status == Z_OK, "what is compressed fits its bound");
  compressed.resize(size);
  pending_.clear();
  std::string out;
  append_packet(out, packet);
  file_.write(out);
}

const std::string& PerfettoTrace::Packets::begin_of(const TraceLabel& label) {
  if (begins_.size() <= label.number) begins_.resize(label.number + 1);
  Begin& begin = begins_[label.number];
  if (begin.sequence == sequence_ && begin.version == label.version) return begin.event;
  proto::TrackEvent event;
  event.set_type(proto::TrackEvent::TYPE_SLICE_BEGIN);
  event.set_name_iid(name(label.name));
  event.add_category_iids(category(label.category));
  annotate(event, "block", std::string_view(label.block));
  for (const auto& [key, value] : label.arguments) {
    if (const auto* number = std::get_if<std::int64_t>(&value))
      annotate(event, key, *number);
    else
      annotate(event, key, std::string_view(std::get<std::string>(value)));
  }
  begin.sequence = sequence_;
  begin.version = label.version;
  event.SerializeToString(&begin.event);
  return begin.event;
}

PerfettoTrace::PerfettoTrace(OutputFile& file) : packets_(std::make_unique<Packets>(file)) {}
PerfettoTrace::~PerfettoTrace() = default;

// The measured step is a slice of its own, on a track above the ranks.
void PerfettoTrace::start(const TraceStep& step) {
  proto::TrackDescriptor track;
  track.set_uuid(step_track);
  track.set_name("measured step");
  packets_->describe(track);
  packets_->enter(step_track, step_track);
  proto::TrackEvent& begin = packets_->event();
  begin.set_type(proto::TrackEvent::TYPE_SLICE_BEGIN);
  begin.set_name_iid(packets_->name("step"));
  packets_->write(step.start);
  packets_->event();
  packets_->write(step.start + step.duration, packets_->end_of_slice());
}

namespace {

proto::TrackDescriptor process_of(RankId rank, std::string_view name, std::int32_t sort_index) {
  proto::TrackDescriptor track;
  track.set_uuid(track_of(rank));
  track.mutable_process()->set_pid(static_cast<std::int32_t>(index_of(rank)));
  track.mutable_process()->set_process_name(std::string(name));
  track.mutable_process()->set_legacy_sort_index(sort_index);
  return track;
}

}  // namespace

void PerfettoTrace::name_path(RankId behind) {
  packets_->describe(process_of(behind, path_name, -1));
  name_stream(behind, sim::compute_stream, path_name);
}

void PerfettoTrace::name_rank(RankId rank, std::string_view name) {
  packets_->describe(process_of(rank, name, static_cast<std::int32_t>(index_of(rank))));
  for (std::size_t i = 0; i < sim::memory_purposes; ++i) {
    proto::TrackDescriptor counter;
    counter.set_uuid(track_of(rank, memory_track + i));
    counter.set_parent_uuid(track_of(rank));
    counter.set_name("memory " + std::string(to_string(static_cast<sim::MemoryPurpose>(i))));
    counter.mutable_counter()->set_unit(proto::CounterDescriptor::UNIT_SIZE_BYTES);
    packets_->describe(counter);
  }
}

void PerfettoTrace::name_stream(RankId rank, StreamId stream, std::string_view name) {
  proto::TrackDescriptor track;
  track.set_uuid(track_of(rank, stream));
  track.set_parent_uuid(track_of(rank));
  track.mutable_thread()->set_pid(static_cast<std::int32_t>(index_of(rank)));
  track.mutable_thread()->set_tid(static_cast<std::int32_t>(thread_of(rank, stream)));
  track.mutable_thread()->set_thread_name(std::string(name));
  track.mutable_thread()->set_legacy_sort_index(static_cast<std::int32_t>(index_of(stream)));
  packets_->describe(track);
}

void PerfettoTrace::begin_phase(const TracePhase& phase) {
  packets_->enter(track_of(phase.rank, phase.stream), track_of(phase.rank, phase.stream));
  proto::TrackEvent& event = packets_->event();
  event.set_type(proto::TrackEvent::TYPE_SLICE_BEGIN);
  event.set_name_iid(packets_->name(phase.name));
  event.add_category_iids(packets_->category("phase"));
  packets_->annotate(event, "phase", std::string_view(phase.phase));
  if (phase.micro_batch >= 0) packets_->annotate(event, "micro_batch", std::int64_t{phase.micro_batch});
  if (phase.backward_micro_batch >= 0)
    packets_->annotate(event, "backward_micro_batch", std::int64_t{phase.backward_micro_batch});
  packets_->write(phase.start);
}

void PerfettoTrace::end_phase(const TracePhase& phase) {
  packets_->event();
  packets_->write(phase.end, packets_->end_of_slice());
}

namespace {

// Perfetto draws an arrow from the event that is first in time: from the beginning of the slice where it leaves to the
// end of the one where it arrives. An instant has no order.
bool has_arrows(const TraceSlice& slice) {
  return slice.arrows.count > 0 && nanoseconds(slice.arrows.transfer) < nanoseconds(slice.end);
}

}  // namespace

void PerfettoTrace::begin_slice(const TraceSlice& slice) {
  packets_->enter(track_of(slice.rank, slice.stream), track_of(slice.rank, slice.stream));
  const std::string& begin = packets_->begin_of(*slice.label);
  proto::TrackEvent& event = packets_->event();
  if (slice.layer >= 0) packets_->annotate(event, "layer", std::int64_t{slice.layer});
  if (slice.micro_batch >= 0) packets_->annotate(event, "micro_batch", std::int64_t{slice.micro_batch});
  if (slice.waited) packets_->annotate(event, "waited_us", static_cast<double>(*slice.waited) / 1e6);
  if (slice.of_rank) packets_->annotate(event, "rank", static_cast<std::int64_t>(index_of(*slice.of_rank)));
  if (slice.arrows.leave && has_arrows(slice))
    for (std::uint32_t i = 0; i < slice.arrows.count; ++i) event.add_flow_ids(slice.arrows.first + i);
  packets_->write(slice.start, begin);
}

void PerfettoTrace::end_slice(const TraceSlice& slice) {
  proto::TrackEvent& event = packets_->event();
  if (!slice.arrows.leave && has_arrows(slice)) event.add_terminating_flow_ids(slice.arrows.first);
  packets_->write(slice.end, packets_->end_of_slice());
}

// Purposes that have not changed are left out, unless nothing has: then that is what is said.
void PerfettoTrace::count_memory(RankId rank, std::int64_t when,
                                 const std::array<std::int64_t, sim::memory_purposes>& allocated) {
  packets_->enter(track_of(rank, memory_track), std::nullopt);
  const auto changed = [&](std::size_t purpose) {
    const auto known = packets_->values().find(purpose);
    return known == packets_->values().end() || known->second != allocated.at(purpose);
  };
  bool any = false;
  for (std::size_t i = 0; i < allocated.size(); ++i) any = any || changed(i);
  for (std::size_t i = 0; i < allocated.size(); ++i) {
    if (any && !changed(i)) continue;
    packets_->values()[i] = allocated.at(i);
    proto::TrackEvent& event = packets_->event();
    event.set_type(proto::TrackEvent::TYPE_COUNTER);
    event.set_track_uuid(track_of(rank, memory_track + i));
    event.set_counter_value(allocated.at(i));
    packets_->write(when);
  }
}

void PerfettoTrace::count_traffic(RankId rank, TrafficLinks links, std::int64_t when, std::int64_t bytes_per_second) {
  constexpr std::int64_t per_millionth = 1000;  // as exact as in Chrome's format: millionths of a GB/s
  const std::uint64_t track = track_of(rank, traffic_track + static_cast<std::uint64_t>(links));
  if (!packets_->is_in(track)) {
    proto::TrackDescriptor counter;
    counter.set_uuid(track);
    counter.set_parent_uuid(track_of(rank));
    counter.set_name(std::string(to_string(links)) + " GB/s");
    counter.mutable_counter();
    packets_->describe(counter);
  }
  packets_->enter(track, track);
  proto::TrackEvent& event = packets_->event();
  event.set_type(proto::TrackEvent::TYPE_COUNTER);
  event.set_double_counter_value(static_cast<double>(bytes_per_second / per_millionth) / 1e6);
  packets_->write(when);
}

void PerfettoTrace::finish() { packets_->flush(); }

}  // namespace trainyard::scenarios

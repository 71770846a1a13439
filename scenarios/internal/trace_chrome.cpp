#include "scenarios/internal/trace_chrome.hpp"

#include <charconv>
#include <nlohmann/json.hpp>

namespace trainyard::scenarios {
namespace {

using sim::index_of;
using sim::RankId;
using sim::StreamId;

std::string json_string(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

void append(std::string& out, std::int64_t number) {
  std::array<char, 20> digits{};
  const auto result = std::to_chars(digits.data(), digits.data() + digits.size(), number);
  out.append(digits.data(), result.ptr);
}

// `value` / 10^6, exactly.
void append_millionths(std::string& out, std::int64_t value) {
  constexpr std::int64_t million = 1'000'000;
  append(out, value / million);
  std::array<char, 7> decimals{'.'};
  std::int64_t rest = value % million;
  for (std::size_t i = decimals.size(); i-- > 1; rest /= 10) decimals.at(i) = static_cast<char>('0' + rest % 10);
  out.append(decimals.data(), decimals.size());
}

}  // namespace

void ChromeTrace::begin(char phase, RankId rank) {
  out_ += first_ ? "\n" : ",\n";
  first_ = false;
  out_ += R"({"ph":")";
  out_ += phase;
  out_ += '"';
  append_field("pid", static_cast<std::int64_t>(index_of(rank)));
}

void ChromeTrace::append_thread(RankId rank, StreamId stream) {
  append_field("tid", static_cast<std::int64_t>(thread_of(rank, stream)));
}

void ChromeTrace::append_field(std::string_view key, std::int64_t value) {
  out_ += ",\"";
  out_ += key;
  out_ += "\":";
  append(out_, value);
}

void ChromeTrace::append_time(std::string_view key, std::int64_t ps) {
  out_ += ",\"";
  out_ += key;
  out_ += "\":";
  append_millionths(out_, ps);
}

void ChromeTrace::end() {
  constexpr std::size_t enough = std::size_t{1} << 16U;
  out_ += '}';
  if (out_.size() < enough) return;
  file_.write(out_);
  out_.clear();
}

void ChromeTrace::start(const TraceStep& step) {
  out_ = R"({"displayTimeUnit":"ms","otherData":{"step_time_us":)";
  append_millionths(out_, step.duration);
  append_time("step_from_us", step.start);
  out_ += R"(},"traceEvents":[)";
}

void ChromeTrace::finish() {
  out_ += "\n]}\n";
  file_.write(out_);
}

void ChromeTrace::write_metadata(std::string_view what, RankId rank, const StreamId* stream, std::string_view value) {
  begin('M', rank);
  if (stream != nullptr) append_thread(rank, *stream);
  out_ += R"(,"name":")";
  out_ += what;
  out_ += R"(","args":{")";
  out_ += what.ends_with("name") ? "name" : "sort_index";
  out_ += "\":";
  out_ += value;
  out_ += '}';
  end();
}

void ChromeTrace::name_rank(RankId rank, std::string_view name) {
  write_metadata("process_name", rank, nullptr, json_string(name));
  write_metadata("process_sort_index", rank, nullptr, std::to_string(index_of(rank)));
}

void ChromeTrace::name_stream(RankId rank, StreamId stream, std::string_view name) {
  write_metadata("thread_name", rank, &stream, json_string(name));
  write_metadata("thread_sort_index", rank, &stream, std::to_string(index_of(stream)));
}

void ChromeTrace::name_path(RankId behind) {
  write_metadata("process_name", behind, nullptr, json_string(path_name));
  write_metadata("process_sort_index", behind, nullptr, "-1");
  name_stream(behind, sim::compute_stream, path_name);
}

void ChromeTrace::begin_phase(const TracePhase& phase) {
  begin('X', phase.rank);
  append_thread(phase.rank, phase.stream);
  append_time("ts", phase.start);
  append_time("dur", phase.end - phase.start);
  out_ += R"(,"name":)" + json_string(phase.name) + R"(,"cat":"phase","args":{"phase":)" + json_string(phase.phase);
  if (phase.micro_batch >= 0) append_field("micro_batch", phase.micro_batch);
  if (phase.backward_micro_batch >= 0) append_field("backward_micro_batch", phase.backward_micro_batch);
  out_ += '}';
  end();
}

const ChromeTrace::LabelText& ChromeTrace::text_of(const TraceLabel& label) {
  if (labels_.size() <= label.number) labels_.resize(label.number + 1);
  LabelText& text = labels_[label.number];
  if (text.version == label.version) return text;
  text.version = label.version;
  text.head = R"(,"name":)" + json_string(label.name) + R"(,"cat":)" + json_string(label.category) +
              R"(,"args":{"block":)" + json_string(label.block);
  text.tail.clear();
  for (const auto& [key, value] : label.arguments) {
    text.tail += ",\"" + std::string(key) + "\":";
    if (const auto* number = std::get_if<std::int64_t>(&value))
      append(text.tail, *number);
    else
      text.tail += json_string(std::get<std::string>(value));
  }
  return text;
}

void ChromeTrace::begin_slice(const TraceSlice& slice) {
  begin('X', slice.rank);
  append_thread(slice.rank, slice.stream);
  append_time("ts", slice.start);
  append_time("dur", slice.end - slice.start);
  const LabelText& text = text_of(*slice.label);
  out_ += text.head;
  if (slice.layer >= 0) append_field("layer", slice.layer);
  if (slice.micro_batch >= 0) append_field("micro_batch", slice.micro_batch);
  out_ += text.tail;
  if (slice.waited) append_time("waited_us", *slice.waited);
  if (slice.of_rank) append_field("rank", static_cast<std::int64_t>(index_of(*slice.of_rank)));
  out_ += '}';
  end();
  write_arrows(slice);
}

// An arrow leaves when the transfer begins and arrives half-way through it: inside both slices, and later than it left,
// which Perfetto asks for.
void ChromeTrace::write_arrows(const TraceSlice& slice) {
  const TraceArrows& arrows = slice.arrows;
  const std::int64_t half = (slice.end - arrows.transfer) / 2;
  for (std::uint32_t i = 0; i < arrows.count; ++i) {
    begin(arrows.leave ? 's' : 'f', slice.rank);
    append_thread(slice.rank, slice.stream);
    append_time("ts", arrows.transfer + (arrows.leave ? 0 : half));
    append_field("id", static_cast<std::int64_t>(arrows.first + i));
    out_ += R"(,"name":"communication","cat":"communication")";
    if (!arrows.leave) out_ += R"(,"bp":"e")";
    end();
  }
}

void ChromeTrace::count_memory(RankId rank, std::int64_t when,
                               const std::array<std::int64_t, sim::memory_purposes>& allocated) {
  begin('C', rank);
  append_time("ts", when);
  out_ += R"(,"name":"memory","args":{)";
  for (std::size_t i = 0; i < allocated.size(); ++i) {
    out_ += i == 0 ? "\"" : ",\"";
    out_ += to_string(static_cast<sim::MemoryPurpose>(i));
    out_ += "\":";
    append(out_, allocated.at(i));
  }
  out_ += '}';
  end();
}

void ChromeTrace::count_traffic(RankId rank, TrafficLinks links, std::int64_t when, std::int64_t bytes_per_second) {
  constexpr std::int64_t per_millionth = 1000;  // bytes per second in a millionth of a GB/s
  begin('C', rank);
  append_time("ts", when);
  out_ += R"(,"name":")";
  out_ += to_string(links);
  out_ += R"(","args":{"GB/s":)";
  append_millionths(out_, bytes_per_second / per_millionth);
  out_ += '}';
  end();
}

}  // namespace trainyard::scenarios

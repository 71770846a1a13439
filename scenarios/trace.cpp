#include "scenarios/trace.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "scenarios/output_file.hpp"

namespace trainyard::scenarios {
namespace {

using sim::index_of;
using sim::OpRecord;
using sim::RankId;
using sim::StreamId;

// Viewers number threads across processes, and the thread 0 is the idle one to Perfetto.
std::size_t thread_of(RankId rank, StreamId stream) {
  return index_of(rank) * sim::most_streams + index_of(stream) + 1;
}

std::int64_t ticks(sim::TimePoint when) { return when.time_since_epoch().count(); }

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

// Before the phase of blocks of which two passes run at once, see strategies/internal/pass_overlap.hpp.
constexpr std::string_view overlapped = "overlapped-";
bool is_overlapped(std::string_view phase) { return phase.starts_with(overlapped); }

// What a slice says of its operation, up to what differs from one execution to the next. The same in all executions by
// a rank; the group is another for the next rank.
struct Label {
  std::string head;  // empty when there is none yet
  std::string args;
  sim::CommunicatorId communicator{};
};

// The start or the end of an arrow.
struct ArrowEnd {
  std::uint32_t record = 0;
  std::uint32_t arrow = 0;
  bool start = false;
};

// Whole bytes, so that sums return to zero exactly; capped, so that nothing overflows on a network without limits.
std::int64_t bytes_per_second(sim::Bytes bytes, sim::Duration duration) {
  constexpr double most = 1e17;
  return static_cast<std::int64_t>(std::min(most, static_cast<double>(bytes.count) / sim::to_seconds(duration)));
}

// From when on a link carries so many more bytes per second, or fewer.
struct RateChange {
  std::int64_t when = 0;
  std::int64_t rate = 0;
};

class TraceWriter {
 public:
  TraceWriter(const sim::Plan& plan, const sim::Outcome& outcome, OutputFile& file);
  void write();

 private:
  void find_extent();
  void find_arrows();
  void add_arrows(std::span<const std::uint32_t> members);
  void add_arrow(std::uint32_t from, std::uint32_t to);
  void write_rank(RankId rank, std::span<const OpRecord> records, std::span<const sim::MemoryRecord> memory);
  void write_names(RankId rank, const std::array<std::vector<std::uint32_t>, sim::most_streams>& by_stream);
  void write_metadata(std::string_view what, RankId rank, std::optional<StreamId> stream, std::string_view value);
  void write_slice(const OpRecord& record);
  std::string_view phase_of(const OpRecord& record) const;
  struct Pass {
    std::string_view phase;
    std::int32_t micro_batch = -1;
  };
  std::vector<Pass> passes_of(std::span<const std::uint32_t> indices) const;
  std::size_t phase_length(std::span<const std::uint32_t> indices) const;
  void write_phase(std::span<const std::uint32_t> indices);
  void write_arrow_end(const OpRecord& record, const ArrowEnd& end);
  void write_memory(RankId rank, std::span<const sim::MemoryRecord> memory);
  void write_link_use(RankId rank, std::span<const OpRecord> records);
  void write_counter(RankId rank, std::string_view name, std::vector<RateChange>& changes);

  const sim::Call* call_of(const OpRecord& record) const;
  const sim::CommunicationCost& cost_of(const OpRecord& record) const;
  const Label& label_of(const OpRecord& record);
  Label kernel_label(const OpRecord& record) const;
  Label communication_label(const OpRecord& record) const;

  void begin(char phase, RankId rank);
  void append_time(std::string_view key, std::int64_t ps);
  void append_field(std::string_view key, std::int64_t value);
  void end();

  const sim::Plan& plan_;
  const sim::Outcome& outcome_;
  OutputFile& file_;
  std::string out_;
  bool first_ = true;
  std::int64_t from_ = 0;  // what is written begins here
  std::int64_t to_ = 0;
  std::vector<ArrowEnd> arrow_ends_;  // in the order of the records
  std::uint32_t arrows_ = 0;
  sim::Table<sim::BlockId, std::vector<Label>> labels_;
  sim::Table<sim::BlockId, std::string> block_names_;
};

TraceWriter::TraceWriter(const sim::Plan& plan, const sim::Outcome& outcome, OutputFile& file)
    : plan_(plan), outcome_(outcome), file_(file), labels_(plan.blocks.size()) {
  for (const sim::Block& block : plan.blocks) block_names_.add(json_string(block.name));
}

const sim::Call* TraceWriter::call_of(const OpRecord& record) const {
  const auto* work = std::get_if<sim::Communicate>(&plan_.blocks[record.block].ops[record.op].work);
  return work == nullptr ? nullptr : &plan_.calls[work->call];
}

const sim::CommunicationCost& TraceWriter::cost_of(const OpRecord& record) const {
  const auto& work = std::get<sim::Communicate>(plan_.blocks[record.block].ops[record.op].work);
  return plan_.costs[plan_.communicators[record.communicator].cost][index_of(work.call)];
}

// A stream may begin the step while compute still ends the one before.
void TraceWriter::find_extent() {
  from_ = ticks(outcome_.measured_from);
  to_ = from_ + outcome_.step_time.count();
  for (const OpRecord& record : outcome_.records) {
    from_ = std::min(from_, ticks(record.start));
    to_ = std::max(to_, ticks(record.end));
  }
}

void TraceWriter::find_arrows() {
  std::vector<std::uint32_t> communications;
  for (std::uint32_t i = 0; i < outcome_.records.size(); ++i)
    if (call_of(outcome_.records[i]) != nullptr) communications.push_back(i);
  const auto key = [&](std::uint32_t i) {
    const OpRecord& record = outcome_.records[i];
    return std::make_tuple(record.communicator, record.sequence, i);
  };
  std::ranges::sort(communications, {}, key);
  for (std::size_t from = 0, to = 0; from < communications.size(); from = to) {
    const OpRecord& first = outcome_.records[communications[from]];
    while (to < communications.size() && outcome_.records[communications[to]].communicator == first.communicator &&
           outcome_.records[communications[to]].sequence == first.sequence)
      ++to;
    add_arrows(std::span(communications).subspan(from, to - from));
  }
  std::ranges::sort(arrow_ends_, {}, [](const ArrowEnd& end) { return std::make_pair(end.record, end.arrow); });
}

// From the sender to the receiver, or from the member that the others have waited for to each of them. Members come in
// the order of their ranks.
void TraceWriter::add_arrows(std::span<const std::uint32_t> members) {
  if (members.size() < 2) return;
  const OpRecord& any = outcome_.records[members.front()];
  if (any.transfer >= any.end) return;  // no viewer finds a slice at an instant
  const sim::CollectiveKind kind = call_of(any)->kind;
  const bool pair = kind == sim::CollectiveKind::send || kind == sim::CollectiveKind::receive;
  std::uint32_t source = members.front();
  for (const std::uint32_t member : members) {
    const OpRecord& record = outcome_.records[member];
    if (pair ? call_of(record)->kind == sim::CollectiveKind::send : record.start > outcome_.records[source].start)
      source = member;
  }
  for (const std::uint32_t member : members)
    if (member != source) add_arrow(source, member);
}

void TraceWriter::add_arrow(std::uint32_t from, std::uint32_t to) {
  arrow_ends_.push_back({.record = from, .arrow = arrows_, .start = true});
  arrow_ends_.push_back({.record = to, .arrow = arrows_, .start = false});
  ++arrows_;
}

void TraceWriter::begin(char phase, RankId rank) {
  out_ += first_ ? "\n" : ",\n";
  first_ = false;
  out_ += R"({"ph":")";
  out_ += phase;
  out_ += '"';
  append_field("pid", static_cast<std::int64_t>(index_of(rank)));
}

void TraceWriter::append_field(std::string_view key, std::int64_t value) {
  out_ += ",\"";
  out_ += key;
  out_ += "\":";
  append(out_, value);
}

void TraceWriter::append_time(std::string_view key, std::int64_t ps) {
  out_ += ",\"";
  out_ += key;
  out_ += "\":";
  append_millionths(out_, ps);
}

void TraceWriter::end() {
  constexpr std::size_t enough = std::size_t{1} << 16U;
  out_ += '}';
  if (out_.size() < enough) return;
  file_.write(out_);
  out_.clear();
}

const Label& TraceWriter::label_of(const OpRecord& record) {
  std::vector<Label>& labels = labels_[record.block];
  labels.resize(plan_.blocks[record.block].ops.size());
  Label& label = labels[record.op];
  if (label.head.empty() || label.communicator != record.communicator)
    label = call_of(record) != nullptr ? communication_label(record) : kernel_label(record);
  return label;
}

Label TraceWriter::kernel_label(const OpRecord& record) const {
  constexpr std::array<std::string_view, sim::kernel_classes> classes{"matmul", "attention", "memory_bound",
                                                                      "optimizer"};
  const sim::Op& op = plan_.blocks[record.block].ops[record.op];
  const sim::Kernel& kernel = plan_.kernels[std::get<sim::Compute>(op.work).kernel];
  const std::string kind(classes.at(static_cast<std::size_t>(kernel.kind)));
  return {.head = R"(,"name":)" + json_string(kernel.name) + R"(,"cat":")" + kind + R"(","args":{"block":)" +
                  block_names_[record.block],
          .args = R"(,"flops":)" + std::to_string(kernel.flops.count) + R"(,"model_flops":)" +
                  std::to_string(kernel.model_flops.count) + R"(,"bytes":)" + std::to_string(kernel.bytes.count),
          .communicator = record.communicator};
}

Label TraceWriter::communication_label(const OpRecord& record) const {
  const sim::Call& call = *call_of(record);
  const sim::CommunicationCost& cost = cost_of(record);
  const std::string& slot = plan_.slots[call.slot];
  const std::string operation(to_string(call.kind));
  const std::string purpose(to_string(call.purpose));
  Label label{.head = {}, .args = {}, .communicator = record.communicator};
  label.head = R"(,"name":)" + json_string(operation + " " + (slot.empty() ? purpose : slot)) + R"(,"cat":")" +
               purpose + R"(","args":{"block":)" + block_names_[record.block];
  label.args = R"(,"operation":")" + operation + R"(","purpose":")" + purpose + R"(","bytes":)" +
               std::to_string(call.bytes.count) + R"(,"wire_bytes":)" + std::to_string(cost.wire_bytes.count);
  if (cost.algorithm < plan_.algorithms.size())
    label.args += R"(,"algorithm":)" + json_string(plan_.algorithms[cost.algorithm]);
  label.args += R"(,"communicator":)" + std::to_string(index_of(record.communicator)) + R"(,"group_size":)" +
                std::to_string(plan_.communicators[record.communicator].member_count);
  return label;
}

void TraceWriter::write_slice(const OpRecord& record) {
  const std::int64_t start = ticks(record.start);
  begin('X', record.rank);
  append_field("tid", static_cast<std::int64_t>(thread_of(record.rank, record.stream)));
  append_time("ts", start - from_);
  append_time("dur", ticks(record.end) - start);
  const Label& label = label_of(record);
  out_ += label.head;
  if (record.layer >= 0) append_field("layer", record.layer);
  if (record.micro_batch >= 0) append_field("micro_batch", record.micro_batch);
  out_ += label.args;
  if (call_of(record) != nullptr) append_time("waited_us", ticks(record.transfer) - start);
  out_ += '}';
  end();
}

// "forward" and "backward" of a micro-batch, else the block's name: what a diagram of the schedule is drawn with.
std::string_view TraceWriter::phase_of(const OpRecord& record) const {
  const std::string_view block = plan_.blocks[record.block].name;
  return record.micro_batch < 0 ? block : block.substr(0, block.find(' '));
}

// Records of two passes that run at once come in turns: a phase has one micro-batch of each.
std::vector<TraceWriter::Pass> TraceWriter::passes_of(std::span<const std::uint32_t> indices) const {
  std::vector<Pass> passes;
  for (const std::uint32_t index : indices) {
    const OpRecord& record = outcome_.records[index];
    const Pass pass{.phase = phase_of(record), .micro_batch = record.micro_batch};
    if (std::ranges::find(passes, pass.phase, &Pass::phase) == passes.end()) passes.push_back(pass);
  }
  std::ranges::sort(passes, std::ranges::greater{}, &Pass::phase);  // the forward pass is named first
  return passes;
}

// How many records from the first on belong to its phase.
std::size_t TraceWriter::phase_length(std::span<const std::uint32_t> indices) const {
  std::vector<Pass> passes;
  std::size_t length = 0;
  for (; length < indices.size(); ++length) {
    const OpRecord& record = outcome_.records[indices[length]];
    const Pass pass{.phase = phase_of(record), .micro_batch = record.micro_batch};
    const auto known = std::ranges::find(passes, pass.phase, &Pass::phase);
    if (known != passes.end() && known->micro_batch != pass.micro_batch) break;
    if (known != passes.end()) continue;
    if (!passes.empty() && !(is_overlapped(pass.phase) && is_overlapped(passes.front().phase))) break;
    passes.push_back(pass);
  }
  return length;
}

// A slice around the kernels of one phase.
void TraceWriter::write_phase(std::span<const std::uint32_t> indices) {
  const OpRecord& first = outcome_.records[indices.front()];
  const std::int64_t start = ticks(first.start);
  begin('X', first.rank);
  append_field("tid", static_cast<std::int64_t>(thread_of(first.rank, first.stream)));
  append_time("ts", start - from_);
  append_time("dur", ticks(outcome_.records[indices.back()].end) - start);
  // As in the literature's diagrams: F3 and B3 are the passes of micro-batch 3, I3 and W3 the parts of B3, F3&B1 two
  // passes at once.
  std::string name;
  std::string phase;
  const std::vector<Pass> passes = passes_of(indices);
  for (const Pass& pass : passes) {
    const std::string word(is_overlapped(pass.phase) ? pass.phase.substr(overlapped.size()) : pass.phase);
    const std::string separator = phase.empty() ? "" : "&";
    phase += separator + word;
    if (pass.micro_batch >= 0)
      name += separator + static_cast<char>(word.front() - 'a' + 'A') + std::to_string(pass.micro_batch);
  }
  out_ += R"(,"name":)" + json_string(name.empty() ? phase : name) + R"(,"cat":"phase","args":{"phase":)" +
          json_string(phase);
  if (first.micro_batch >= 0) append_field("micro_batch", passes.front().micro_batch);
  if (passes.size() > 1) append_field("backward_micro_batch", passes.back().micro_batch);
  out_ += '}';
  end();
}

// An arrow leaves when the transfer begins and arrives half-way through it: inside both slices, and later than it left,
// which Perfetto asks for.
void TraceWriter::write_arrow_end(const OpRecord& record, const ArrowEnd& arrow_end) {
  const std::int64_t transfer = ticks(record.transfer);
  const std::int64_t half = (ticks(record.end) - transfer) / 2;
  begin(arrow_end.start ? 's' : 'f', record.rank);
  append_field("tid", static_cast<std::int64_t>(thread_of(record.rank, record.stream)));
  append_time("ts", transfer + (arrow_end.start ? 0 : half) - from_);
  append_field("id", arrow_end.arrow + 1);
  out_ += R"(,"name":"communication","cat":"communication")";
  if (!arrow_end.start) out_ += R"(,"bp":"e")";
  end();
}

void TraceWriter::write_metadata(std::string_view what, RankId rank, std::optional<StreamId> stream,
                                 std::string_view value) {
  begin('M', rank);
  if (stream) append_field("tid", static_cast<std::int64_t>(thread_of(rank, *stream)));
  out_ += R"(,"name":")";
  out_ += what;
  out_ += R"(","args":{")";
  out_ += what.ends_with("name") ? "name" : "sort_index";
  out_ += "\":";
  out_ += value;
  out_ += '}';
  end();
}

void TraceWriter::write_names(RankId rank, const std::array<std::vector<std::uint32_t>, sim::most_streams>& by_stream) {
  const std::string number = std::to_string(index_of(rank));
  const std::string& program = plan_.programs[plan_.program_of[rank]].name;
  write_metadata("process_name", rank, std::nullopt,
                 json_string("rank " + number + (program.empty() ? "" : " (" + program + ")")));
  write_metadata("process_sort_index", rank, std::nullopt, number);
  for (std::size_t i = 0; i < plan_.streams.size(); ++i) {
    if (by_stream.at(i).empty()) continue;
    const StreamId stream = plan_.streams.id(i);
    write_metadata("thread_name", rank, stream, json_string(plan_.streams[stream]));
    write_metadata("thread_sort_index", rank, stream, std::to_string(i));
  }
}

void TraceWriter::write_rank(RankId rank, std::span<const OpRecord> records,
                             std::span<const sim::MemoryRecord> memory) {
  std::array<std::vector<std::uint32_t>, sim::most_streams> by_stream;
  for (const OpRecord& record : records)
    by_stream.at(index_of(record.stream)).push_back(static_cast<std::uint32_t>(&record - outcome_.records.data()));
  write_names(rank, by_stream);
  // A stream is first in, first out: its slices come in order, those of phases before those inside them, and arrows
  // begin and end inside their slices.
  for (const std::vector<std::uint32_t>& indices : by_stream) {
    if (indices.empty()) continue;
    auto arrow_end = std::ranges::lower_bound(arrow_ends_, indices.front(), {}, &ArrowEnd::record);
    const bool compute = outcome_.records[indices.front()].stream == sim::compute_stream;
    std::size_t phase_ends = 0;
    for (std::size_t i = 0; i < indices.size(); ++i) {
      const std::uint32_t index = indices[i];
      if (compute && i == phase_ends) {
        const auto rest = std::span(indices).subspan(i);
        phase_ends = i + phase_length(rest);
        write_phase(rest.first(phase_ends - i));
      }
      write_slice(outcome_.records[index]);
      while (arrow_end != arrow_ends_.end() && arrow_end->record < index) ++arrow_end;
      for (; arrow_end != arrow_ends_.end() && arrow_end->record == index; ++arrow_end)
        write_arrow_end(outcome_.records[index], *arrow_end);
    }
  }
  write_memory(rank, memory);
  write_link_use(rank, records);
}

// Changes count in the order in which the host asks for them, as an allocator sees it; a stream that runs behind must
// not turn the time of the counter back. The last value lasts to the end of the trace.
void TraceWriter::write_memory(RankId rank, std::span<const sim::MemoryRecord> memory) {
  const auto write_value = [&](std::int64_t when, const auto& allocated) {
    begin('C', rank);
    append_time("ts", when - from_);
    out_ += R"(,"name":"memory","args":{)";
    for (std::size_t i = 0; i < sim::memory_purposes; ++i) {
      out_ += i == 0 ? "\"" : ",\"";
      out_ += to_string(static_cast<sim::MemoryPurpose>(i));
      out_ += "\":";
      append(out_, allocated.at(i).count);
    }
    out_ += '}';
    end();
  };
  std::int64_t when = from_;
  for (const sim::MemoryRecord& record : memory) {
    when = std::max(when, ticks(record.when));
    write_value(when, record.allocated);
  }
  if (when < to_) write_value(to_, memory.back().allocated);
}

void TraceWriter::write_link_use(RankId rank, std::span<const OpRecord> records) {
  std::vector<RateChange> nvlink;
  std::vector<RateChange> nic;
  for (const OpRecord& record : records) {
    if (call_of(record) == nullptr || record.transfer >= record.end) continue;
    const std::int64_t from = ticks(record.transfer);
    const std::int64_t to = ticks(record.end);
    const auto add = [&](std::vector<RateChange>& changes, sim::Bytes bytes) {
      if (bytes.count <= 0) return;
      const std::int64_t rate = bytes_per_second(bytes, sim::Duration{to - from});
      changes.push_back({.when = from, .rate = rate});
      changes.push_back({.when = to, .rate = -rate});
    };
    add(nvlink, cost_of(record).nvlink_bytes);
    add(nic, cost_of(record).nic_bytes);
  }
  write_counter(rank, "nvlink", nvlink);
  write_counter(rank, "nic", nic);
}

void TraceWriter::write_counter(RankId rank, std::string_view name, std::vector<RateChange>& changes) {
  if (changes.empty()) return;
  constexpr std::int64_t per_millionth = 1000;  // bytes per second in a millionth of a GB/s
  const auto write_value = [&](std::int64_t when, std::int64_t rate) {
    begin('C', rank);
    append_time("ts", when - from_);
    out_ += R"(,"name":")";
    out_ += name;
    out_ += R"(","args":{"GB/s":)";
    append_millionths(out_, rate / per_millionth);
    out_ += '}';
    end();
  };
  std::ranges::sort(changes, {}, [](const RateChange& change) { return std::make_pair(change.when, change.rate); });
  std::int64_t rate = 0;
  if (changes.front().when > from_) write_value(from_, 0);
  for (std::size_t i = 0; i < changes.size();) {
    const std::int64_t before = rate;
    const std::int64_t when = changes[i].when;
    for (; i < changes.size() && changes[i].when == when; ++i) rate += changes[i].rate;
    if (rate != before) write_value(when, rate);
  }
}

void TraceWriter::write() {
  find_extent();
  find_arrows();
  out_ = R"({"displayTimeUnit":"ms","otherData":{"step_time_us":)";
  append_millionths(out_, outcome_.step_time.count());
  append_time("step_from_us", ticks(outcome_.measured_from) - from_);
  out_ += R"(},"traceEvents":[)";
  std::span<const OpRecord> records(outcome_.records);
  std::span<const sim::MemoryRecord> memory(outcome_.memory);
  while (!records.empty() || !memory.empty()) {
    RankId rank = records.empty() ? memory.front().rank : records.front().rank;
    if (!memory.empty()) rank = std::min(rank, memory.front().rank);
    const auto of_rank = [&](auto all) {
      const auto other = std::ranges::find_if(all, [&](const auto& record) { return record.rank != rank; });
      return static_cast<std::size_t>(other - all.begin());
    };
    const std::size_t record_count = of_rank(records);
    const std::size_t memory_count = of_rank(memory);
    write_rank(rank, records.first(record_count), memory.first(memory_count));
    records = records.subspan(record_count);
    memory = memory.subspan(memory_count);
  }
  out_ += "\n]}\n";
  file_.write(out_);
}

}  // namespace

void write_chrome_trace(const sim::Plan& plan, const sim::Outcome& outcome, const std::filesystem::path& path) {
  sim::ensure(outcome.stall.empty(), "only a step that ends has a timeline");
  OutputFile file(path);
  TraceWriter(plan, outcome, file).write();
  file.commit();
}

}  // namespace trainyard::scenarios

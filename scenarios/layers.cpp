#include "scenarios/layers.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <tuple>
#include <utility>
#include <variant>

#include "scenarios/internal/csv.hpp"
#include "scenarios/internal/text.hpp"

namespace trainyard::scenarios {
namespace {

constexpr std::size_t bubble_index = sim::kernel_classes + sim::purposes;  // in breakdown_names

// Sums rows over the programs that call a block, and the ranks that run them.
class LayerTable {
 public:
  explicit LayerTable(const Simulation& simulation)
      : result_(simulation.result),
        plan_(simulation.plan),
        outcome_(simulation.outcome),
        ranks_of_(simulation.plan.programs.size()) {
    for (std::size_t r = 0; r < plan_.program_of.size(); ++r) {
      const sim::RankId rank = plan_.program_of.id(r);
      ++ranks_[{plan_.program_of[rank], plan_.device_class(rank)}];
      ranks_of_[plan_.program_of[rank]].push_back(rank);
    }
  }

  std::vector<LayerRow> rows() {
    for (std::size_t p = 0; p < plan_.programs.size(); ++p) add_program(plan_.programs.id(p));
    for (const sim::OperationTime& time : outcome_.operation_times) add_time(time);
    std::vector<LayerRow> rows;
    for (const Sum& sum : sums_) rows.push_back(averaged(sum));
    std::ranges::stable_sort(rows, {}, [](const LayerRow& row) {
      return row.layer < 0 ? std::numeric_limits<std::int32_t>::max() : row.layer;
    });
    for (std::size_t i = bubble_index; i < breakdown_names.size(); ++i)
      if (result_.breakdown_s.at(i) > 0)
        rows.push_back({.block = "",
                        .operation = std::string{breakdown_names.at(i)},
                        .kind = breakdown_names.at(i),
                        .exposed_s = result_.breakdown_s.at(i)});
    return rows;
  }

 private:
  struct Sum {
    LayerRow row;  // its figures over all ranks, but those that are times
    bool communicates = false;
    std::size_t kind = 0;  // in breakdown_names
    sim::WideDuration compute;
    sim::WideDuration busy;
    sim::WideDuration exposed;
  };
  using Called = std::pair<sim::BlockId, std::int32_t>;  // for a layer

  void add_program(sim::ProgramId id) {
    std::map<Called, std::int64_t> counts;
    std::vector<Called> order;
    for (const sim::BlockCall& call : plan_.programs[id].calls)
      if (counts[{call.block, call.layer}]++ == 0) order.emplace_back(call.block, call.layer);
    std::map<sim::CallId, double> wire;  // of one call, over all ranks of the program
    for (const Called& called : order) {
      const sim::Block& block = plan_.blocks[called.first];
      for (const sim::Op& op : block.ops) {
        if (const auto* compute = std::get_if<sim::Compute>(&op.work))
          add_kernel(id, called, compute->kernel, op.stream, counts.at(called));
        else if (const auto* communicate = std::get_if<sim::Communicate>(&op.work))
          add_communication(id, called, communicate->call, counts.at(called), wire);
      }
    }
  }

  Sum& sum_of(const Called& called, const std::string& operation, std::size_t kind) {
    const auto key = std::tuple{plan_.blocks[called.first].name, called.second, operation, kind};
    const auto [known, is_new] = place_.try_emplace(key, sums_.size());
    if (is_new) {
      Sum& sum = sums_.emplace_back();
      sum.row.block = std::get<0>(key);
      sum.row.layer = called.second;
      sum.row.operation = operation;
      sum.kind = kind;
      sum.communicates = kind >= sim::kernel_classes;
    }
    return sums_[known->second];
  }

  Sum& sum_of_kernel(const Called& called, sim::KernelId id, sim::StreamId stream) {
    const sim::Kernel& kernel = plan_.kernels[id];
    const bool beside = stream != sim::compute_stream;
    return sum_of(called, kernel.name, static_cast<std::size_t>(beside ? sim::KernelClass::memory_bound : kernel.kind));
  }

  Sum& sum_of_call(const Called& called, sim::CallId id) {
    const sim::Call& call = plan_.calls[id];
    return sum_of(called, std::string{sim::to_string(call.kind)},
                  sim::kernel_classes + static_cast<std::size_t>(call.purpose));
  }

  void add_kernel(sim::ProgramId program, const Called& called, sim::KernelId id, sim::StreamId stream,
                  std::int64_t count) {
    const sim::Kernel& kernel = plan_.kernels[id];
    Sum& sum = sum_of_kernel(called, id, stream);
    for (auto at = ranks_.lower_bound({program, {}}); at != ranks_.end() && at->first.first == program; ++at) {
      const std::int64_t times = count * at->second;
      const sim::Duration duration = plan_.duration_of(id, at->first.second);
      if (stream == sim::compute_stream) sum.compute.add(duration, times);
      sum.busy.add(duration, times);
      sum.row.count += static_cast<double>(times);
      sum.row.flops += static_cast<double>(times) * static_cast<double>(kernel.flops.count);
      sum.row.bytes += static_cast<double>(times) * static_cast<double>(kernel.bytes.count);
    }
  }

  void add_communication(sim::ProgramId program, const Called& called, sim::CallId id, std::int64_t count,
                         std::map<sim::CallId, double>& wire) {
    if (!wire.contains(id)) wire[id] = wire_bytes(program, id);
    Sum& sum = sum_of_call(called, id);
    for (auto at = ranks_.lower_bound({program, {}}); at != ranks_.end() && at->first.first == program; ++at) {
      const auto times = static_cast<double>(count * at->second);
      sum.row.count += times;
      sum.row.communication_bytes += times * static_cast<double>(plan_.calls[id].bytes.count);
    }
    sum.row.wire_bytes += static_cast<double>(count) * wire[id];
  }

  double wire_bytes(sim::ProgramId program, sim::CallId id) const {
    double sum = 0;
    for (const sim::RankId rank : ranks_of_[program]) {
      const sim::Communicator& communicator = plan_.communicators[plan_.communicators.of(rank, plan_.calls[id].slot)];
      sum += static_cast<double>(plan_.costs[communicator.cost][sim::index_of(id)].wire_bytes.count);
    }
    return sum;
  }

  void add_time(const sim::OperationTime& time) {
    const Called called{time.block, time.layer};
    const sim::Op& op = plan_.blocks[time.block].ops[time.op];
    const auto* compute = std::get_if<sim::Compute>(&op.work);
    Sum& sum = compute != nullptr ? sum_of_kernel(called, compute->kernel, op.stream)
                                  : sum_of_call(called, std::get<sim::Communicate>(op.work).call);
    sum.busy.ps += time.time.busy.ps;
    sum.exposed.ps += time.time.exposed.ps;
  }

  LayerRow averaged(const Sum& sum) const {
    const std::size_t ranks = plan_.program_of.size();
    const auto count = static_cast<double>(ranks);
    LayerRow row = sum.row;
    row.kind = sum.communicates ? sim::to_string(static_cast<sim::Purpose>(sum.kind - sim::kernel_classes))
                                : breakdown_names.at(sum.kind);
    for (double* figure : {&row.count, &row.flops, &row.bytes, &row.communication_bytes, &row.wire_bytes})
      *figure /= count;
    row.compute_s = sum.compute.mean_seconds(ranks);
    row.busy_s = sum.busy.mean_seconds(ranks);
    row.exposed_s = sum.exposed.mean_seconds(ranks) * (sum.communicates ? share_kept(sum.kind) : 1);
    return row;
  }

  // Of what ranks wait for a purpose, the part that slow devices are not to blame for: the same for all rows.
  double share_kept(std::size_t kind) const {
    const double all = outcome_.time.exposed.at(kind - sim::kernel_classes).mean_seconds(plan_.program_of.size());
    return all > 0 ? result_.breakdown_s.at(kind) / all : 1;
  }

  const Result& result_;
  const sim::Plan& plan_;
  const sim::Outcome& outcome_;
  std::map<std::pair<sim::ProgramId, sim::DeviceClassId>, std::int64_t> ranks_;  // how many
  sim::Table<sim::ProgramId, std::vector<sim::RankId>> ranks_of_;
  std::map<std::tuple<std::string, std::int32_t, std::string, std::size_t>, std::size_t> place_;
  std::vector<Sum> sums_;
};

}  // namespace

std::vector<LayerRow> layer_rows(const Simulation& simulation) { return LayerTable(simulation).rows(); }

std::string layers_to_csv(std::span<const LayerRow> rows) {
  std::string text =
      "layer,block,operation,class,count,compute_s,flops,bytes,communication_bytes,wire_bytes,busy_s,exposed_s\n";
  for (const LayerRow& row : rows) {
    text += (row.layer < 0 ? "" : std::to_string(row.layer)) + "," + csv_cell(row.block) + "," +
            csv_cell(row.operation) + "," + std::string{row.kind};
    for (const double figure : {row.count, row.compute_s, row.flops, row.bytes, row.communication_bytes, row.wire_bytes,
                                row.busy_s, row.exposed_s})
      text += "," + number_text(figure);
    text += "\n";
  }
  return text;
}

}  // namespace trainyard::scenarios

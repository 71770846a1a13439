#include <algorithm>

#include "strategies/internal/deepspeed_planner.hpp"

namespace trainyard::strategies {

using sim::Bytes;
using sim::CollectiveKind;
using sim::MemoryPurpose;

// On the side stream, behind what compute has done so far; without overlap compute waits for it.
void DeepspeedPlanner::write_reduce(BlockWriter& block, sim::SlotId slot, CollectiveKind kind, Bytes bytes) {
  block.communicate(reduce_, builder_.call(slot, kind, bytes, sim::Purpose::data));
  if (!options_.overlaps()) block.wait_for(sim::set_of(reduce_));
}

// Sums are divided by the number of ranks, in a pass of its own.
void DeepspeedPlanner::write_average(BlockWriter& block, std::int64_t elements) {
  const sim::Kernel divide = pass_over("average gradients", 2 * elements * reduced_bytes_);
  if (options_.overlaps())
    block.side_kernel(reduce_, divide, sim::set_of(sim::compute_stream));
  else
    block.compute({&divide, 1});
}

void DeepspeedPlanner::write_reduction(BlockWriter& block, const GradientBucket& bucket, bool accumulates) {
  if (options_.zero_stage == 3)
    write_partitioned_reduction(block, bucket);
  else
    write_replicated_reduction(block, bucket);
  write_settled(block, bucket, accumulates);
}

// Stages 0 to 2. With the defaults every rank gets the sum of the whole bucket and keeps its slice of it
// (allreduce_and_scatter); without use_multi_rank_bucket_allreduce each slice is reduced to its owner.
void DeepspeedPlanner::write_replicated_reduction(BlockWriter& block, const GradientBucket& bucket) {
  if (!several()) return;
  // What is on the side stream holds the other buffer: compute waits for it.
  if (options_.overlaps()) block.wait_for(sim::set_of(reduce_));
  const std::int64_t kept = wide_gradients_ ? state_.gradient : element_;
  if (!options_.contiguous_gradients || options_.zero_stage == 0) {
    const sim::Kernel flatten = pass_over("flatten gradients", 2 * bucket.elements() * kept);
    block.compute({&flatten, 1});
  }
  write_average(block, bucket.elements());
  for (std::size_t kind = 0; kind < replicas_.size(); ++kind)
    write_run_reduction(block, bucket.runs.at(kind), replicas_.at(kind));
  if (!options_.contiguous_gradients || options_.zero_stage == 0) {
    const sim::Kernel back = pass_over("unflatten gradients", 2 * bucket.elements() * kept);
    if (options_.overlaps())
      block.side_kernel(reduce_, back, 0);
    else
      block.compute({&back, 1});
  }
}

void DeepspeedPlanner::write_run_reduction(BlockWriter& block, const GradientBucket::Run& run, const Replicas& among) {
  if (run.elements == 0 || among.ranks == 1) return;
  if (wire_operation() != CollectiveKind::reduce)
    return write_reduce(block, among.slot, wire_operation(), Bytes{run.elements * reduced_bytes_});
  const std::int64_t end = run.first + run.elements;
  for (std::int64_t at = run.first; at < end;) {
    const std::int64_t next = std::min(end, (at / among.share() + 1) * among.share());
    write_reduce(block, among.slot, CollectiveKind::reduce, Bytes{(next - at) * reduced_bytes_});
    at = next;
  }
}

CollectiveKind DeepspeedPlanner::wire_operation() const {
  const std::string& chosen = options_.zero12_wire_op.value;
  if (options_.zero_stage == 0) return CollectiveKind::all_reduce;
  if (chosen == "reduce") return CollectiveKind::reduce;
  if (chosen == "reduce_scatter") return CollectiveKind::reduce_scatter;
  const bool rooted = options_.reduce_scatter && !options_.use_multi_rank_bucket_allreduce;
  return chosen == "auto" && rooted ? CollectiveKind::reduce : CollectiveKind::all_reduce;
}

bool DeepspeedPlanner::quantizes_gradients() const {
  return options_.zero_stage == 3 && options_.zero_quantized_gradients && job_.cluster.nodes() > 1 && several();
}

// Stage 3: the slices of all tensors are put side by side by their owners (reduce_scatter_coalesced).
void DeepspeedPlanner::write_partitioned_reduction(BlockWriter& block, const GradientBucket& bucket) {
  if (!several()) return;
  if (quantizes_gradients()) {
    for (const ParameterTensor& tensor : bucket.tensors)
      if (tensor.matrix)
        write_quantized_reduction(block, tensor);
      else
        write_reduce(block, data_slot_, CollectiveKind::reduce_scatter, Bytes{tensor.elements * reduced_bytes_});
    return;
  }
  if (options_.slice_lists) return write_listed_reduction(block, bucket);
  if (bucket.tensors.size() > 1) {
    const sim::Kernel join = pass_over("join slices", bucket.elements() * (element_ + reduced_bytes_));
    if (options_.overlaps())
      block.side_kernel(reduce_, join, sim::set_of(sim::compute_stream));
    else
      block.compute({&join, 1});
  }
  write_average(block, bucket.elements());
  const bool whole =
      !options_.reduce_scatter && options_.contiguous_gradients && bucket.elements() <= options_.reduce_bucket_size;
  write_reduce(block, data_slot_, whole ? CollectiveKind::all_reduce : CollectiveKind::reduce_scatter,
               Bytes{bucket.elements() * reduced_bytes_});
}

// For each slice of a list, Python runs two operators (deepspeed/runtime/zero/partition_parameters.py at v0.3.16,
// _reduce_scatter_gradient), and the library copies it in.
void DeepspeedPlanner::write_listed_reduction(BlockWriter& block, const GradientBucket& bucket) {
  write_average(block, bucket.elements());
  for (const ParameterTensor& tensor : bucket.tensors) {
    block.host_work(shards_ * (2 * host_.forward + host_.backward));
    write_reduce(block, data_slot_, CollectiveKind::reduce_scatter, Bytes{tensor.elements * reduced_bytes_});
  }
}

// qgZ: 4-bit blocks go to the ranks of the node, are summed up, and go to the ranks of the same place on all nodes
// (deepspeed/runtime/comm/coalesced_collectives.py, all_to_all_quant_reduce). Scales, one number per block, are left
// out, as in the table of the ZeRO++ paper (arXiv 2306.10209).
void DeepspeedPlanner::write_quantized_reduction(BlockWriter& block, const ParameterTensor& tensor) {
  const std::int64_t n = tensor.elements;
  const std::int64_t here = shards_ / job_.cluster.nodes();
  const auto kernel = [&](const char* name, std::int64_t bytes) {
    const sim::Kernel pass = pass_over(name, bytes);
    if (options_.overlaps())
      block.side_kernel(reduce_, pass, sim::set_of(sim::compute_stream));
    else
      block.compute({&pass, 1});
  };
  kernel("quantise gradients", n * element_ + n / 2);
  if (here > 1) write_reduce(block, node_slot_, CollectiveKind::all_to_all, Bytes{n / 2});
  kernel("sum up quantised gradients", n / 2 + n / 2 / here);
  write_reduce(block, across_slot_, CollectiveKind::all_to_all, Bytes{n / 2 / here});
  kernel("dequantise gradients", n / 2 / here + n / shards_ * element_);
}

// What becomes of a reduced slice: it is added to those of earlier micro-batches, or goes to the host, where the
// optimizer is; what earlier micro-batches left there comes to the device to be added to
// (async_accumulate_grad_in_cpu_via_gpu). Of stages 1 and 2, ranks own contiguous parts, in the order of parameters:
// the program is that of the rank whose part comes last, for which all others wait. round_robin_gradients spreads every
// bucket over all ranks, and so does stage 3.
void DeepspeedPlanner::write_settled(BlockWriter& block, const GradientBucket& bucket, bool accumulates) {
  const bool in_parts = options_.zero_stage < 3 && options_.offloads_optimizer() && !options_.round_robin_gradients;
  std::int64_t own = 0;
  for (std::size_t kind = 0; kind < replicas_.size(); ++kind) {
    const GradientBucket::Run& run = bucket.runs.at(kind);
    const Replicas& among = replicas_.at(kind);
    const std::int64_t part = among.share();
    own += in_parts ? std::clamp(run.first + run.elements - (among.trained - part), std::int64_t{0},
                                 std::min(run.elements, part))
                    : (run.elements + among.ranks - 1) / among.ranks;
  }
  const sim::StreamSet producers = static_cast<sim::StreamSet>(sim::set_of(sim::compute_stream) | sim::set_of(reduce_));
  const bool to_host = options_.offloads_optimizer();
  accumulates = accumulates && options_.zero_stage >= 2;  // before, ranks accumulate whole gradients
  const Bytes moved = to_host && owned() > 0 ? sim::scaled(Bytes{own * element_}, owned_on_host(), owned()) : Bytes{};
  if (to_host && accumulates) host_state_.copy_in(block, moved, 0);
  if (accumulates && own > 0) {
    const sim::StreamSet after = to_host ? sim::set_of(host_state_.in()) : sim::StreamSet{0};
    block.side_kernel(reduce_, pass_over("accumulate gradients", 3 * own * element_),
                      static_cast<sim::StreamSet>(after | sim::set_of(sim::compute_stream)));
  }
  if (to_host) host_state_.copy_out(block, moved, producers);
}

}  // namespace trainyard::strategies

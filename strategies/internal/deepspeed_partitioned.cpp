#include <algorithm>
#include <limits>
#include <map>

#include "strategies/internal/deepspeed_planner.hpp"

namespace trainyard::strategies {

using sim::Bytes;
using sim::CollectiveKind;
using sim::EventRef;
using sim::MemoryPurpose;

namespace {

// What the host does in the hooks before and behind a submodule that owns parameters, with its share of those of
// modules that own none: Python through fetch_sub_module, release_sub_module and all_gather_coalesced, and the autograd
// functions that call them in backward. A BERT of 64 layers with eight such modules each on one node took 0.4 ms for
// each forward and 0.8 ms backward beyond kernels and transfers (deepspeedai/DeepSpeed pull request 1188). Of the two,
// the ten of the DSAZ rows with 175B on 128 and 256 devices, which last 6 % longer still, ask for the larger.
constexpr sim::Duration hooks = std::chrono::microseconds{800};

// The operators of a part, cut before each that owns parameters.
template <class Submodule, class Owns>
std::vector<Submodule> cut(std::size_t operators, Owns owns) {
  std::vector<Submodule> submodules;
  for (std::size_t i = 0; i < operators; ++i) {
    if (submodules.empty() || owns(i)) submodules.push_back({.first = i, .end = i, .owns = owns(i)});
    submodules.back().end = i + 1;
  }
  return submodules;
}

}  // namespace

std::vector<std::uint32_t> DeepspeedPlanner::parameters_of(const Part& part, const Submodule& submodule) const {
  std::vector<std::uint32_t> numbers;
  std::uint32_t next = part.first_tensor;
  for (std::size_t i = 0; i < submodule.first; ++i) next += static_cast<std::uint32_t>((*part.tensors)[i].size());
  if (part.layer == &model_.head && part.layer->operators[submodule.first].name == tied_) numbers.push_back(0);
  for (std::size_t i = 0; i < (*part.tensors)[submodule.first].size(); ++i) numbers.push_back(next++);
  return numbers;
}

// A forward and a backward pass, hook by hook.
std::vector<DeepspeedPlanner::Visit> DeepspeedPlanner::trace_visits() {
  std::vector<Visit> visits;
  const auto submodules = [&](const Part& part) {
    return cut<Submodule>(part.layer->operators.size(), [&](std::size_t i) {
      return !(*part.tensors)[i].empty() || (part.layer == &model_.head && part.layer->operators[i].name == tied_);
    });
  };
  const auto add = [&](const Part& part, const Submodule& submodule, Pass pass) {
    visits.push_back({.part = &part, .submodule = submodule, .pass = pass});
  };
  for (const Part& part : parts_) {
    const std::size_t first = visits.size();
    for (const Submodule& submodule : submodules(part)) add(part, submodule, Pass::forward);
    visits[first].starts = true;
  }
  for (std::size_t p = parts_.size(); p-- > 0;) {
    const Part& part = parts_[p];
    const std::size_t first = visits.size();
    std::vector<Submodule> inside = submodules(part);
    const auto runs_again = [&](std::size_t i) {
      return part.layer->runs_again(part.layer->operators[i], recompute_of(part), false);
    };
    for (Submodule submodule : inside) {
      submodule.owns = submodule.owns && runs_again(submodule.first);
      bool any = false;
      for (std::size_t i = submodule.first; i < submodule.end; ++i) any = any || runs_again(i);
      if (any) add(part, submodule, Pass::again);
    }
    for (std::size_t i = inside.size(); i-- > 0;) add(part, inside[i], Pass::backward);
    visits[first].starts = true;
    visits.back().ends = true;
  }
  return visits;
}

// Which gradients are reduced at which visit.
std::optional<GradientBucket> DeepspeedPlanner::plan_gradients(std::vector<Visit>& visits) const {
  GradientBuckets buckets(options_.reduce_bucket_size);
  for (Visit& visit : visits) {
    if (visit.pass != Pass::backward) continue;
    const std::vector<ParameterTensor>& tensors = (*visit.part->tensors)[visit.submodule.first];
    for (std::size_t i = tensors.size(); i-- > 0;)
      if (tensors[i].trained)
        if (auto full = buckets.add(tensors[i])) visit.reduced.push_back(std::move(*full));
  }
  return buckets.finish();
}

void DeepspeedPlanner::plan_parameters(std::vector<Visit>& visits) {
  std::vector<std::int64_t> elements;
  for (const ParameterTensor& tensor : tensors_) elements.push_back(tensor.elements);
  std::vector<ParameterVisit> trace;
  for (Visit& visit : visits) {
    if (!visit.submodule.owns) continue;
    visit.fetch = trace.size();
    trace.push_back(
        {.parameters = parameters_of(*visit.part, visit.submodule), .forward = visit.pass != Pass::backward});
  }
  // Alone, a rank has everything but what is on the host.
  const bool fetches = several() || options_.offloads_parameters();
  fetches_ = plan_fetches(trace, elements,
                          {.prefetch_bucket_size = options_.stage3_prefetch_bucket_size,
                           .max_live_parameters = options_.stage3_max_live_parameters,
                           .max_reuse_distance = options_.stage3_max_reuse_distance,
                           .persistence_threshold = fetches ? options_.stage3_param_persistence_threshold
                                                            : std::numeric_limits<std::int64_t>::max()});
  // How far back the gathers are that are waited for. Beyond what events can count, a later gather is waited for
  // instead.
  constexpr std::uint32_t most_turns = 60'000;
  std::uint32_t issued = 0;
  for (const FetchStep& step : fetches_.steps) {
    const std::uint32_t end = issued + static_cast<std::uint32_t>(step.gathered.size() + step.prefetched.size());
    for (const std::vector<std::uint32_t>* groups : {&step.awaited, &step.host_awaited})
      for (const std::uint32_t group : *groups) event_turns_ = std::max(event_turns_, end - group + 1);
    issued = end;
  }
  event_turns_ = std::min(event_turns_, most_turns);
  builder_.relative_events(static_cast<std::uint16_t>(event_turns_));
}

Bytes DeepspeedPlanner::gathered_bytes(std::uint32_t group) const {
  Bytes sum{};
  for (const std::uint32_t parameter : fetches_.groups[group].parameters) sum += tensors_[parameter].bytes;
  return sum;
}

// With qwZ, values of 16 bits travel in 8, in blocks with a scale each, which is left out as in the table of the ZeRO++
// paper.
Bytes DeepspeedPlanner::wire_bytes(std::uint32_t group) const {
  if (!options_.zero_quantized_weights) return gathered_bytes(group);
  Bytes sum{};
  for (const std::uint32_t parameter : fetches_.groups[group].parameters)
    sum += std::min(tensors_[parameter].bytes, Bytes{tensors_[parameter].elements});
  return sum;
}

bool DeepspeedPlanner::from_secondary(std::uint32_t group) const {
  return options_.zero_hpz_partition_size > 1 && !fetches_.groups[group].forward;
}

// `issued`: gathers before the block's own.
EventRef DeepspeedPlanner::event_of(std::uint32_t group, std::uint32_t issued) const {
  return {
      .index = static_cast<std::uint16_t>((group % event_turns_ + event_turns_ - issued % event_turns_) % event_turns_),
      .relative = true};
}

// Each rank fetches its slice, from the host or the drives where it is there, and gathers the others'. For each slice
// of a list to gather into, Python runs an operator, as in a forward pass
// (deepspeed/runtime/zero/partition_parameters.py at v0.3.16, _allgather_param), and the library copies it out, from
// C++ as in a backward pass (torch/lib/c10d/ ProcessGroupNCCL.cpp at v1.8, allgather). The copies end while the host
// still launches others.
void DeepspeedPlanner::write_gather(BlockWriter& block, std::uint32_t group, EventRef records) {
  const Bytes whole = gathered_bytes(group);
  const bool secondary = from_secondary(group);
  const std::int64_t ranks = secondary ? options_.zero_hpz_partition_size : shards_;
  block.memory(MemoryPurpose::buffers, whole);
  sim::StreamSet after = options_.overlaps() ? sim::StreamSet{0} : sim::set_of(sim::compute_stream);
  if (options_.offloads_parameters() && !secondary) {
    const Bytes slice = sim::scaled(whole, 1, shards_);
    if (options_.offload_param_device.value == "nvme") {
      host_state_.read(block, slice, after);
      after = static_cast<sim::StreamSet>(after | sim::set_of(host_state_.read()));
    }
    host_state_.copy_in(block, slice, after, several() ? std::nullopt : std::optional{records});
    after = static_cast<sim::StreamSet>(after | sim::set_of(host_state_.in()));
  }
  if (!several()) return;
  const Bytes wire = wire_bytes(group);
  if (wire < whole) {
    block.side_kernel(arrive_, pass_over("quantise parameters", (whole.count + wire.count) / ranks), after);
    after = static_cast<sim::StreamSet>(after | sim::set_of(arrive_));
  }
  const sim::CallId gather =
      builder_.call(secondary ? secondary_slot_ : data_slot_, CollectiveKind::all_gather, wire, sim::Purpose::data);
  const std::int64_t slices = static_cast<std::int64_t>(fetches_.groups[group].parameters.size()) * ranks;
  if (options_.slice_lists) block.host_work(slices * host_.forward);  // cut
  block.communicate(gather_, gather, after, {}, records);
  if (options_.slice_lists) block.host_work(slices * host_.backward);  // copied out
}

// What came together is copied into its tensors, what came quantised is written in 16 bits.
void DeepspeedPlanner::write_arrival(BlockWriter& block, std::uint32_t group, EventRef gathered) {
  const Bytes whole = gathered_bytes(group);
  const Bytes wire = several() ? wire_bytes(group) : whole;
  if (wire == whole && (fetches_.groups[group].parameters.size() == 1 || !several())) {
    block.wait_for(gathered);
    return;
  }
  const bool quantised = wire < whole;
  block.memory(MemoryPurpose::buffers, whole);
  block.side_kernel(arrive_,
                    quantised ? pass_over("dequantise parameters", wire.count + whole.count)
                              : pass_over("copy gathered parameters", 2 * whole.count),
                    0, {gathered});
  block.wait_for(sim::set_of(arrive_));
  block.memory(MemoryPurpose::buffers, -whole);
}

// What is missing is gathered, then waited for, then others are fetched ahead. By the code that runs beside the kernels
// of the submodule, but profiles of stage 3 show kernels that wait for all gathers before them (deepspeedai/DeepSpeed
// issues 1069 and 5047), and the steps of DSAZ last as long as both together. So the host waits for the kernels before
// it gathers - the allocator reuses what another stream has used only when that is through - and kernels for the
// gathers ahead.
void DeepspeedPlanner::write_fetches(BlockWriter& block, const FetchStep& step, std::uint32_t issued) {
  if (!step.gathered.empty() || !step.prefetched.empty()) block.host_wait(sim::set_of(sim::compute_stream));
  block.host_work(hooks);
  for (const std::uint32_t group : step.gathered) write_gather(block, group, event_of(group, issued));
  for (const std::uint32_t group : step.host_awaited) block.host_wait(event_of(group, issued), fetch_events_);
  for (const std::uint32_t group : step.awaited) write_arrival(block, group, event_of(group, issued));
  for (const std::uint32_t group : step.prefetched) write_gather(block, group, event_of(group, issued));
  if (!step.prefetched.empty()) block.wait_for(sim::set_of(gather_));
}

void DeepspeedPlanner::write_release(BlockWriter& block, const FetchStep& step) {
  Bytes released{};
  for (const std::uint32_t parameter : step.released) released += tensors_[parameter].bytes;
  block.memory(MemoryPurpose::buffers, -released);
}

// Gradients of a submodule enter the bucket; those that the next ones have no room beside leave.
void DeepspeedPlanner::write_partition_gradients(BlockWriter& block, const Visit& visit, bool accumulates) {
  std::int64_t waiting = 0;
  Bytes copied{};
  for (const ParameterTensor& tensor : (*visit.part->tensors)[visit.submodule.first]) {
    if (!tensor.trained) continue;
    (settles(tensor) ? copied.count : waiting) += tensor.elements * element_;
  }
  block.memory(MemoryPurpose::gradients, Bytes{waiting} + copied);
  for (const GradientBucket& full : visit.reduced) {
    write_reduction(block, full, accumulates);
    block.memory(MemoryPurpose::gradients, -waiting_bytes(full));
  }
  if (copied.count == 0) return;
  const sim::Kernel copy = pass_over("copy into bucket", 2 * copied.count);
  if (options_.overlaps())
    block.side_kernel(reduce_, copy, sim::set_of(sim::compute_stream));
  else
    block.compute({&copy, 1});
  block.memory(MemoryPurpose::gradients, -copied);
}

void DeepspeedPlanner::write_backward_visit(BlockWriter& block, const Visit& visit, std::uint32_t issued,
                                            bool accumulates) {
  const std::size_t first = visit.submodule.first;
  write_backward_of(block, *visit.part, {first + 1, visit.submodule.end});
  const FetchStep* step = visit.fetch ? &fetches_.steps[*visit.fetch] : nullptr;
  if (step != nullptr) write_fetches(block, *step, issued);
  write_backward_of(block, *visit.part, {first, first + 1});
  write_partition_gradients(block, visit, accumulates);
  if (step != nullptr) write_release(block, *step);
}

void DeepspeedPlanner::write_forward_visit(BlockWriter& block, const Visit& visit, std::uint32_t issued) {
  const FetchStep* step = visit.fetch ? &fetches_.steps[*visit.fetch] : nullptr;
  if (step != nullptr) write_fetches(block, *step, issued);
  if (visit.pass == Pass::forward)
    write_forward_of(block, *visit.part, visit.submodule.range());
  else
    write_recompute(block, *visit.part->layer, visit.submodule.range(), recompute_of(*visit.part), false, with_);
  if (step != nullptr) write_release(block, *step);
}

// What tells the block of a visit from others: visits that do the same share it.
std::vector<std::int64_t> DeepspeedPlanner::key_of(const Visit& visit, std::uint32_t issued, bool accumulates) const {
  std::vector<std::int64_t> key{visit.part->tensors - kind_tensors_.data(),
                                static_cast<std::int64_t>(visit.submodule.first),
                                static_cast<std::int64_t>(visit.pass),
                                visit.starts,
                                visit.ends,
                                accumulates};
  const auto add = [&](std::int64_t number) { key.push_back(number); };
  for (const GradientBucket& bucket : visit.reduced) {
    add(bucket.elements());
    for (const ParameterTensor& tensor : bucket.tensors) add(tensor.elements);
  }
  if (!visit.fetch) return key;
  const FetchStep& step = fetches_.steps[*visit.fetch];
  for (const std::vector<std::uint32_t>* groups :
       {&step.gathered, &step.host_awaited, &step.awaited, &step.prefetched}) {
    add(-1);
    for (const std::uint32_t group : *groups) {
      add(event_of(group, issued).index);
      add(gathered_bytes(group).count);
      add(wire_bytes(group).count);
      add(static_cast<std::int64_t>(fetches_.groups[group].parameters.size()));
      add(fetches_.groups[group].forward ? 1 : 0);
    }
  }
  Bytes released{};
  for (const std::uint32_t parameter : step.released) released += tensors_[parameter].bytes;
  add(released.count);
  return key;
}

sim::BlockId DeepspeedPlanner::visit_block(const Visit& visit, std::uint32_t issued, bool accumulates) {
  const std::vector<std::int64_t> key = key_of(visit, issued, accumulates && !visit.reduced.empty());
  const auto known = visit_blocks_.find(key);
  if (known != visit_blocks_.end()) return known->second;
  const bool forward = visit.pass == Pass::forward;
  const char* pass = forward ? "forward " : visit.pass == Pass::again ? "recompute " : "backward ";
  BlockWriter block =
      builder_.block(pass + visit.part->layer->name, visit.pass == Pass::backward ? host_.backward : host_.forward);
  const Bytes kept = kept_bytes(*visit.part);
  const Bytes working = working_bytes(*visit.part);
  if (visit.starts) block.memory(MemoryPurpose::activations, forward ? kept : working);
  if (visit.pass == Pass::backward)
    write_backward_visit(block, visit, issued, accumulates);
  else
    write_forward_visit(block, visit, issued);
  if (visit.ends) block.memory(MemoryPurpose::activations, -(kept + working));
  return visit_blocks_[key] = block.finish();
}

// The host waits until the last gradients are reduced.
sim::BlockId DeepspeedPlanner::partitioned_end(const std::optional<GradientBucket>& rest, bool accumulates) {
  BlockWriter block = builder_.block("backward end", host_.backward);
  if (rest) {
    write_reduction(block, *rest, accumulates);
    block.memory(MemoryPurpose::gradients, -waiting_bytes(*rest));
  }
  block.host_wait(sim::set_of(reduce_));
  return block.finish();
}

void DeepspeedPlanner::write_partitioned(sim::Program& program) {
  std::vector<Visit> visits = trace_visits();
  plan_parameters(visits);
  const std::optional<GradientBucket> rest = plan_gradients(visits);
  for (std::int64_t m = 0; m < micro_batches_; ++m) {
    std::uint32_t issued = 0;
    for (std::size_t v = 0; v < visits.size(); ++v) {
      const Visit& visit = visits[v];
      const std::int32_t layer = visit.part->index;
      const ActivationOffload::Place place = place_of(*visit.part, static_cast<std::int32_t>(m));
      if (layer >= 0 && visit.starts && visit.pass != Pass::forward) offload_.before_backward(program, place);
      program.calls.push_back({.block = visit_block(visit, issued, m > 0),
                               .layer = layer,
                               .micro_batch = static_cast<std::int32_t>(m),
                               .event_shift = static_cast<std::uint16_t>(issued % event_turns_)});
      if (visit.fetch) {
        const FetchStep& step = fetches_.steps[*visit.fetch];
        issued += static_cast<std::uint32_t>(step.gathered.size() + step.prefetched.size());
      }
      const bool passed = v + 1 == visits.size() || visits[v + 1].part != visit.part;
      if (layer >= 0 && passed && visit.pass == Pass::forward) offload_.after_forward(program, place);
    }
    if (m < 2) ends_[m > 0] = partitioned_end(rest, m > 0);
    program.calls.push_back({.block = ends_[m > 0], .micro_batch = static_cast<std::int32_t>(m)});
  }
}

}  // namespace trainyard::strategies

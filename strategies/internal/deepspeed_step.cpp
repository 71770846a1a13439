#include <algorithm>
#include <cmath>

#include "strategies/internal/deepspeed_planner.hpp"

namespace trainyard::strategies {

using sim::Bytes;
using sim::CollectiveKind;
using sim::MemoryPurpose;
using sim::Purpose;

// Only stage 3 leaves part of the optimizer on the device (offload_optimizer.ratio).
std::int64_t DeepspeedPlanner::owned_on_host() const {
  if (!options_.offloads_optimizer()) return 0;
  if (options_.zero_stage < 3) return owned();
  return std::llround(options_.offload_optimizer_ratio * static_cast<double>(owned()));
}

Bytes DeepspeedPlanner::persistent_bytes() const {
  Bytes sum{};
  if (options_.zero_stage < 3 || !several()) return sum;
  for (const ParameterTensor& tensor : tensors_)
    if (tensor.elements <= options_.stage3_param_persistence_threshold) sum += tensor.bytes;
  return sum;
}

void DeepspeedPlanner::write_resident(sim::Program& program) {
  const bool partitions = options_.zero_stage == 3;
  const auto add = [&](MemoryPurpose purpose, Bytes bytes) {
    program.resident[static_cast<std::size_t>(purpose)] += bytes;
  };
  const Bytes parameters = Bytes{trained_ * state_.parameter} + frozen_;
  if (!partitions)
    add(MemoryPurpose::parameters, parameters);
  else if (!options_.offloads_parameters())
    add(MemoryPurpose::parameters, sim::scaled(parameters, 1, shards_));
  add(MemoryPurpose::parameters, persistent_bytes());
  // Ranks of a group also hold a copy of all parameters together, for the backward passes.
  if (partitions && options_.zero_hpz_partition_size > 1)
    add(MemoryPurpose::parameters, sim::scaled(parameters, 1, options_.zero_hpz_partition_size));
  if (options_.zero_stage < 2)
    add(MemoryPurpose::gradients, Bytes{trained_ * (state_.gradient + (wide_gradients_ ? element_ : 0))});
  else
    add(MemoryPurpose::gradients, Bytes{(owned() - owned_on_host()) * state_.gradient});
  add(MemoryPurpose::optimizer, state_.optimizer(owned() - owned_on_host()));
  if (partitions && several() && options_.contiguous_gradients)
    add(MemoryPurpose::buffers, Bytes{options_.reduce_bucket_size * element_});
}

// Gradients are widened for the update.
workloads::StateBytes DeepspeedPlanner::state_at_step() const {
  workloads::StateBytes state = state_;
  if (has_wide_copy()) state.gradient = 4;
  return state;
}

// The norm decides about clipping, and overflows about skipping the step, on the host: it waits for both. Ranks with
// slices of gradients sum up over those that have the others, all over those that have other parameters.
void DeepspeedPlanner::write_norm(BlockWriter& block) {
  const std::int64_t elements = wide_gradients_ ? trained_ : owned() - owned_on_host();
  const sim::Kernel norm =
      costs_.memory_bound("gradient norm", Bytes{elements * state_.gradient}, sim::KernelClass::optimizer);
  if (elements > 0) block.compute({&norm, 1});
  const auto sum_up = [&](sim::SlotId slot, Purpose purpose) {
    const sim::CallId scalar = builder_.call(slot, CollectiveKind::all_reduce, Bytes{4}, purpose);
    block.blocking(reduce_, scalar);
    if (job_.training.precision == workloads::Precision::fp16) block.blocking(reduce_, scalar);
  };
  if (several() && options_.zero_stage >= 1) sum_up(data_slot_, Purpose::data);
  if (options_.of_megatron()) sum_up(model_slot_, options_.pipeline > 1 ? Purpose::pipeline : Purpose::tensor);
  block.host_wait(sim::set_of(sim::compute_stream));
}

// Stage 3 updates sub-groups one after the other, the others all at once: so large is the copy of gradients in 32 bits.
void DeepspeedPlanner::write_device_update(BlockWriter& block, std::int64_t elements) {
  const std::int64_t group = options_.zero_stage == 3 ? options_.sub_group_size : elements;
  for (std::int64_t done = 0; done < elements; done += group) {
    const std::int64_t now = std::min(group, elements - done);
    const bool widens = has_wide_copy() && state_.gradient < 4;
    const Bytes wide{widens ? 4 * now : 0};
    block.memory(MemoryPurpose::gradients, wide);
    if (widens) {
      const sim::Kernel cast =
          costs_.memory_bound("widen gradients", Bytes{now * (state_.gradient + 4)}, sim::KernelClass::optimizer);
      block.compute({&cast, 1});
    }
    const std::vector<sim::Kernel> kernels = workloads::optimizer_kernels(job_.training, state_at_step(), now, costs_);
    block.compute({kernels.data() + 1, kernels.size() - 1});
    block.memory(MemoryPurpose::gradients, -wide);
  }
}

// Sub-group by sub-group: from the drives, through the host's processors, back to the drives, and to the device. Reads
// and writes overlap the update of other sub-groups where they are pipelined.
void DeepspeedPlanner::write_host_update(BlockWriter& block) {
  const std::int64_t elements = owned_on_host();
  const std::int64_t group = options_.zero_stage == 3 ? std::min(options_.sub_group_size, elements) : elements;
  const bool drives = options_.offload_optimizer_device.value == "nvme";
  const auto update = static_cast<std::int64_t>(std::ceil(workloads::optimizer_traffic(state_at_step())));
  const sim::StreamSet updated = sim::set_of(host_state_.optimizer());
  const sim::StreamSet written = sim::set_of(host_state_.write());
  for (std::int64_t done = 0; done < elements; done += group) {
    const std::int64_t now = std::min(group, elements - done);
    const Bytes state = state_.optimizer(now);
    if (drives) {
      const auto before = static_cast<sim::StreamSet>(updated | written);
      host_state_.read(block, state, options_.offload_optimizer_pipeline_read ? sim::StreamSet{0} : before);
    }
    sim::StreamSet ready = sim::set_of(host_state_.out());
    if (drives) ready = static_cast<sim::StreamSet>(ready | sim::set_of(host_state_.read()));
    if (drives && !options_.offload_optimizer_pipeline_write) ready = static_cast<sim::StreamSet>(ready | written);
    host_state_.update(block, Bytes{now * update}, ready);
    if (drives) host_state_.write(block, state, updated);
    if (options_.zero_stage < 3 || !options_.offloads_parameters())
      host_state_.copy_in(block, Bytes{now * state_.parameter}, updated);
    else if (options_.offload_param_device.value == "nvme")
      host_state_.write(block, Bytes{now * state_.parameter}, updated);
  }
  block.wait_for(static_cast<sim::StreamSet>(updated | written | sim::set_of(host_state_.in())));
}

// The host has updated with the gradients of the step before while the devices worked on this one; it goes on with
// these (ZeRO-Offload, arXiv 2101.06840, one-step delayed parameter update).
void DeepspeedPlanner::write_delayed_update(BlockWriter& block) {
  const sim::StreamSet updated = sim::set_of(host_state_.optimizer());
  host_state_.copy_in(block, Bytes{owned_on_host() * state_.parameter}, updated);
  block.wait_for(sim::set_of(host_state_.in()));
  const auto update = static_cast<std::int64_t>(std::ceil(workloads::optimizer_traffic(state_at_step())));
  host_state_.update(block, Bytes{owned_on_host() * update}, sim::set_of(host_state_.out()));
}

// Stages 1 and 2 and BF16_Optimizer gather all that was updated, stage 3 what is on every rank at all times; nothing
// hides it.
void DeepspeedPlanner::write_parameter_gather(BlockWriter& block) {
  if (!partitions_state()) return;
  const auto gather = [&](const Replicas& among, std::int64_t elements) {
    if (elements == 0 || among.ranks == 1) return;
    block.blocking(gather_, builder_.call(among.slot, CollectiveKind::all_gather, Bytes{elements * state_.parameter},
                                          Purpose::data));
  };
  if (options_.zero_stage < 3) {
    for (const Replicas& among : replicas_) gather(among, among.trained);
    return;
  }
  std::int64_t persistent = 0;
  for (const ParameterTensor& tensor : tensors_)
    if (tensor.trained && tensor.elements <= options_.stage3_param_persistence_threshold) persistent += tensor.elements;
  gather(replicas_[0], persistent);
}

sim::BlockId DeepspeedPlanner::step_block() {
  BlockWriter block = builder_.block("optimizer step", host_.backward);
  block.wait_for(sim::set_of(reduce_));
  write_norm(block);
  write_device_update(block, owned() - owned_on_host());
  if (options_.delayed_param_update)
    write_delayed_update(block);
  else if (options_.offloads_optimizer())
    write_host_update(block);
  write_parameter_gather(block);
  write_loss_broadcast(block);
  block.host_wait(sim::set_of(sim::compute_stream)).host_work(host_.step);
  return block.finish();
}

}  // namespace trainyard::strategies

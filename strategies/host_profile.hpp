// What the host pays per kernel that it launches. Estimates: an eager PyTorch operator costs 5 to 10 us of Python and
// dispatch (backward runs in the C++ autograd engine, at the lower end), a launch from generated code 3 to 5 us, and a
// training loop has 2 to 10 ms of its own per step. Only Megatron-LM's are calibrated on measurements, see below.
#pragma once

#include "sim/units.hpp"
#include "workloads/training.hpp"

namespace trainyard::strategies {

struct HostProfile {
  sim::Duration forward{};
  sim::Duration backward{};
  sim::Duration loss{};  // once per micro-batch, on the last stage: beyond the kernels that are modelled
  sim::Duration step{};  // once per step: data loading, logging, learning rate
};

inline HostProfile eager_host() {
  using std::chrono::microseconds;
  return {.forward = microseconds{6}, .backward = microseconds{5}, .step = microseconds{3000}};
}

// Megatron-LM, per kernel of workloads/layers.hpp: that list has the large kernels, not the small ones around them, the
// random states that checkpointing and dropout save and restore, nor Python's way through modules and autograd
// functions (NVIDIA/Megatron-LM megatron/model/transformer.py, megatron/mpu/{random,mappings}.py). The some 50 kernels
// of a layer with full recomputation take the host 3 ms. Around the loss the host has more to do than to launch: it
// gets the batch and sends it to the tensor group (megatron/mpu/data.py), launches two dozen small kernels for masks
// and gathers of the vocabulary-parallel cross entropy, and averages the loss over data-parallel ranks (megatron/mpu/
// cross_entropy.py, pretrain_gpt.py). Both are calibrated on the 77 of the VTRS rows (GPT of 0.2 to 1.3 B on 2 to 8
// A100) whose number is divisible by 10. Those rows leave nothing for the loop itself: beyond passes, reduction of
// gradients and optimizer a step takes less than a millisecond.
inline HostProfile megatron_host() {
  using std::chrono::microseconds;
  return {.forward = microseconds{55}, .backward = microseconds{55}, .loss = microseconds{5000}};
}

// TensorFlow, operator by operator from Python; a step is one call of a function (estimates).
inline HostProfile tensorflow_host() {
  using std::chrono::microseconds;
  return {.forward = microseconds{10}, .backward = microseconds{10}, .step = microseconds{1000}};
}

// Generated code launches its kernels one by one, and so does the executor of TensorFlow's graphs, whose threads take
// what a bare launch takes, 3 to 5 us. A graph's replay, and a program of XLA, take the host 1 to 2 us per
// kernel, on the device for the most part; the middle is used.
inline HostProfile host_profile(workloads::Backend backend, const HostProfile& eager) {
  using std::chrono::microseconds;
  using std::chrono::nanoseconds;
  switch (backend) {
    case workloads::Backend::eager:
      return eager;
    case workloads::Backend::compiled:
      return {.forward = microseconds{3}, .backward = microseconds{3}, .step = eager.step};
    case workloads::Backend::graph:
      return {.forward = microseconds{4}, .backward = microseconds{4}, .step = eager.step};
    case workloads::Backend::cuda_graph:
    case workloads::Backend::xla:
      return {.forward = nanoseconds{1500}, .backward = nanoseconds{1500}, .step = eager.step};
  }
  return eager;
}
inline HostProfile host_profile(const workloads::Training& training, const HostProfile& eager) {
  return host_profile(training.backend.value_or(workloads::Backend::eager), eager);
}

// One program of XLA per step, from a framework that dispatches steps ahead of the device, so that nothing of the loop
// around them shows (AI-Hypercomputer/maxtext src/maxtext/configs/base.yml, max_inflight_computations: 2). On a TPU the
// program runs by itself; on a GPU its kernels are launched, or replayed as graphs.
inline HostProfile xla_host(bool on_tpu) {
  return on_tpu ? HostProfile{} : host_profile(workloads::Backend::xla, HostProfile{});
}

}  // namespace trainyard::strategies

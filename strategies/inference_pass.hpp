// A forward pass of inference as a plan: what each of the devices does that share a copy of the model.
#pragma once

#include <cstdint>

#include "strategies/host_profile.hpp"
#include "strategies/strategy.hpp"
#include "topology/cluster.hpp"
#include "workloads/layers.hpp"

namespace trainyard::strategies {

struct InferencePass {
  std::int64_t tensor = 1;  // consecutive devices share a copy
  sim::Bytes cache{};       // of keys and values, kept on each device
  sim::Bytes logits{};      // of the tokens that are chosen, in 16 bits
  HostProfile host;
};

// What the host pays: per kernel as in training, per pass for choosing what runs next, building its inputs and looking
// at the tokens: 1 ms where Python does it for an eager model (transformers' generate()), 0.2 ms in a serving engine or
// ONNX Runtime (estimates). A TPU runs its program by itself.
HostProfile inference_host(workloads::Backend backend, bool on_tpu);

// Every copy is shared as Megatron-LM shares it (arXiv 1909.08053, section 3): partial sums behind the embedding, the
// attention and the feed-forward block are all-reduced, experts' together with those of shared experts, and logits
// gathered. The host waits for the tokens before it goes on, since they may end a sequence.
PlannedStep plan_inference(const workloads::Expansion& model, const InferencePass& pass,
                           const topology::Cluster& cluster);

}  // namespace trainyard::strategies

// What a layer keeps between its forward and its backward pass under MaxText's remat policies. Sources:
// AI-Hypercomputer/maxtext src/maxtext/configs/base.yml (remat_policy and below) and layers/decoders.py
// (get_remat_policy); jax-ml/jax jax/_src/ad_checkpoint.py.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "sim/key.hpp"
#include "workloads/layers.hpp"
#include "workloads/training.hpp"

namespace trainyard::strategies {

// Results that a policy may name: `context` is what attention makes.
enum class NamedTensor : std::uint8_t {
  query_proj,
  key_proj,
  value_proj,
  out_proj,
  query_wa_proj,
  kv_wa_proj,
  mla_q,
  mla_kv,
  context,
  mlpwi,
  mlpwi_0,
  mlpwi_1,
  mlpwo,
  moe_mlpwi_0,
  moe_mlpwi_1,
  moe_mlpwo
};
constexpr std::size_t named_tensors = 16;
// As keys of a scenario. `context` means something else there; MaxText has this name for the same tensor too.
constexpr std::array<std::string_view, named_tensors> named_tensor_names{
    "query_proj",    "key_proj", "value_proj", "out_proj", "query_wa_proj", "kv_wa_proj",  "mla_q",       "mla_kv",
    "attention_out", "mlpwi",    "mlpwi_0",    "mlpwi_1",  "mlpwo",         "moe_mlpwi_0", "moe_mlpwi_1", "moe_mlpwo"};

struct RematOptions {
  RematOptions();
  sim::Choice remat_policy{"recompute",
                           {"recompute", "full", "minimal", "minimal_with_context", "save_dot_with_context_except_mlp",
                            "save_dot_except_mlp", "save_dot_except_mlpwi", "save_qkv_proj", "save_out_proj",
                            "qkv_proj_offloaded", "minimal_offloaded", "custom"}};
  // With `custom`.
  sim::Choice decoder_layer_input{"device", {"device", "offload"}};
  std::array<sim::Choice, named_tensors> tensors;
};

// Of one layer.
struct LayerRemat {
  std::vector<bool> runs_again;  // each operator in the backward pass
  sim::Bytes kept{};             // in the device's memory until then
  sim::Bytes offloaded{};        // in the host's
  // Of each operator: a linear whose output is kept, but not its input as the ranks of a tensor group have gathered it.
  std::vector<bool> gathers_again;
};

// Backward runs what it needs again, and nothing else, and what it does not need is not kept either: what only made the
// layer's output does not run (dead code to XLA), such as the last product of a feed-forward block.
class RematPolicy {
 public:
  // All that is kept goes to the host where the training asks for that.
  RematPolicy(const RematOptions& options, const workloads::Training& training);

  LayerRemat of(const workloads::Layer& layer) const;

 private:
  enum class Place : std::uint8_t { nowhere, device, host };
  void put(std::initializer_list<NamedTensor> tensors, Place place);
  Place place_of(const workloads::Operator& op) const;

  bool keeps_all_ = false;
  bool offloads_all_ = false;
  Place input_ = Place::device;
  std::array<Place, named_tensors> places_{};
};

}  // namespace trainyard::strategies

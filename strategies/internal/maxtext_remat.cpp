#include "strategies/internal/maxtext_remat.hpp"

#include <algorithm>
#include <map>
#include <optional>

namespace trainyard::strategies {
namespace {

using workloads::Operator;
using workloads::Role;

// The tensors that an operator's result is, all of which must be kept for it to be.
std::vector<NamedTensor> names_of(const Operator& op) {
  static const std::map<std::string, std::vector<NamedTensor>, std::less<>> names{
      {"query", {NamedTensor::query_proj}},
      {"key", {NamedTensor::key_proj}},
      {"value", {NamedTensor::value_proj}},
      {"query down", {NamedTensor::query_wa_proj}},
      {"key value down", {NamedTensor::kv_wa_proj}},
      {"query up", {NamedTensor::mla_q}},
      {"key value up", {NamedTensor::mla_kv}},
      {"attention output", {NamedTensor::out_proj}},
      {"fc1", {NamedTensor::mlpwi}},
      {"gate", {NamedTensor::mlpwi_0}},
      {"up", {NamedTensor::mlpwi_1}},
      {"fc2", {NamedTensor::mlpwo}},
      {"down", {NamedTensor::mlpwo}},
      {"experts fc1", {NamedTensor::moe_mlpwi_0}},
      {"experts gate up", {NamedTensor::moe_mlpwi_0, NamedTensor::moe_mlpwi_1}},
      {"experts fc2", {NamedTensor::moe_mlpwo}},
      {"experts down", {NamedTensor::moe_mlpwo}}};
  if (op.role == Role::attention) return {NamedTensor::context};
  const auto known = names.find(op.name);
  return known == names.end() ? std::vector<NamedTensor>{} : known->second;
}

// Backward reads what it read: products for their weights' gradients, whatever is not linear for its own.
bool needs_input(const Operator& op) {
  switch (op.role) {
    case Role::attention:
    case Role::combine:  // the weights of experts have gradients from what experts made
      return true;
    case Role::dispatch:
    case Role::exchange:
      return false;
    case Role::column_linear:
    case Role::row_linear:
      return !op.weight_gradient.empty();
    case Role::replicated:
    case Role::local:
      // A mask of dropout is less than what it was made for.
      return (op.saved.count > 0 && op.saved >= op.output) || !op.weight_gradient.empty();
  }
  return true;
}

// Backward reads its result: attention's output and sums, and tokens on their way back from experts, which are weighted
// where they come from.
bool needs_output(const Operator& op) { return op.role == Role::attention || op.role == Role::combine; }

// The policy that is meant by what frameworks have in common; nothing: everything is kept.
std::optional<std::string> policy_of(const workloads::Recompute& recompute) {
  switch (recompute.kind) {
    case workloads::Recompute::Kind::none:
      return std::nullopt;
    case workloads::Recompute::Kind::selective:
      return "minimal";
    case workloads::Recompute::Kind::full:
      return "full";
    case workloads::Recompute::Kind::modules:  // tried where the least that fits is looked for
      return "save_dot_with_context_except_mlp";
  }
  return std::nullopt;
}

}  // namespace

RematOptions::RematOptions() { tensors.fill({"remat", {"remat", "device", "offload"}}); }

RematPolicy::RematPolicy(const RematOptions& options, const workloads::Training& training)
    : offloads_all_(training.activation_offload) {
  using T = NamedTensor;
  std::optional<std::string> chosen = options.remat_policy.value;
  if (chosen == "recompute") chosen = policy_of(training.recompute);
  keeps_all_ = !chosen;
  const std::string policy = chosen.value_or("");
  const auto attention_inputs = {T::query_proj, T::key_proj, T::value_proj, T::query_wa_proj, T::kv_wa_proj};
  const auto products = {T::query_proj,  T::key_proj,    T::value_proj, T::query_wa_proj, T::kv_wa_proj,
                         T::out_proj,    T::mlpwi,       T::mlpwi_0,    T::mlpwi_1,       T::mlpwo,
                         T::moe_mlpwi_0, T::moe_mlpwi_1, T::moe_mlpwo};
  if (policy == "minimal" || policy == "minimal_with_context") put(products, Place::device);
  if (policy == "minimal_offloaded") put(products, Place::host);
  if (policy == "qkv_proj_offloaded") put({T::query_proj, T::key_proj, T::value_proj}, Place::host);
  if (policy.starts_with("save_dot") || policy == "save_qkv_proj") put(attention_inputs, Place::device);
  if (policy.starts_with("save_dot") || policy == "save_out_proj") put({T::out_proj}, Place::device);
  if (policy == "save_dot_except_mlpwi") put({T::mlpwo}, Place::device);
  if (policy == "minimal_with_context" || policy == "save_dot_with_context_except_mlp")
    put({T::context}, Place::device);
  if (policy != "custom") return;
  const auto place = [](const sim::Choice& choice) {
    return choice.value == "device" ? Place::device : choice.value == "offload" ? Place::host : Place::nowhere;
  };
  input_ = place(options.decoder_layer_input);
  for (std::size_t i = 0; i < named_tensors; ++i) places_.at(i) = place(options.tensors.at(i));
}

void RematPolicy::put(std::initializer_list<NamedTensor> tensors, Place place) {
  for (const NamedTensor tensor : tensors) places_.at(static_cast<std::size_t>(tensor)) = place;
}

RematPolicy::Place RematPolicy::place_of(const Operator& op) const {
  std::optional<Place> place;
  for (const NamedTensor name : names_of(op)) {
    const Place of = places_.at(static_cast<std::size_t>(name));
    if (!place || of == Place::nowhere) place = of;
  }
  return place.value_or(Place::nowhere);
}

// From the layer's end, whose output nobody in it needs, to its beginning.
LayerRemat RematPolicy::of(const workloads::Layer& layer) const {
  LayerRemat remat;
  const std::size_t count = layer.operators.size();
  remat.runs_again.resize(count);
  remat.gathers_again.resize(count);
  if (keeps_all_) {
    (offloads_all_ ? remat.offloaded : remat.kept) = layer.saved_bytes({}, false);
    remat.gathers_again.assign(count, true);
    return remat;
  }
  const auto held = [&](Place place) -> sim::Bytes& {
    return place == Place::device && !offloads_all_ ? remat.kept : remat.offloaded;
  };
  held(input_) += layer.input;
  bool output_needed = false;  // of what comes before the operators looked at
  bool input_needed = false;   // by those that read the same, so far
  for (std::size_t i = count; i-- > 0;) {
    const Operator& op = layer.operators[i];
    const Place place = place_of(op);
    const bool needed = output_needed || needs_output(op);
    remat.runs_again[i] = needed && place == Place::nowhere;
    remat.gathers_again[i] = !remat.runs_again[i];
    if (needed && place != Place::nowhere)
      held(place) += op.output + (op.role == Role::attention ? op.scores : sim::Bytes{});
    input_needed = input_needed || needs_input(op) || remat.runs_again[i];
    if (op.shares_input) continue;
    output_needed = input_needed;
    input_needed = false;
  }
  return remat;
}

}  // namespace trainyard::strategies

#include "strategies/checks.hpp"

#include <algorithm>
#include <cstdlib>
#include <utility>

namespace trainyard::strategies {

std::int64_t nearest_divisor(std::int64_t number, std::int64_t wanted) {
  std::int64_t best = 1;
  for (std::int64_t i = 1; i * i <= number; ++i) {
    if (number % i != 0) continue;
    for (const std::int64_t divisor : {i, number / i})
      if (std::llabs(divisor - wanted) < std::llabs(best - wanted)) best = divisor;
  }
  return best;
}

void require_divides(std::vector<Problem>& problems, std::string key, std::int64_t divisor, std::int64_t number,
                     const std::string& what) {
  if (number % divisor == 0) return;
  problems.push_back({.key = std::move(key),
                      .message = std::to_string(divisor) + " does not divide " + what + " (" + std::to_string(number) +
                                 "); the nearest that does is " + std::to_string(nearest_divisor(number, divisor))});
}

std::int64_t padded_vocabulary(std::int64_t vocab, std::int64_t multiple) {
  return (vocab + multiple - 1) / multiple * multiple;
}

sim::Bytes backward_workspace(const workloads::Layer& layer) {
  sim::Bytes largest{};
  for (const workloads::Operator& op : layer.operators) largest = std::max(largest, op.output);
  return largest * 2;
}

workloads::Precision gradient_precision(const workloads::Training& training, workloads::Precision usual) {
  return training.gradient_precision.value_or(usual);
}

std::vector<Problem> check_layer_groups(const Job& job, const std::string& framework) {
  if (job.training.recompute.every == 1) return {};
  return {{.key = "training.recompute",
           .message = framework + " recomputes layer by layer; use 'full', or framework 'megatron-lm'"}};
}

std::vector<std::string> warn_without_tensorflow(const Job& job, const std::string& framework) {
  if (job.training.backend != workloads::Backend::graph) return {};
  return {"training.backend: 'graph' is TensorFlow's executor, and " + framework +
          " is PyTorch software; what is simulated is its schedule under that executor"};
}

std::vector<std::string> warn_without_cuda(const Job& job, const std::string& framework) {
  std::vector<std::string> warnings = warn_without_tensorflow(job, framework);
  if (job.cluster.torus())
    warnings.push_back("cluster.node: " + framework +
                       " does not run on TPUs; what is simulated is its schedule on such chips");
  if (job.training.backend == workloads::Backend::xla)
    warnings.push_back("training.backend: " + framework +
                       " has no XLA programs; what is simulated is its schedule with " +
                       "their kernels. The nearest that it has is 'compiled'");
  return warnings;
}

std::vector<Problem> check_batch(const Job& job, std::int64_t data, std::int64_t micro_batch) {
  const std::int64_t per_pass = data * micro_batch;
  if (job.training.global_batch % per_pass == 0) {
    // A program lists every pass of every layer.
    constexpr std::int64_t most_passes = 1 << 24;
    const std::int64_t passes = job.training.global_batch / per_pass * job.model.total_layers();
    if (passes <= most_passes) return {};
    return {{.key = "training.global_batch",
             .message = std::to_string(job.training.global_batch / per_pass) + " micro-batches per rank of " +
                        std::to_string(job.model.total_layers()) + " layers are more than the " +
                        std::to_string(most_passes) +
                        " passes that can be simulated; give a smaller batch or more devices"}};
  }
  const std::int64_t below = job.training.global_batch / per_pass * per_pass;
  const std::int64_t nearest = below > 0 ? below : per_pass;
  return {{.key = "training.global_batch",
           .message = "a global batch of " + std::to_string(job.training.global_batch) + " is not a multiple of data " +
                      std::to_string(data) + " x micro batch " + std::to_string(micro_batch) + " = " +
                      std::to_string(per_pass) + "; the nearest is " + std::to_string(nearest)}};
}

}  // namespace trainyard::strategies

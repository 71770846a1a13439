// TensorFlow's distribution strategies. Sources: tensorflow/tensorflow tensorflow/python/distribute/
// {mirrored_strategy,collective_all_reduce_strategy,central_storage_strategy,parameter_server_strategy_v2}.py,
// cross_device_ops.py, cross_device_utils.py and collective_util.py.
#pragma once

#include <chrono>
#include <optional>

#include "strategies/strategy.hpp"

namespace trainyard::strategies {

struct TensorflowOptions {
  // Programs of XLA that GSPMD divides: TensorFlow's on TPUs, and what Keras' own distribution has.
  enum class Mode : std::uint8_t {
    mirrored,
    multi_worker_mirrored,
    central_storage,
    parameter_server,
    tpu,
    data_parallel,
    model_parallel
  };

  // Without those of Keras.
  sim::Choice mode{"auto", {"auto", "mirrored", "multi-worker-mirrored", "central-storage", "parameter-server", "tpu"}};
  std::int64_t tensor = 1;
  std::int64_t pipeline = 1;
  std::int64_t context = 1;
  std::int64_t expert = 1;
  sim::Choice cross_device_ops{"nccl", {"nccl", "hierarchical-copy", "reduction-to-one-device"}};
  std::int64_t num_packs = 1;
  sim::Choice communication{"auto", {"auto", "nccl", "ring"}};
  std::int64_t bytes_per_pack = 0;
  std::optional<std::int64_t> parameter_servers;
  bool synchronous = false;
  double grpc_efficiency = 0.4;
  std::int64_t steps_per_execution = 1;  // of Keras

  bool of_keras() const { return mode.choices.back() == "model-parallel"; }
  Mode mode_on(const Job& job) const;
  bool divided_by_gspmd(const Job& job) const { return mode_on(job) >= Mode::tpu; }
  bool over_grpc() const { return communication.value == "ring"; }
  std::int64_t servers(const Job& job) const { return parameter_servers.value_or(job.cluster.nodes()); }
};

// fit() of Keras goes back to Python once per `steps_per_execution` steps: metrics and callbacks take 2 to 5 ms (an
// estimate; the middle is used). A loop of one's own does not.
constexpr sim::Duration keras_round_trip = std::chrono::microseconds{3500};

// Options and job have been checked, and the mode is none of GSPMD's.
PlannedStep plan_tensorflow(const TensorflowOptions& options, const Job& job);

class Tensorflow : public Strategy {
 public:
  std::vector<sim::Key> keys() override;
  std::vector<Problem> check(const Job& job) const override;
  std::vector<std::string> warnings(const Job& job) const override;
  PlannedStep plan(const Job& job) const override;
  std::vector<SearchKey> search_keys(const Job& job) const override;

 protected:
  TensorflowOptions options_;
};

// The same strategies under Keras' fit(), and Keras' own: keras.distribution's DataParallel and ModelParallel, with JAX
// below (keras-team/keras keras/src/distribution/distribution_lib.py).
class Keras final : public Tensorflow {
 public:
  Keras();
  std::vector<sim::Key> keys() override;
};

}  // namespace trainyard::strategies

// PyTorch fully sharded data parallel (FSDP2, fully_shard). Source: pytorch/pytorch
// torch/distributed/fsdp/_fully_shard/{_fully_shard,_fsdp_param_group,_fsdp_collectives,_fsdp_state}.py.
#pragma once

#include <optional>
#include <string>

#include "strategies/strategy.hpp"

namespace trainyard::strategies {

class PytorchFsdp final : public Strategy {
 public:
  std::vector<sim::Key> keys() override;
  std::vector<Problem> check(const Job& job) const override;
  std::vector<std::string> warnings(const Job& job) const override;
  PlannedStep plan(const Job& job) const override;

  struct Options {
    std::int64_t tensor = 1;
    std::int64_t pipeline = 1;
    std::int64_t context = 1;
    std::int64_t expert = 1;
    std::optional<std::int64_t> shard;
    std::string reshard_after_forward = "true";
  };

 private:
  Options options_;
};

}  // namespace trainyard::strategies

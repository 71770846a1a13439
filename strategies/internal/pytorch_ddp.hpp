// PyTorch DistributedDataParallel. Sources: pytorch/pytorch torch/csrc/distributed/c10d/reducer.cpp,
// torch/nn/parallel/distributed.py and torch/distributed/algorithms/ddp_comm_hooks/default_hooks.py.
#pragma once

#include "strategies/strategy.hpp"

namespace trainyard::strategies {

class PytorchDdp final : public Strategy {
 public:
  std::vector<sim::Key> keys() override;
  std::vector<Problem> check(const Job& job) const override;
  std::vector<std::string> warnings(const Job& job) const override;
  PlannedStep plan(const Job& job) const override;
  std::vector<SearchKey> search_keys(const Job& job) const override;

  struct Options {
    std::int64_t tensor = 1;
    std::int64_t pipeline = 1;
    std::int64_t context = 1;
    std::int64_t expert = 1;
    std::int64_t bucket_cap_mb = 25;
    bool gradient_as_bucket_view = false;
    bool find_unused_parameters = false;
    bool static_graph = false;
    bool broadcast_buffers = true;
    bool no_sync = true;
    sim::Choice comm_hook{"none", {"none", "fp16_compress", "bf16_compress"}};
    bool compresses() const { return comm_hook.value != "none"; }
  };

 private:
  Options options_;
};

}  // namespace trainyard::strategies
